import { plain } from '../error';
import type { Calls, Progress, Request, Response } from '../protocol';

declare const self: DedicatedWorkerGlobalScope;

/** A request that is being worked on. */
export interface Job {
  readonly id: number;
  readonly signal: AbortSignal;
  /** Reports how far the work is; of what comes too fast within one stage, only the last. */
  readonly onProgress: (progress: Progress) => void;
}

export type Handlers<C extends Calls> = {
  readonly [K in keyof C & string]: (ask: C[K]['ask'], job: Job) => Promise<C[K]['answer']>;
};

/** Progress within one stage is reported at most this often. */
const PROGRESS_INTERVAL_MS = 60;

/**
 * Answers every message to this worker with what its handler gives or throws. `onLateAbort` hears of requests
 * that are stopped after their answer was sent; `onThrown` may take a failure out of the ordinary by returning true.
 */
export function serve<C extends Calls>(
  handlers: Handlers<C>,
  { onLateAbort, onThrown }: { onLateAbort?: (id: number) => void; onThrown?: (thrown: unknown) => boolean } = {},
): void {
  const running = new Map<number, AbortController>();
  self.addEventListener('message', ({ data }: MessageEvent<Request<C>>) => {
    const { id } = data;
    if (!('ask' in data)) return running.has(id) ? running.get(id)?.abort() : onLateAbort?.(id);
    const controller = new AbortController();
    running.set(id, controller);
    const reporter = new Reporter(id);
    const onProgress = (progress: Progress) => reporter.report(progress);
    handlers[data.kind](data.ask, { id, signal: controller.signal, onProgress })
      .then(
        (value) => post({ kind: 'answer', id, value }),
        (thrown: unknown) => onThrown?.(thrown) === true || post({ kind: 'error', id, error: plain(thrown) }),
      )
      .finally(() => {
        reporter.end();
        running.delete(id);
      });
  });
}

export function post(response: Response): void {
  self.postMessage(response);
}

/** Throttles progress, and posts the last one late instead of never: a download that stalls shows how far it came. */
class Reporter {
  readonly #id: number;
  #stage = '';
  #next = 0;
  #late: ReturnType<typeof setTimeout> | undefined;

  constructor(id: number) {
    this.#id = id;
  }

  report({ stage, loaded, total }: Progress): void {
    this.end();
    const wait = stage === this.#stage && loaded < total ? this.#next - performance.now() : 0;
    if (wait > 0) this.#late = setTimeout(() => this.#post({ stage, loaded, total }), wait);
    else this.#post({ stage, loaded, total });
  }

  /** What has not been posted is not wanted any more. */
  end(): void {
    clearTimeout(this.#late);
  }

  #post(progress: Progress): void {
    this.#stage = progress.stage;
    this.#next = performance.now() + PROGRESS_INTERVAL_MS;
    post({ kind: 'progress', id: this.#id, progress });
  }
}
