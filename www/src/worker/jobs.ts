import { plain } from '../error';
import type { Calls, Progress, Request, Response } from '../protocol';

declare const self: DedicatedWorkerGlobalScope;

/** A request that is being worked on. */
export interface Job {
  readonly id: number;
  readonly signal: AbortSignal;
  /** Reports how far the work is; what comes too fast within one stage is left out. */
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
    handlers[data.kind](data.ask, { id, signal: controller.signal, onProgress: throttled(id) })
      .then(
        (value) => post({ kind: 'answer', id, value }),
        (thrown: unknown) => onThrown?.(thrown) === true || post({ kind: 'error', id, error: plain(thrown) }),
      )
      .finally(() => running.delete(id));
  });
}

export function post(response: Response): void {
  self.postMessage(response);
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
