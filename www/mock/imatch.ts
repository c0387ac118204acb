/**
 * Pretends to be the wasm module, for work on the page and for its tests; never part of the production build.
 * Scores are made up from the words. What goes wrong is asked for by words too: `mock` in the manifest when
 * loading, `!crash`, `!trap`, `!lost`, `!lost-once`, `!destroyed`, `!invalid`, `!memory`, `!fail` or `!slow` in the
 * prompt when scoring.
 */
import type {
  Device,
  EngineInfo,
  Inspection,
  ModelFile,
  ModelForm,
  ModelInfo,
  Progress,
  ScoreRequest,
  ScoreResult,
} from '../src/protocol';

type Read = (name: string, offset: number, length: number) => Promise<Uint8Array>;

interface LoadOptions {
  files: ModelFile[];
  name: string;
  device: Device;
  read: Read;
  onProgress?: (progress: Progress) => void;
}

interface MockManifest {
  files?: { path: string; sha256: string }[];
  mock?: { fail?: string; on?: Device; steps?: number; kind?: 'levels' | 'yes_no' };
}

const MODEL = { name: 'pretended shapes', architecture: 'qwen3_vl', quantization: 'q8_0' };
const PIXELS = '4f1c0e5b9a7d2836c1f09b4e6d8a3c5271e0f4b68d9c2a7350b1e6f4c8d2a907';
const STEP_MS = 12;
const LETTERS = 'abcdefghijklmno';

export default async function init(): Promise<void> {
  await pause();
}

export class AbortFlag {
  raised = false;

  abort(): void {
    this.raised = true;
  }

  free(): void {}
}

export class Engine {
  readonly #device: Device;
  readonly #kind: 'levels' | 'yes_no';
  readonly #model: ModelInfo;

  constructor(device: Device, kind: 'levels' | 'yes_no', name: string, sha256: string) {
    this.#device = device;
    this.#kind = kind;
    this.#model = { ...MODEL, name, sha256 };
  }

  static async load({ files, name, device, read, onProgress }: LoadOptions, flag: AbortFlag): Promise<Engine> {
    const { mock = {}, files: promised = [] } = await manifestOf(files, read);
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    const lines: [string, string][] = [];
    for (const { name, bytes } of files) {
      const digest = await sha256(await read(name, 0, bytes));
      const want = promised.find(({ path }) => path === name)?.sha256 ?? digest;
      if (digest !== want) fail('integrity', `${name}: SHA-256 ${digest}, the manifest promises ${want}`);
      if (!/\.json$/.test(name)) lines.push([name, digest]);
    }
    for (const stage of ['verify', 'upload', 'compile', 'selftest'] as const) {
      const end = stage === 'verify' || stage === 'upload' ? total : 4;
      await steps(mock.steps ?? 4, flag, (part) => onProgress?.({ stage, loaded: end * part, total: end }));
    }
    if (mock.fail !== undefined && (mock.on ?? device) === device) fail(mock.fail, `pretended failure on ${device}`);
    return new Engine(device, mock.kind ?? 'levels', titleOf(files, name), await digestOfAll(lines));
  }

