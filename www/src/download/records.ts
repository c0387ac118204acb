/** What is written down beside the stored files: which file is which, and which model they belong to. */
import type { NamedBlob } from '../protocol';
import type { Store } from '../storage';
import { nameFor } from './hash';
import { confirm, type Version } from './http';
import { keyOf, type Plan, type Planned } from './resolve';

/** Of a whole file, under its id; of an unfinished one, under `ID.part`, with neither size nor digest. */
export interface FileRecord {
  readonly url: string;
  readonly name: string;
  readonly version: Version;
  readonly bytes: number | null;
  readonly sha256: string | null;
}

const MODEL = 'model-';

export function fileId(url: string): Promise<string> {
  return nameFor(url);
}

export async function fileRecord(store: Store, name: string): Promise<FileRecord | null> {
  return (await store.record(name)) as FileRecord | null;
}

/** A plan as it is written down: with the digests that were found, and without what servers said then. */
export interface StoredPlan extends Plan {
  /** Files of another version of the model that may be there, whole or in part. */
  readonly others: readonly Planned[];
}

export async function storedPlan(store: Store, addresses: readonly string[]): Promise<StoredPlan | null> {
  return (await store.record(await modelName(keyOf(addresses)))) as StoredPlan | null;
}

/** Writes down the plan of a model whose files are all there; without the network only these very files are used. */
export async function rememberWhole(store: Store, plan: Plan, files: readonly NamedBlob[]): Promise<void> {
  const found = plan.files.map(
    (file, index): Planned => ({ ...file, sha256: files[index]?.sha256 ?? file.sha256, version: null }),
  );
  await write(store, { ...plan, files: found, others: [] });
}

/**
 * Writes down a plan that is about to be carried out, so that what arrives is listed and can be removed. A model that
 * was whole stays the one to load without the network, for as long as its files are there.
 */
export async function rememberBegun(store: Store, plan: Plan, before: StoredPlan | null): Promise<void> {
  const whole = before?.files.every(({ sha256 }) => sha256 !== null) ? before : null;
  const files = (whole ?? plan).files.map(unasked);
  const named = new Set(files.map(({ url }) => url));
  const rest = [...plan.files, ...(before === null ? [] : filesOf(before))].filter(({ url }) => !named.has(url));
  const others = distinct(rest).map(unasked);
  await write(store, { ...(whole ?? plan), files, others });
}

/** Every file that may be there for a model. */
export function filesOf({ files, others = [] }: Plan & Partial<StoredPlan>): Planned[] {
  return distinct([...files, ...others]);
}

export function distinct(files: readonly Planned[]): Planned[] {
  return [...new Map(files.map((file) => [file.url, file])).values()];
}

/** What servers said of a file is of use only while it is fetched. */
function unasked(file: Planned): Planned {
  return { ...file, version: null };
}

async function write(store: Store, plan: StoredPlan): Promise<void> {
  await store.setRecord(await modelName(plan.key), plan);
}

export async function forgetPlan(store: Store, { key }: Plan): Promise<void> {
  await store.setRecord(await modelName(key), null);
}

export async function storedPlans(store: Store): Promise<StoredPlan[]> {
  const names = (await store.records()).filter((name) => name.startsWith(MODEL));
  const records = await Promise.all(names.map((name) => store.record(name)));
  return records.filter((record) => record !== null) as StoredPlan[];
}

/** The stored copy of a file, if it is the one wanted. */
export async function kept(store: Store, file: Planned): Promise<NamedBlob | null> {
  const sha256 = await keptDigest(store, file);
  const id = await fileId(file.url);
  const [blob, bytes] = sha256 === null ? [null, null] : await Promise.all([store.file(id), store.fileBytes(id)]);
  // What lies in storage may have been cleared in part.
  return sha256 === null || blob === null || blob.size !== bytes ? null : { name: file.name, blob, sha256 };
}

/** SHA-256 of the stored copy of a file, if it is the one wanted: by its digest, or by a mark of the server's. */
export async function keptDigest(store: Store, file: Planned): Promise<string | null> {
  const id = await fileId(file.url);
  const [bytes, record] = await Promise.all([store.fileBytes(id), fileRecord(store, id)]);
  if (bytes === null || record === null || record.sha256 === null || bytes !== record.bytes) return null;
  const same =
    file.sha256 === null
      ? file.version !== null && confirm(record.version, file.version)
      : record.sha256 === file.sha256;
  return same ? record.sha256 : null;
}

export function sizeOf({ bytes, version }: Planned): number | null {
  return bytes ?? version?.bytes ?? null;
}

async function modelName(key: string): Promise<string> {
  return `${MODEL}${await nameFor(key)}`;
}
