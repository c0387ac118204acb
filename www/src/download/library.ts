/** The models that the browser keeps: what is there is used, what is missing is fetched. */
import { ImatchError } from '../error';
import { texts } from '../forms';
import type { Downloaded, NamedBlob, Origin, Progress } from '../protocol';
import { openStore, type Store } from '../storage';
import { fetchFile, type Begun } from './fetch';
import { digest } from './hash';
import { Changed, Temporary, type Manner } from './http';
import { alone } from './locks';
import {
  fileId,
  fileRecord,
  filesOf,
  kept,
  keptDigest,
  rememberBegun,
  rememberWhole,
  sizeOf,
  storedPlan,
  storedPlans,
  type FileRecord,
} from './records';
import { resolve, type Plan, type Planned } from './resolve';
import { dropUnused } from './shelf';

export interface Task extends Manner {
  readonly onProgress: (progress: Progress) => void;
}

/** All files of a model, fetching what the browser does not have. */
export async function download(origin: Origin, task: Task): Promise<Downloaded> {
  const { store, reason } = await openStore(origin.storage);
  const { plan, stored } = await currentPlan(store, origin, task);
  // What is stored stays as it is while the servers cannot be reached, parts of another version included.
  const run = stored ? collect : carryOut;
  const files = await run(store, plan, task).catch(async (error: unknown) => {
    if (!(error instanceof Changed)) throw error;
    return null;
  });
  if (files !== null) return whole(plan, files);
  const anew = await resolve(origin.addresses, task);
  return whole(anew, await carryOut(store, anew, task));

  function whole(of: Plan, found: readonly NamedBlob[]): Downloaded {
    return { name: of.name, files: [...texts(of), ...found], storage: store.kind, reason };
  }
}

async function carryOut(store: Store, plan: Plan, task: Task): Promise<NamedBlob[]> {
  await reserve(store, plan);
  const before = await storedPlan(store, plan.addresses);
  await rememberBegun(store, plan, before);
  const files = await collect(store, plan, task);
  await rememberWhole(store, plan, files);
  if (before !== null) await dropUnused(store, filesOf(before), await storedPlans(store));
  return files;
}

/** What the servers say now; where they cannot be reached, the stored model, if it is whole. */
export async function currentPlan(
  store: Store,
  origin: Origin,
  manner: Manner,
): Promise<{ plan: Plan; stored: boolean }> {
  const before = await storedPlan(store, origin.addresses);
  const digests = await Promise.all((before?.files ?? []).map((file) => keptDigest(store, file)));
  const anew = async (how: Manner) => ({ plan: await resolve(origin.addresses, how), stored: false });
  if (before === null || digests.includes(null)) return anew(manner);
  if (!navigator.onLine) return { plan: before, stored: true };
  const once = { ...manner, patience: { ...manner.patience, attempts: 1 } };
  return anew(once).catch((error: unknown) => {
    if (error instanceof Temporary) return { plan: before, stored: true };
    throw error;
  });
}

/** Fails where the browser does not grant the room for what is missing. */
async function reserve(store: Store, plan: Plan): Promise<void> {
  const missing = await Promise.all(plan.files.map((file) => missingBytes(store, file)));
  const need = missing.reduce((sum, bytes) => sum + bytes, 0);
  const room = await store.room(need);
  if (room >= need) return;
  const message = `the model needs ${megabytes(need)} MB more, and the browser has ${megabytes(room)} MB left for this site`;
  throw new ImatchError({ code: 'quota', message });
}

async function missingBytes(store: Store, file: Planned): Promise<number> {
  if ((await keptDigest(store, file)) !== null) return 0;
  return Math.max(0, (sizeOf(file) ?? 0) - (await store.partBytes(await fileId(file.url))));
}

/** The files one after the other, as they share one connection to the network. */
async function collect(store: Store, plan: Plan, task: Task): Promise<NamedBlob[]> {
  const sizes = plan.files.map(sizeOf);
  const total = sizes.includes(null) ? 0 : sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
  const found: NamedBlob[] = [];
  let before = 0;
  for (const file of plan.files) {
    const onLoaded = (bytes: number) => task.onProgress({ stage: 'download', loaded: before + bytes, total });
    onLoaded(0);
    const named = await obtain(store, file, task, onLoaded);
    found.push(named);
    onLoaded(named.blob.size);
    before += named.blob.size;
  }
  return found;
}

/** One file, by one tab at a time: a second one waits and then finds it. */
async function obtain(store: Store, file: Planned, task: Task, onLoaded: (bytes: number) => void): Promise<NamedBlob> {
  const id = await fileId(file.url);
  return alone(store, id, task.signal, async () => {
    const stored = await kept(store, file);
    if (stored !== null) return stored;
    const begun = await begin(store, id, file);
    const onHashed = (loaded: number) => task.onProgress({ stage: 'verify', loaded, total: begun.part.bytes });
    try {
      const { blob, sha256, version } = await fetchFile(file, begun, { ...task, onLoaded, onHashed });
      await store.setRecord(id, recordOf(file, { version, bytes: blob.size, sha256 }));
      await store.setRecord(`${id}.part`, null);
      return { name: file.name, blob, sha256 };
    } catch (error) {
      throw error instanceof ImatchError && error.code === 'quota' ? full(file, begun.part.bytes) : error;
    } finally {
      await begun.part.close();
    }
  });
}

async function begin(store: Store, id: string, file: Planned): Promise<Begun> {
  const record = await fileRecord(store, `${id}.part`);
  return {
    part: await store.part(id),
    digest: await digest(),
    version: record?.version ?? null,
    remember: (version) =>
      store.setRecord(`${id}.part`, version === null ? null : recordOf(file, { version, bytes: null, sha256: null })),
  };
}

/** Not every browser can be asked for room beforehand. */
function full(file: Planned, after: number): ImatchError {
  const size = sizeOf(file);
  const of = size === null ? '' : ` of ${megabytes(size)}`;
  const message = `${file.name}: the browser’s storage for this site was full after ${megabytes(after)}${of} MB`;
  return new ImatchError({ code: 'quota', message });
}

function recordOf({ url, name }: Planned, found: Omit<FileRecord, 'url' | 'name'>): FileRecord {
  return { url, name, ...found };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
