/** What is stored, seen as models: lists, sizes, removal. */
import { ImatchError } from '../error';
import type { Origin, StorageUsage, StoredModel } from '../protocol';
import { allStores, openStore, type Store } from '../storage';
import { streamed } from '../storage/pieces';
import { digest } from './hash';
import { alone, unlessBusy } from './locks';
import { fileId, fileRecord, forgetPlan, kept, storedPlan, storedPlans } from './records';
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
    const others = plans.filter((stored) => stored !== plan);
    const [busy] = await dropUnused(store, plan.files, others);
    if (busy !== undefined) {
      throw new ImatchError({ code: 'io', message: `${busy}: it is being downloaded at the moment` });
    }
    await forgetPlan(store, plan);
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

/** Hashes the stored files of a model and removes those that are not what they were; gives their names. */
export async function recheck({ addresses, storage }: Origin, signal: AbortSignal): Promise<string[]> {
  const { store } = await openStore(storage);
  const plan = await storedPlan(store, addresses);
  const damaged: string[] = [];
  for (const file of plan?.files ?? []) {
    const id = await fileId(file.url);
    await alone(store, id, signal, async () => {
      if (await isSound(store, id)) return;
      await forget(store, id);
      damaged.push(file.name);
    });
  }
  return damaged;
}

/** Removes those files that none of `plans` needs; gives the names of those that are being downloaded. */
export async function dropUnused(store: Store, files: readonly Planned[], plans: readonly Plan[]): Promise<string[]> {
  const needed = new Set(plans.flatMap((plan) => plan.files).map(({ url }) => url));
  const busy: string[] = [];
  for (const { url, name } of files.filter(({ url }) => !needed.has(url))) {
    const id = await fileId(url);
    const done = await unlessBusy(store, id, async () => {
      await forget(store, id);
      return true;
    });
    if (done === null) busy.push(name);
  }
  return busy;
}

async function isSound(store: Store, id: string): Promise<boolean> {
  const [blob, record] = await Promise.all([store.file(id), fileRecord(store, id)]);
  if (blob === null || record === null || record.bytes !== blob.size) return false;
  const hash = await digest();
  try {
    for await (const chunk of streamed(blob)) hash.update(chunk);
  } catch {
    return false;
  }
  return hash.finish() === record.sha256;
}

async function forget(store: Store, id: string): Promise<void> {
  await store.setRecord(id, null);
  await store.setRecord(`${id}.part`, null);
  await store.remove(id);
}

async function describe(store: Store, plan: Plan): Promise<StoredModel> {
  const { key, addresses, name, form } = plan;
  const found = await Promise.all(plan.files.map((file) => kept(store, file)));
  const bytes = await storedBytes(store, plan.files);
  return { key, addresses, name, form, storage: store.kind, bytes, complete: !found.includes(null) };
}

async function allFiles(store: Store): Promise<Planned[]> {
  const byUrl = new Map((await storedPlans(store)).flatMap(({ files }) => files).map((file) => [file.url, file]));
  return [...byUrl.values()];
}

async function storedBytes(store: Store, files: readonly Planned[]): Promise<number> {
  const sizes = files.map(async ({ url }) => {
    const id = await fileId(url);
    return ((await store.file(id))?.size ?? 0) + (await store.partBytes(id));
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
