import type { AnswerKind, Answers, Device, ErrorCode, PlainError, Progress, Request, Response } from './protocol';

/** Every failure of the API: a sentence and a stable `code`. */
export class ImatchError extends Error {
  readonly code: ErrorCode;
  /** The device that was being started when loading failed. */
  readonly device: Device | undefined;

  constructor({ code, message, device }: PlainError) {
    super(message);
    this.name = code === 'aborted' ? 'AbortError' : 'ImatchError';
    this.code = code;
    this.device = device;
  }
}

export interface AskOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  readonly transfer?: Transferable[];
}

interface Pending {
  readonly to: AnswerKind;
  resolve(value: Answers[AnswerKind]): void;
  reject(error: ImatchError): void;
  onProgress(progress: Progress): void;
}

type Body<K extends AnswerKind> = Omit<Extract<Request, { kind: K }>, 'id' | 'kind'>;

const CLOSED: PlainError = { code: 'internal', message: 'the evaluator is closed' };
const ABORTED: PlainError = { code: 'aborted', message: 'stopped on request' };

/** Codes after which the device cannot be trusted any more. */
const FATAL: ReadonlySet<ErrorCode> = new Set(['device', 'device_lost', 'self_test']);

/** A worker and the requests it has not answered yet. */
export class Connection {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #closed = false;

  constructor() {
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
    this.#worker.addEventListener('message', ({ data }: MessageEvent<Response>) => this.#receive(data));
    this.#worker.addEventListener('messageerror', () =>
      this.close({ code: 'internal', message: 'an answer could not be read' }),
    );
    this.#worker.addEventListener('error', (event) => {
      event.preventDefault();
      this.close({ code: 'internal', message: event.message || 'the worker could not be started' });
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a request; the promise settles with its answer, or at once when `signal` aborts. */
  ask<K extends AnswerKind>(kind: K, body: Body<K>, options: AskOptions = {}): Promise<Answers[K]> {
    return this.askWithId(kind, body, options).value;
  }

  /** As `ask`, for those who have to name the request later. */
  askWithId<K extends AnswerKind>(
    kind: K,
    body: Body<K>,
    options: AskOptions = {},
  ): { id: number; value: Promise<Answers[K]> } {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = withResolvers<Answers[K]>();
    const { signal, onProgress = () => undefined, transfer = [] } = options;
    if (this.#closed || signal?.aborted) {
      reject(new ImatchError(this.#closed ? CLOSED : ABORTED));
      return { id, value: promise };
    }
    const stop = () => this.#abort(id);
    const settled = () => signal?.removeEventListener('abort', stop);
    signal?.addEventListener('abort', stop, { once: true });
    this.#pending.set(id, { to: kind, resolve: resolve as Pending['resolve'], reject, onProgress });
    this.#worker.postMessage({ kind, id, ...body } as unknown as Request, transfer);
    return { id, value: promise.finally(settled) };
  }

  /** Ends the worker; whatever is still asked fails with `cause`. */
  close(cause: PlainError = CLOSED): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#worker.terminate();
    const error = new ImatchError(cause);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #receive(response: Response): void {
    if (response.kind === 'crashed') return this.close(response.error);
    const pending = this.#pending.get(response.id);
    if (pending === undefined) return;
    if (response.kind === 'progress') return pending.onProgress(response.progress);
    this.#pending.delete(response.id);
    if (response.kind === 'answer') return pending.resolve(response.value);
    pending.reject(new ImatchError(response.error));
    // A wasm instance cannot start a second device, and one that failed may go on returning wrong numbers.
    if (FATAL.has(response.error.code)) this.close(response.error);
  }

  #abort(id: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    this.#worker.postMessage({ kind: 'abort', id } satisfies Request);
    pending.reject(new ImatchError(ABORTED));
  }
}

/** `Promise.withResolvers`, which browsers have had only since 2024. */
function withResolvers<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: ImatchError) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
