/**
 * The worker: takes requests, calls the wasm module, answers. Several requests may be in flight; the engine
 * takes them one after the other, because they share one device. Nothing is fetched once the model is loaded.
 */
import init, { AbortFlag, Engine, type Picture } from 'imatch-wasm';
import type { Answers, AnswerKind, Device, Loaded, Opened, Progress, Request, Response } from './protocol';
import { Failure, isTrap, plain } from './worker/failure';
import { download } from './worker/files';
import { preflight } from './worker/preflight';

declare const self: DedicatedWorkerGlobalScope;

type RequestOf<K extends Request['kind']> = Extract<Request, { kind: K }>;

/** A request that is not answered yet, and the means to stop it. */
interface Job {
  readonly controller: AbortController;
  flag: AbortFlag | null;
}

/** Progress within one stage is reported at most this often. */
const PROGRESS_INTERVAL_MS = 60;

let engine: Engine | null = null;
/** The device that is being started, for the report of a crash. */
let starting: Device | undefined;
let queue: Promise<unknown> = Promise.resolve();
const jobs = new Map<number, Job>();
const pictures = new Map<number, Picture>();

self.addEventListener('message', ({ data }: MessageEvent<Request>) => receive(data));
// A panic inside a future of the wasm module surfaces here and nowhere else: its promise never settles.
self.addEventListener('error', (event) => crash(event.error ?? event.message));
self.addEventListener('unhandledrejection', (event) => crash(event.reason));

function receive(request: Request): void {
  switch (request.kind) {
    case 'abort':
      return abort(request.id);
    case 'probe':
      return void run(request, () => preflight(request.software));
    case 'load':
      return inTurn(request, (job) => load(request, job));
    case 'open':
      return inTurn(request, (job) => open(request, job));
    case 'score':
      return inTurn(request, (job) => score(request, job));
    case 'close':
      return inTurn(request, async () => close(request.picture));
    case 'dispose':
      return inTurn(request, async () => dispose());
  }
}

/** Runs `work` after everything that was asked of the engine before. */
function inTurn<K extends AnswerKind>(request: RequestOf<K>, work: (job: Job) => Promise<Answers[K]>): void {
  const before = queue;
  queue = run(request, async (job) => {
    await before;
    job.controller.signal.throwIfAborted();
    return work(job);
  });
}

/** Runs `work` and answers with what it gives; the promise never rejects. */
function run<K extends AnswerKind>(request: RequestOf<K>, work: (job: Job) => Promise<Answers[K]>): Promise<void> {
  const { id, kind } = request as { id: number; kind: K };
  const job: Job = { controller: new AbortController(), flag: null };
  jobs.set(id, job);
  const answer = (value: Answers[K]) => post({ kind: 'answer', to: kind, id, value } as Response);
  const fail = (thrown: unknown) =>
    isTrap(thrown) ? crash(thrown) : post({ kind: 'error', id, error: plain(thrown) });
  return work(job)
    .then(answer, fail)
    .finally(() => jobs.delete(id));
}

/** Stops a request; one that has just opened a picture has it closed again, as nobody can name it any more. */
function abort(id: number): void {
  const job = jobs.get(id);
  if (job === undefined) return void close(id);
  job.controller.abort();
  job.flag?.abort();
}

async function load({ id, manifest, device: choice, software }: RequestOf<'load'>, job: Job): Promise<Loaded> {
  if (engine !== null) throw new Failure('invalid_input', 'this worker has loaded a model already');
  const { signal } = job.controller;
  const report = choice === 'cpu' ? null : await preflight(software || choice === 'gpu');
  if (choice === 'gpu' && report?.reason) throw new Failure('device', report.reason);
  const device = report?.device ?? 'cpu';
  const onProgress = throttled(id);
  onProgress({ stage: 'program', loaded: 0, total: 0 });
  const started = startProgram();
  const [files, policy] = await Promise.all([download(manifest, signal, onProgress), hasPolicy(signal)]);
  await started;
  signal.throwIfAborted();
  starting = device;
  try {
    engine = await withFlag(job, (flag) =>
      Engine.load({ manifest: files.manifest, device, read: files.read, onProgress }, flag),
    );
  } catch (thrown) {
    if (isTrap(thrown)) {
      crash(thrown);
      throw thrown;
    }
    const { code, message } = plain(thrown);
    throw new Failure(code, message, device);
  } finally {
    starting = undefined;
    files.drop();
  }
  return {
    info: engine.info(),
    device,
    reason: report === null ? 'the CPU was chosen' : report.reason,
    bytes: files.bytes,
    policy,
  };
}

async function open({ id, bytes }: RequestOf<'open'>, job: Job): Promise<Opened> {
  const opened = await withFlag(job, (flag) => ready().open(new Uint8Array(bytes), flag));
  if (job.controller.signal.aborted) {
    opened.free();
    throw new Failure('aborted', 'stopped on request');
  }
  pictures.set(id, opened);
  return { width: opened.width, height: opened.height, sha256: opened.sha256() };
}

async function score({ id, picture, request }: RequestOf<'score'>, job: Job) {
  const opened = pictures.get(picture);
  if (opened === undefined) throw new Failure('invalid_input', 'the picture was closed');
  return withFlag(job, (flag) => opened.score(request, flag, throttled(id)));
}

function close(picture: number): null {
  pictures.get(picture)?.free();
  pictures.delete(picture);
  return null;
}

function dispose(): null {
  for (const picture of [...pictures.keys()]) close(picture);
  engine?.free();
  engine = null;
  return null;
}

function ready(): Engine {
  if (engine === null) throw new Failure('invalid_input', 'no model is loaded');
  return engine;
}

/** Lends `work` a flag that `abort` can raise while it runs. */
async function withFlag<T>(job: Job, work: (flag: AbortFlag) => Promise<T>): Promise<T> {
  const flag = new AbortFlag();
  job.flag = flag;
  try {
    return await work(flag);
  } finally {
    job.flag = null;
    flag.free();
  }
}

/** Downloads and compiles the wasm module. A failure shows when the promise is awaited. */
function startProgram(): Promise<unknown> {
  const started = init().catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof WebAssembly.CompileError) {
      throw new Failure('unsupported', `this browser cannot compile the scoring program: ${message}`);
    }
    throw new Failure('network', `the scoring program could not be fetched: ${message}`);
  });
  started.catch(() => undefined);
  return started;
}

/** Whether the server sent this script with a policy, as the page's own does not bind a worker. */
async function hasPolicy(signal: AbortSignal): Promise<boolean> {
  const response = await fetch(self.location.href, { method: 'HEAD', signal }).catch(() => null);
  const policy = response?.headers.get('Content-Security-Policy') ?? '';
  return /connect-src 'self'(;|$)/.test(policy);
}

function throttled(id: number): (progress: Progress) => void {
  let stage = '';
  let next = 0;
  return ({ stage: current, loaded, total }) => {
    const now = performance.now();
    if (current === stage && now < next && loaded < total) return;
    stage = current;
    next = now + PROGRESS_INTERVAL_MS;
    post({ kind: 'progress', id, progress: { stage: current, loaded, total } });
  };
}

function crash(thrown: unknown): void {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const place = starting === undefined ? {} : { device: starting };
  post({ kind: 'crashed', error: { code: 'internal', message: `the scoring program stopped: ${message}`, ...place } });
}

function post(response: Response): void {
  self.postMessage(response);
}
