/** What is written down beside the stored files: which file is which, and which model they belong to. */
import type { NamedBlob } from '../protocol';
import type { Store } from '../storage';
import { nameFor } from './hash';
import { agree, type Version } from './http';
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

/** The plan by which a model was stored; what servers said then is left out. */
export async function storedPlan(store: Store, addresses: readonly string[]): Promise<Plan | null> {
  return (await store.record(await modelName(keyOf(addresses)))) as Plan | null;
}

export async function rememberPlan(store: Store, plan: Plan): Promise<void> {
  const files = plan.files.map((file): Planned => ({ ...file, version: null }));
  await store.setRecord(await modelName(plan.key), { ...plan, files });
}

export async function forgetPlan(store: Store, { key }: Plan): Promise<void> {
  await store.setRecord(await modelName(key), null);
}

export async function storedPlans(store: Store): Promise<Plan[]> {
  const names = (await store.records()).filter((name) => name.startsWith(MODEL));
  const records = await Promise.all(names.map((name) => store.record(name)));
  return records.filter((record) => record !== null) as Plan[];
}

/** The stored copy of a file, if it is the one wanted. */
export async function kept(store: Store, file: Planned): Promise<NamedBlob | null> {
  const id = await fileId(file.url);
  const [blob, record] = await Promise.all([store.file(id), fileRecord(store, id)]);
  if (blob === null || record === null || record.sha256 === null || blob.size !== record.bytes) return null;
  const same =
    file.sha256 === null ? file.version === null || agree(record.version, file.version) : record.sha256 === file.sha256;
  return same ? { name: file.name, blob, sha256: record.sha256 } : null;
}

export function sizeOf({ bytes, version }: Planned): number | null {
  return bytes ?? version?.bytes ?? null;
}

async function modelName(key: string): Promise<string> {
  return `${MODEL}${await nameFor(key)}`;
}
