/** Where downloaded files are kept. What is stored is either whole and checked, or a part that can be gone on with. */
import { ImatchError, messageOf } from '../error';
import type { StorageKind } from '../protocol';
import { CacheStore } from './cache';
import { MemoryStore } from './memory';
import { OpfsStore } from './opfs';
import type { Store } from './store';

export type { Part, Store } from './store';

export interface Opened {
  readonly store: Store;
  /** Why not the origin private file system, where that was wanted. */
  readonly reason: string | null;
}

const OPEN: Readonly<Record<StorageKind, () => Promise<Store>>> = {
  opfs: () => OpfsStore.open(),
  cache: () => CacheStore.open(),
  memory: async () => memory,
};

/** One for as long as the worker lives. */
const memory = new MemoryStore();

/** The store asked for, or the first that works: origin private file system, cache storage, memory. */
export async function openStore(wanted: StorageKind | null): Promise<Opened> {
  if (wanted !== null) {
    const store = await OPEN[wanted]().catch((error: unknown) => {
      throw new ImatchError({ code: 'unsupported', message: `storage ${wanted}: ${messageOf(error)}` });
    });
    return { store, reason: null };
  }
  const reasons: string[] = [];
  for (const kind of ['opfs', 'cache'] as const) {
    try {
      return { store: await OPEN[kind](), reason: reasons[0] ?? null };
    } catch (error) {
      reasons.push(messageOf(error));
    }
  }
  return { store: memory, reason: reasons.join('; ') };
}

/** Every store that works, for lists and removal. */
export async function allStores(): Promise<Store[]> {
  const opened = await Promise.allSettled(Object.values(OPEN).map((open) => open()));
  return opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}
