/**
 * Pretends to be the wasm module, for work on the page and for its tests; never part of the production build.
 * Scores are made up from the words. What goes wrong is asked for by words too: `mock` in the manifest when
 * loading, `!crash`, `!trap`, `!lost`, `!fail` or `!slow` in the prompt when scoring.
 */
import type { Device, EngineInfo, Progress, ScoreRequest, ScoreResult } from '../src/protocol';

interface LoadOptions {
  manifest: string;
  device: Device;
  read: (path: string, offset: number, length: number) => Promise<Uint8Array>;
  onProgress?: (progress: Progress) => void;
}

interface MockManifest {
  files: { path: string; bytes: number }[];
  mock?: { fail?: string; on?: Device; steps?: number; kind?: 'levels' | 'yes_no' };
}

const MODEL = {
  name: 'pretended shapes',
  architecture: 'qwen3_vl',
  quantization: 'q8_0',
  sha256: '4f1c0e5b9a7d2836c1f09b4e6d8a3c5271e0f4b68d9c2a7350b1e6f4c8d2a907',
};
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

  constructor(device: Device, kind: 'levels' | 'yes_no') {
    this.#device = device;
    this.#kind = kind;
  }

  static async load({ manifest, device, read, onProgress }: LoadOptions, flag: AbortFlag): Promise<Engine> {
    const { files, mock = {} } = JSON.parse(manifest) as MockManifest;
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { path, bytes } of files) await read(path, 0, bytes);
    for (const stage of ['verify', 'upload', 'compile', 'selftest'] as const) {
      const end = stage === 'verify' || stage === 'upload' ? total : 4;
      await steps(mock.steps ?? 4, flag, (part) => onProgress?.({ stage, loaded: end * part, total: end }));
    }
    if (mock.fail !== undefined && (mock.on ?? device) === device) fail(mock.fail, `pretended failure on ${device}`);
    return new Engine(device, mock.kind ?? 'levels');
  }

  info(): EngineInfo {
    const selftest = { passed: true, max_difference: 3.1e-5 };
    return { model: MODEL, device: this.#device, scoring: {}, selftest, load_ms: 412 };
  }

  async open(bytes: Uint8Array, flag: AbortFlag): Promise<Picture> {
    await steps(3, flag);
    const png = bytes[0] === 0x89 && bytes[1] === 0x50;
    if (!png) fail('invalid_image', 'not a PNG, JPEG or WebP file');
    return new Picture(this.#device, this.#kind);
  }

  free(): void {}
}

export class Picture {
  readonly width = 256;
  readonly height = 256;
  readonly #device: Device;
  readonly #kind: 'levels' | 'yes_no';

  constructor(device: Device, kind: 'levels' | 'yes_no') {
    this.#device = device;
    this.#kind = kind;
  }

  sha256(): string {
    return MODEL.sha256;
  }

  async score(request: ScoreRequest, flag: AbortFlag, onProgress?: (progress: Progress) => void): Promise<ScoreResult> {
    const { prompt, elements } = request;
    await steps(4, flag, (part) => onProgress?.({ stage: 'prefix', loaded: 4 * part, total: 4 }));
    if (prompt.includes('!trap')) throw new WebAssembly.RuntimeError('unreachable');
    // As a panic inside a future of wasm-bindgen does: the error surfaces, the promise never settles.
    if (prompt.includes('!crash'))
      return new Promise(() =>
        setTimeout(() => {
          throw new Error('unreachable');
        }),
      );
    if (prompt.includes('!lost')) fail('device_lost', 'the device was lost: pretended');
    if (prompt.includes('!fail')) fail('invalid_input', 'the prompt is longer than the 1024 positions of the model');
    const asked = prompt.includes('!slow') ? 400 : 6;
    await steps(asked, flag, (part) =>
      onProgress?.({ stage: 'questions', loaded: Math.round(asked * part), total: asked }),
    );
    return {
      model: MODEL,
      ...scores(prompt, elements, this.#kind),
      device: this.#device,
      timings_ms: { load: 412, image: 38.2, prefix: 61.7, questions: 24.4 },
      scoring: {},
    };
  }

  free(): void {}
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
