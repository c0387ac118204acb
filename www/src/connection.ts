import { ImatchError, aborted } from './error';
import type { Calls, ErrorCode, PlainError, Progress, Request, Response } from './protocol';

export interface AskOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  readonly transfer?: Transferable[];
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: ImatchError): void;
  onProgress(progress: Progress): void;
}

const CLOSED: PlainError = { code: 'internal', message: 'the evaluator is closed' };

/** Codes after which the device cannot be trusted any more. */
const FATAL: ReadonlySet<ErrorCode> = new Set(['device', 'device_lost', 'out_of_memory', 'self_test']);

/** A worker and the requests it has not answered yet. */
export class Connection<C extends Calls> {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #end: PlainError | null = null;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.addEventListener('message', ({ data }: MessageEvent<Response>) => this.#receive(data));
    worker.addEventListener('messageerror', () =>
      this.close({ code: 'internal', message: 'an answer could not be read' }),
    );
    worker.addEventListener('error', (event) => {
      event.preventDefault();
      this.close({ code: 'internal', message: event.message || 'the worker could not be started' });
    });
  }

  get closed(): boolean {
    return this.#end !== null;
  }

  /** Whether the worker ended by a failure of its own, and not on request. */
  get crashed(): boolean {
    return this.#end !== null && this.#end !== CLOSED;
  }

  /** Sends a request; the promise settles with its answer, or at once when `signal` aborts. */
  ask<K extends keyof C & string>(kind: K, ask: C[K]['ask'], options: AskOptions = {}): Promise<C[K]['answer']> {
    return this.askWithId(kind, ask, options).value;
  }

  /** As `ask`, for those who have to name the request later. */
  askWithId<K extends keyof C & string>(
    kind: K,
    ask: C[K]['ask'],
    options: AskOptions = {},
  ): { id: number; value: Promise<C[K]['answer']> } {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = withResolvers<C[K]['answer']>();
    const { signal, onProgress = () => undefined, transfer = [] } = options;
    if (this.#end !== null || signal?.aborted) {
      reject(this.#end === null ? aborted() : new ImatchError(this.#end));
      return { id, value: promise };
    }
    const stop = () => this.#abort(id);
    const settled = () => signal?.removeEventListener('abort', stop);
    signal?.addEventListener('abort', stop, { once: true });
    this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject, onProgress });
    this.#worker.postMessage({ kind, id, ask } as Request<C>, transfer);
    return { id, value: promise.finally(settled) };
  }

  /** Ends the worker; whatever is still asked fails with `cause`. */
  close(cause: PlainError = CLOSED): void {
    if (this.#end !== null) return;
    this.#end = cause;
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
    this.#worker.postMessage({ kind: 'abort', id } satisfies Request<C>);
    pending.reject(aborted());
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
