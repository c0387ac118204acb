import type { Store } from '../storage';

/** Memory is not shared with other tabs, so neither are its locks. */
const own = crypto.getRandomValues(new Uint32Array(2)).join('-');

/** Runs `work` while nobody else, in any tab of this site, works on the same file. */
export async function alone<T>(store: Store, id: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const locks = lockManager();
  return locks === undefined ? work() : locks.request(lockName(store, id), { signal }, work);
}

/** As `alone`, but gives null at once where somebody else works on the file. */
export async function unlessBusy<T>(store: Store, id: string, work: () => Promise<T>): Promise<T | null> {
  const locks = lockManager();
  if (locks === undefined) return work();
  return locks.request(lockName(store, id), { ifAvailable: true }, async (lock) => (lock === null ? null : work()));
}

function lockName({ kind }: Store, id: string): string {
  return `imatch ${kind === 'memory' ? own : kind} ${id}`;
}

/** Absent where the page did not come over a secure connection. */
function lockManager(): LockManager | undefined {
  return (navigator as Partial<WorkerNavigator>).locks;
}