  info(): EngineInfo {
    const selftest = { passed: true, max_difference: 3.1e-5 };
    const facts = { load_ms: 412, device_bytes: 2.4e6, heap_bytes: 9e6 };
    return { model: this.#model, device: this.#device, scoring: {}, selftest, ...facts };
  }

  async open(bytes: Uint8Array, flag: AbortFlag): Promise<Picture> {
    await steps(3, flag);
    const png = bytes[0] === 0x89 && bytes[1] === 0x50;
    if (!png) fail('invalid_image', 'not a PNG, JPEG or WebP file');
    return new Picture(this.#device, this.#kind, this.#model);
  }

  free(): void {}
}

export class Picture {
  readonly width = 256;
  readonly height = 256;
  readonly #device: Device;
  readonly #kind: 'levels' | 'yes_no';
  readonly #model: ModelInfo;

  constructor(device: Device, kind: 'levels' | 'yes_no', model: ModelInfo) {
    this.#device = device;
    this.#kind = kind;
    this.#model = model;
  }

  sha256(): string {
    return PIXELS;
  }

  async score(request: ScoreRequest, flag: AbortFlag, onProgress?: (progress: Progress) => void): Promise<ScoreResult> {
    const { prompt, elements } = request;
    await steps(4, flag, (part) => onProgress?.({ stage: 'questions', loaded: 4 * part, total: 4 }));
    if (prompt.includes('!trap')) throw new WebAssembly.RuntimeError('unreachable');
    // As a panic inside a future of wasm-bindgen does: the error surfaces, the promise never settles.
    if (prompt.includes('!crash'))
      return new Promise(() =>
        setTimeout(() => {
          throw new Error('unreachable');
        }),
      );
    if (prompt.includes('!lost-once')) await loseOnce();
    else if (prompt.includes('!lost')) fail('device_lost', 'the device was lost: pretended');
    const misused = await misuseDevice(prompt);
    if (prompt.includes('!fail')) fail('invalid_input', 'the prompt is longer than the 1024 positions of the model');
    // A result that comes at once is one that the device's report comes after.
    const asked = misused ? 0 : prompt.includes('!slow') ? 400 : 6;
    await steps(asked, flag, (part) =>
      onProgress?.({ stage: 'questions', loaded: Math.round(asked * part), total: asked }),
    );
    return {
      model: this.#model,
      ...scores(prompt, elements, this.#kind),
      device: this.#device,
      timings_ms: { load: 412, image: 38.2, prefix: 0, questions: 86.1 },
      elements_geometric_mean: elements.length === 0 ? null : 0.42,
      scoring: this.#kind === 'yes_no' ? { preset: 'zero-shot' } : {},
    };
  }

  free(): void {}
}

interface InspectOptions extends Pick<LoadOptions, 'files' | 'name' | 'read'> {
  readonly prepare?: boolean;
}

/** Reads a header and the end of every file. */
export async function inspect({ files, name, read }: InspectOptions): Promise<Inspection> {
  for (const { name, bytes } of files) {
    await read(name, 0, Math.min(bytes, 1024));
    await read(name, Math.max(0, bytes - 8), Math.min(bytes, 8));
  }
  const download = files.reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    ...MODEL,
    name: titleOf(files, name),
    license: 'MIT OR Apache-2.0',
    form: formOf(files),
    download_bytes: download,
    device_bytes: { gpu: download * 2, cpu: /unfit/.test(name) ? 9e9 : download * 4 },
    largest_binding_bytes: download,
    host_bytes: 1024,
    gflop: { first_score: 0.132, question: 0.016 },
    overall: 'levels',
  };
}

/** A manifest would say its model's name. */
function titleOf(files: readonly ModelFile[], name: string): string {
  if (typeof name !== 'string' || name === '') fail('invalid_input', 'options.name is missing');
  return formOf(files) === 'converted' ? MODEL.name : name;
}

/** As the real module does, by the names. */
function formOf(files: readonly ModelFile[]): ModelForm {
  const names = files.map(({ name }) => name);
  if (names.includes('manifest.json')) return 'converted';
  if (names.includes('config.json') && names.includes('tokenizer.json')) return 'hugging_face';
  if (names.length >= 2 && names.every((name) => name.endsWith('.gguf'))) return 'gguf';
  return fail('invalid_model', `no form of model has the files ${names.join(', ')}`);
}

async function manifestOf(files: readonly ModelFile[], read: Read): Promise<MockManifest> {
  const manifest = formOf(files) === 'converted' ? files.find(({ name }) => name === 'manifest.json') : undefined;
  if (manifest === undefined) return {};
  return JSON.parse(new TextDecoder().decode(await read(manifest.name, 0, manifest.bytes))) as MockManifest;
}

/** As the crate's `model_sha256`. */
function digestOfAll(lines: readonly [string, string][]): Promise<string> {
  const sorted = [...lines].sort(([a], [b]) => (a < b ? -1 : 1));
  return sha256(new TextEncoder().encode(sorted.map(([name, digest]) => `${digest}  ${name}\n`).join('')));
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Fails the first time in a browser profile: only storage outlives the worker. */
async function loseOnce(): Promise<void> {
  const cache = await caches.open('mock');
  if ((await cache.match('/lost')) !== undefined) return;
  await cache.put('/lost', new Response());
  fail('device_lost', 'the device was lost: pretended');
}

/** Does to a real device what a defect or a driver would, and goes on as if nothing had happened. */
async function misuseDevice(prompt: string): Promise<boolean> {
  if (!/!(destroyed|invalid|memory)/.test(prompt)) return false;
  const device = await (await navigator.gpu.requestAdapter())?.requestDevice();
  if (device === undefined) return fail('device', 'the tests need an adapter');
  if (prompt.includes('!destroyed')) device.destroy();
  if (prompt.includes('!invalid')) device.createBuffer({ size: 4, usage: 0 });
  if (prompt.includes('!memory')) {
    const error = new GPUOutOfMemoryError('pretended');
    device.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error }));
  }
  return true;
}

function scores(prompt: string, elements: readonly string[], kind: 'levels' | 'yes_no') {
  const mean = 7 + (hash(prompt) % 70) / 10;
  const weights = [...LETTERS].map((_, index) => Math.exp(-(((index + 1 - mean) / 1.9) ** 2)) + 0.004);
  const sum = weights.reduce((total, weight) => total + weight);
  const levels = weights.map((weight, index) => ({ token: LETTERS.charAt(index), probability: weight / sum }));
  const expected = levels.reduce((total, { probability }, index) => total + probability * (index + 1), 0);
  const overall = { score: 1 + ((expected - 1) * 4) / 14, scale: [1, 5] as const };
  const answered = elements.map((written) => {
    const at = written.lastIndexOf(' (');
    const element = written.slice(0, at);
    const near = (hash(written) % 17) / 100;
    const score = hash(element) % 4 === 1 ? 0.08 + near * 2 : 0.98 - near;
    return { element, category: written.slice(at + 2, -1), score, present: score >= 0.5 };
  });
  if (kind === 'yes_no')
    return { overall: { ...overall, probability: (overall.score - 1) / 4, levels: [] }, elements: answered };
  return { overall: { ...overall, confidence: 0.71, expected_level: expected, levels }, elements: answered };
}

async function steps(count: number, flag: AbortFlag, report: (part: number) => void = () => undefined): Promise<void> {
  for (let step = 1; step <= count; step++) {
    await pause();
    if (flag.raised) fail('aborted', 'stopped on request');
    report(step / count);
  }
}

function fail(code: string, message: string): never {
  throw Object.assign(new Error(message), { code });
}

function hash(text: string): number {
  return [...text].reduce((value, letter) => (value * 31 + (letter.codePointAt(0) ?? 0)) >>> 0, 7);
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, STEP_MS));
}
