/**
 * The scorer: takes requests, calls the wasm module, answers. Several requests may be in flight; the engine
 * takes them one after the other, because they share one device. It fetches the wasm module and nothing else:
 * the model's files come as blobs that the downloader or the visitor has put there.
 */
import init, { AbortFlag, Engine, inspect, type Picture } from 'imatch-wasm';
import { ImatchError, aborted, messageOf, plain } from './error';
import { PortReader } from './port';
import type { Chosen, Device, Inspection, Loaded, Opened, ScorerCalls } from './protocol';
import { BlobReader, described } from './worker/blobs';
import { settled, unwatchDevices, watchDevices } from './worker/devices';
import { post, serve, type Job } from './worker/jobs';
import { preflight } from './worker/preflight';

declare const self: DedicatedWorkerGlobalScope;

let engine: Engine | null = null;
let program: Promise<unknown> | null = null;
let chosen: (Omit<Chosen, 'adapter'> & { readonly deviceName: string }) | null = null;
/** The device that is being started, for the report of a crash. */
let starting: Device | undefined;
let queue: Promise<unknown> = Promise.resolve();
const pictures = new Map<number, Picture>();

serve<ScorerCalls>(
  {
    probe: ({ software }) => preflight(software),
    start: (ask, job) => start(ask, job),
    load: (ask, job) => inTurn(job, () => load(ask, job)),
    inspect: (ask, job) => inTurn(job, () => examine(ask)),
    open: (ask, job) => inTurn(job, () => open(ask, job)),
    score: (ask, job) => inTurn(job, () => score(ask, job)),
    close: (ask, job) => inTurn(job, async () => close(ask.picture)),
    dispose: (_, job) => inTurn(job, async () => dispose()),
  },
  // A picture whose opening is stopped too late is closed again, as nobody can name it any more.
  { onLateAbort: close, onThrown: (thrown) => (isTrap(thrown) && crash(thrown)) || (isCutOff(thrown) && end(thrown)) },
);
// A panic inside a future of the wasm module surfaces here and nowhere else: its promise never settles.
self.addEventListener('error', (event) => crash(event.error ?? event.message));
self.addEventListener('unhandledrejection', (event) => crash(event.reason));
watchDevices((failure) => post({ kind: 'crashed', error: { ...failure, ...place() } }));

/** Runs `work` after everything that was asked of the engine before. */
function inTurn<T>({ signal }: Job, work: () => Promise<T>): Promise<T> {
  const result = queue.then(() => {
    signal.throwIfAborted();
    return work();
  });
  queue = result.catch(() => undefined);
  return result;
}

async function start({ device: choice, software }: ScorerCalls['start']['ask'], { onProgress }: Job): Promise<Chosen> {
  const report = choice === 'cpu' ? null : await preflight(software || choice === 'gpu');
  if (choice === 'gpu' && report?.reason) throw new ImatchError({ code: 'device', message: report.reason });
  const { vendor = '', architecture = '', description = '' } = report?.adapter ?? {};
  const deviceName = description || `${vendor} ${architecture}`.trim();
  onProgress({ stage: 'program', loaded: 0, total: 0 });
  startProgram().catch(() => undefined);
  const reason = report === null ? 'the CPU was chosen' : report.reason;
  chosen = { device: report?.device ?? 'cpu', reason, deviceName };
  return { device: chosen.device, reason, adapter: report?.adapter ?? null };
}

async function load({ name, files }: ScorerCalls['load']['ask'], job: Job): Promise<Loaded> {
  if (engine !== null) throw new ImatchError({ code: 'invalid_input', message: 'this worker has a model already' });
  if (chosen === null) throw new ImatchError({ code: 'internal', message: 'no device was chosen' });
  const { device, reason, deviceName } = chosen;
  await startProgram();
  job.signal.throwIfAborted();
  engine = await startEngine({ name, files }, device, deviceName, job);
  const bytes = files.reduce((sum, { blob }) => sum + blob.size, 0);
  return { info: engine.info(), device, reason, bytes, script: self.location.href };
}

