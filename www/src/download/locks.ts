import type { Store } from '../storage';

/** Memory is not shared with other tabs, so neither are its locks. */
const own = crypto.getRandomValues(new Uint32Array(2)).join('-');

/** Runs `work` while nobody else, in any tab of this site, works on the same file. */
export async function alone<T>(store: Store, id: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const locks = lockManager();
  const name = lockName(store, id);
  if (locks !== undefined) return locks.request(name, { signal }, work);
  return queued(name, () => {
    signal.throwIfAborted();
    return work();
  });
}

/** As `alone`, but gives null at once where somebody else works on the file. */
export async function unlessBusy<T>(store: Store, id: string, work: () => Promise<T>): Promise<T | null> {
  const locks = lockManager();
  const name = lockName(store, id);
  if (locks === undefined) return queues.has(name) ? null : queued(name, work);
  return locks.request(name, { ifAvailable: true }, async (lock) => (lock === null ? null : work()));
}

/** Runs `work` while nobody else works on any of the files; otherwise does nothing and gives the id of a busy one. */
export async function unlessAnyBusy(
  store: Store,
  [id, ...others]: readonly string[],
  work: () => Promise<void>,
): Promise<string | null> {
  if (id === undefined) return work().then(() => null);
  const outcome = await unlessBusy(store, id, async () => ({ busy: await unlessAnyBusy(store, others, work) }));
  return outcome === null ? id : outcome.busy;
}

/** What goes on under each name, to its end, where the browser has no locks: other tabs are not held off then. */
const queues = new Map<string, Promise<unknown>>();

function queued<T>(name: string, work: () => Promise<T>): Promise<T> {
  const turn = (queues.get(name) ?? Promise.resolve()).then(work);
  const end: Promise<unknown> = turn
    .catch(() => undefined)
    .finally(() => {
      if (queues.get(name) === end) queues.delete(name);
    });
  queues.set(name, end);
  return turn;
}

function lockName({ kind }: Store, id: string): string {
  return `imatch ${kind === 'memory' ? own : kind} ${id}`;
}

/** Absent where the page did not come over a secure connection. */
function lockManager(): LockManager | undefined {
  return (navigator as Partial<WorkerNavigator>).locks;
}
