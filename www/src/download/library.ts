/** The models that the browser keeps: what is there is used, what is missing is fetched. */
import { ImatchError } from '../error';
import { texts } from '../forms';
import type { Downloaded, NamedBlob, Origin, Progress } from '../protocol';
import { openStore, type Store } from '../storage';
import { fetchFile, type Begun } from './fetch';
import { digest } from './hash';
import { Changed, Page, Temporary, type Manner } from './http';
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

interface Current {
  readonly plan: Plan;
  /** Whether it is the plan of what is stored, as the servers could not be asked. */
  readonly stored: boolean;
}

/** The plan of the model that was looked at last: its download follows in a moment, or never. */
let last: Current | null = null;
let lastId = 0;

/** Keeps a plan for the download that may follow, which names it by the number that this gives. */
export function keepPlan(current: Current): number {
  last = current;
  return ++lastId;
}

/** All files of a model, fetching what the browser does not have; by the plan that `keepPlan` kept, where it was. */
export async function download(origin: Origin, task: Task, planned?: number): Promise<Downloaded> {
  const { store, reason } = await openStore(origin.storage);
  const kept = planned === lastId ? last : null;
  last = null;
  const { plan, stored } = kept ?? (await currentPlan(store, origin, task));
  // What is stored stays as it is while the servers cannot be reached, parts of another version included.
  const run = stored ? collect : carryOut;
  const files = await run(store, plan, task).catch(async (error: unknown) => {
    if (!(error instanceof Changed)) throw error;
    return null;
  });
  if (files !== null) return whole(plan, files);
  const anew = await resolve(origin.addresses, task);
  return whole(anew, await carryOut(store, anew, task));

  function whole(of: Plan, found: readonly Obtained[]): Downloaded {
    const unchecked = found.some(({ stored }) => stored);
    const files = [...texts(of), ...found.map(({ stored, ...file }) => file)];
    return { name: of.name, files, unchecked, storage: store.kind, reason };
  }
}

async function carryOut(store: Store, plan: Plan, task: Task): Promise<Obtained[]> {
  await reserve(store, plan);
  const before = await storedPlan(store, plan.addresses);
  await rememberBegun(store, plan, before);
  const files = await collect(store, plan, task);
  await rememberWhole(store, plan, files);
  if (before !== null) await dropUnused(store, filesOf(before), await storedPlans(store));
  return files;
}

/** What the servers say now; where they cannot be reached, the stored model, if it is whole. */
export async function currentPlan(store: Store, origin: Origin, manner: Manner): Promise<Current> {
  const before = await storedPlan(store, origin.addresses);
  const digests = await Promise.all((before?.files ?? []).map((file) => keptDigest(store, file)));
  const anew = async (how: Manner) => ({ plan: await resolve(origin.addresses, how), stored: false });
  if (before === null || digests.includes(null)) return anew(manner);
  if (!navigator.onLine) return { plan: before, stored: true };
  const once = { ...manner, patience: { ...manner.patience, attempts: 1 } };
  return anew(once).catch((error: unknown) => {
    // A page comes from a host that is closed, or from a network that wants a visitor to log in.
    if (error instanceof Temporary || error instanceof Page) return { plan: before, stored: true };
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
async function collect(store: Store, plan: Plan, task: Task): Promise<Obtained[]> {
  const sizes = plan.files.map(sizeOf);
  const total = sizes.includes(null) ? 0 : sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
  const found: Obtained[] = [];
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

/** A file, and whether it was there: then nothing has been hashed. */
interface Obtained extends NamedBlob {
  readonly stored?: boolean;
}

/** One file, by one tab at a time: a second one waits and then finds it. */
async function obtain(store: Store, file: Planned, task: Task, onLoaded: (bytes: number) => void): Promise<Obtained> {
  const id = await fileId(file.url);
  return alone(store, id, task.signal, async () => {
    const stored = await kept(store, file);
    if (stored !== null) return { ...stored, stored: true };
    const begun = await begin(store, id, file);
    const onHashed = (loaded: number) => task.onProgress({ stage: 'verify', loaded, total: begun.part.bytes });
    try {
      const { blob, sha256, version } = await fetchFile(file, begun, { ...task, onLoaded, onHashed });
      await store.setRecord(id, recordOf(file, { version, bytes: blob.size, sha256 }));
      await store.setRecord(`${id}.part`, null);
      return { name: file.name, blob, sha256 };
    } catch (error) {
      // What cannot be written in the end is of no interest beside that.
      await begun.part.close().catch(() => undefined);
      throw error instanceof ImatchError && error.code === 'quota' ? full(file, begun.part.bytes) : error;
    }
  });
}

async function begin(store: Store, id: string, file: Planned): Promise<Begun> {
  const record = await fileRecord(store, `${id}.part`);
  const part = await store.part(id);
  return {
    part,
    digest: await digest(),
    version: record?.version ?? null,
    remember: (version) =>
      store.setRecord(`${id}.part`, version === null ? null : recordOf(file, { version, bytes: null, sha256: null })),
    async commit() {
      // What is known of the file before must not vouch for this one, should nothing come after.
      await store.setRecord(id, null);
      return part.commit();
    },
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