async function startEngine(
  { name, files }: ScorerCalls['load']['ask'],
  device: Device,
  deviceName: string,
  { signal, onProgress }: Job,
): Promise<Engine> {
  const reader = new BlobReader(files);
  const named = device === 'gpu' && deviceName !== '' ? { deviceName } : {};
  starting = device;
  try {
    const options = { files: files.map(described), name, read: reader.read, device, ...named, onProgress };
    const loaded = await withFlag(signal, (flag) => Engine.load(options, flag));
    await settled();
    return loaded;
  } catch (thrown) {
    if (isTrap(thrown)) throw thrown;
    // What the device reported explains whatever came of it, a failed self-test for one.
    const reported = await settled().then(() => undefined, (failure: unknown) => failure);
    const { code, message } = plain(reported ?? reader.failure ?? thrown);
    throw new ImatchError({ code, message, device });
  } finally {
    starting = undefined;
  }
}

async function examine(ask: ScorerCalls['inspect']['ask']): Promise<Inspection> {
  await startProgram();
  const reader = 'port' in ask ? new PortReader(ask.port) : new BlobReader(ask.blobs);
  const files = 'port' in ask ? [...ask.files] : ask.blobs.map(described);
  // Who looks through a port is about to download: the kernels are made ready beside it.
  const prepare = 'port' in ask && chosen?.device === 'gpu';
  // A device that fails meanwhile is one that the CPU can stand in for.
  if (prepare) starting = 'gpu';
  try {
    return await inspect({ files, name: ask.name, read: reader.read, prepare });
  } catch (thrown) {
    throw reader.failure ?? thrown;
  } finally {
    if ('port' in ask) ask.port.close();
  }
}

async function open({ bytes }: { bytes: ArrayBuffer }, { id, signal }: Job): Promise<Opened> {
  const opened = await withFlag(signal, (flag) => ready().open(new Uint8Array(bytes), flag));
  await settled();
  if (signal.aborted) {
    opened.free();
    throw aborted();
  }
  pictures.set(id, opened);
  return { width: opened.width, height: opened.height, sha256: opened.sha256() };
}

async function score({ picture, request }: ScorerCalls['score']['ask'], { signal, onProgress }: Job) {
  const opened = pictures.get(picture);
  if (opened === undefined) throw new ImatchError({ code: 'invalid_input', message: 'the picture was closed' });
  const result = await withFlag(signal, (flag) => opened.score(request, flag, onProgress));
  await settled();
  return result;
}

function close(picture: number): null {
  pictures.get(picture)?.free();
  pictures.delete(picture);
  return null;
}

function dispose(): null {
  unwatchDevices();
  for (const picture of [...pictures.keys()]) close(picture);
  engine?.free();
  engine = null;
  return null;
}

function ready(): Engine {
  if (engine === null) throw new ImatchError({ code: 'invalid_input', message: 'no model is loaded' });
  return engine;
}

/** Lends `work` a flag that is raised when `signal` aborts. */
async function withFlag<T>(signal: AbortSignal, work: (flag: AbortFlag) => Promise<T>): Promise<T> {
  const flag = new AbortFlag();
  const raise = () => flag.abort();
  signal.addEventListener('abort', raise, { once: true });
  try {
    return await work(flag);
  } finally {
    signal.removeEventListener('abort', raise);
    flag.free();
  }
}

/** Downloads and compiles the wasm module, once. */
function startProgram(): Promise<unknown> {
  program ??= init().catch((error: unknown) => {
    const message = messageOf(error);
    throw error instanceof WebAssembly.CompileError
      ? new ImatchError({ code: 'unsupported', message: `this browser cannot compile the scoring program: ${message}` })
      : new ImatchError({ code: 'network', message: `the scoring program could not be fetched: ${message}` });
  });
  return program;
}

/** Whether a thrown value means that the wasm instance can no longer be used: a trap leaves its memory as it was. */
function isTrap(thrown: unknown): boolean {
  return thrown instanceof WebAssembly.RuntimeError;
}

/** Whether the files of a loaded model cannot be read any more: no other question would fare better. */
function isCutOff(thrown: unknown): boolean {
  return engine !== null && plain(thrown).code === 'io';
}

function end(thrown: unknown): true {
  post({ kind: 'crashed', error: plain(thrown) });
  return true;
}

function crash(thrown: unknown): true {
  const message = `the scoring program stopped: ${messageOf(thrown)}`;
  post({ kind: 'crashed', error: { code: 'internal', message, ...place() } });
  return true;
}

function place(): { device?: Device } {
  return starting === undefined ? {} : { device: starting };
}
