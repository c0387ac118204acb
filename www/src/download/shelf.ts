/** What is stored, seen as models: lists, sizes, removal. */
import { ImatchError, messageOf } from '../error';
import type { Origin, StorageUsage, StoredModel } from '../protocol';
import { allStores, openStore, type Store } from '../storage';
import { streamed } from '../storage/pieces';
import { digest } from './hash';
import { alone, unlessAnyBusy, unlessBusy } from './locks';
import {
  distinct,
  fileId,
  fileRecord,
  filesOf,
  forgetPlan,
  keptDigest,
  storedPlan,
  storedPlans,
  type StoredPlan,
} from './records';
import type { Plan, Planned } from './resolve';

export async function list(): Promise<StoredModel[]> {
  const stores = await allStores();
  const models = await Promise.all(
    stores.map(async (store) => (await storedPlans(store)).map((plan) => describe(store, plan))),
  );
  return (await Promise.all(models.flat())).sort((a, b) => a.name.localeCompare(b.name));
}

/** Removes a model from wherever it is stored, but for files that another model needs. */
export async function remove(key: string): Promise<void> {
  for (const store of await allStores()) {
    const plans = await storedPlans(store);
    const plan = plans.find((stored) => stored.key === key);
    if (plan === undefined) continue;
    const unused = await notNeeded(
      filesOf(plan),
      plans.filter((stored) => stored !== plan),
    );
    const busy = await unlessAnyBusy(store, [...unused.keys()], async () => {
      for (const id of unused.keys()) await forget(store, id);
      await forgetPlan(store, plan);
    });
    if (busy !== null) {
      throw new ImatchError({ code: 'io', message: `${unused.get(busy)}: it is being downloaded or checked at the moment` });
    }
  }
}

export async function usage(): Promise<StorageUsage> {
  const stores = await allStores();
  const bytes = await Promise.all(stores.map(async (store) => storedBytes(store, await allFiles(store))));
  const storage = (navigator as Partial<WorkerNavigator>).storage;
  const { quota, usage: used = 0 } = (await storage?.estimate().catch(() => null)) ?? {};
  return {
    bytes: bytes.reduce((sum, some) => sum + some, 0),
    free: quota === undefined ? null : Math.max(0, quota - used),
    persisted: (await storage?.persisted().catch(() => false)) ?? false,
  };
}

/**
 * Hashes the stored files of a model and removes those that are not what they were; gives their names. What is gone
 * or cannot be read is no damage.
 */
export async function recheck({ addresses, storage }: Origin, signal: AbortSignal): Promise<string[]> {
  const { store } = await openStore(storage);
  const plan = await storedPlan(store, addresses);
  const damaged: string[] = [];
  for (const file of plan?.files ?? []) {
    const id = await fileId(file.url);
    await alone(store, id, signal, async () => {
      if (await isSound(store, id, file.name, signal)) return;
      await forget(store, id);
      damaged.push(file.name);
    });
  }
  return damaged;
}

/** Removes those files that none of `plans` needs and nobody is downloading. */
export async function dropUnused(store: Store, files: readonly Planned[], plans: readonly Plan[]): Promise<void> {
  for (const id of (await notNeeded(files, plans)).keys()) await unlessBusy(store, id, () => forget(store, id));
}

/** Names, by id, of those files that none of `plans` needs. */
async function notNeeded(files: readonly Planned[], plans: readonly Plan[]): Promise<Map<string, string>> {
  const needed = new Set(plans.flatMap(filesOf).map(({ url }) => url));
  const unused = files.filter(({ url }) => !needed.has(url));
  return new Map(await Promise.all(unused.map(async ({ url, name }) => [await fileId(url), name] as const)));
}

async function isSound(store: Store, id: string, name: string, signal: AbortSignal): Promise<boolean> {
  const [blob, record] = await Promise.all([store.file(id), fileRecord(store, id)]);
  if (blob === null || record === null) return true;
  if (record.bytes !== blob.size) return false;
  const hash = await digest();
  for await (const chunk of read(blob, name)) {
    signal.throwIfAborted();
    hash.update(chunk);
  }
  return hash.finish() === record.sha256;
}

async function* read(blob: Blob, name: string): AsyncGenerator<Uint8Array> {
  try {
    yield* streamed(blob);
  } catch (error) {
    const message = `${name}: the stored copy could not be read: ${messageOf(error)}`;
    throw new ImatchError({ code: 'io', message });
  }
}

async function forget(store: Store, id: string): Promise<void> {
  await store.setRecord(id, null);
  await store.setRecord(`${id}.part`, null);
  await store.remove(id);
}

async function describe(store: Store, plan: StoredPlan): Promise<StoredModel> {
  const { key, addresses, name, form } = plan;
  const found = await Promise.all(plan.files.map((file) => keptDigest(store, file)));
  const bytes = await storedBytes(store, filesOf(plan));
  return { key, addresses, name, form, storage: store.kind, bytes, complete: !found.includes(null) };
}

async function allFiles(store: Store): Promise<Planned[]> {
  return distinct((await storedPlans(store)).flatMap(filesOf));
}

async function storedBytes(store: Store, files: readonly Planned[]): Promise<number> {
  const sizes = files.map(async ({ url }) => {
    const id = await fileId(url);
    return ((await store.fileBytes(id)) ?? 0) + (await store.partBytes(id));
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
