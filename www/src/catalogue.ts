/**
 * Known public checkpoints, models/catalogue.json: what they are, where they lie, and whether the weights that were
 * loaded under one of their names are theirs.
 */
import { sha256 as digestOf } from 'hash-wasm';
import type { Evaluator } from './client';
import { ImatchError, messageOf } from './error';
import { CONFIG, MANIFEST, isGguf } from './forms';
import { sourceOf, type ModelSource } from './models';
import type { ModelFile } from './protocol';

export interface KnownFile {
  readonly name: string;
  readonly bytes: number | null;
  /** 64 lower-case hexadecimal digits; null where nobody who computed it is known. */
  readonly sha256: string | null;
}

/** A public checkpoint. It has an `address`, or its publisher has it in a `repository`. */
export interface KnownModel {
  /** Also the folder below models/ in which a host may keep a copy. */
  readonly id: string;
  readonly name: string;
  /** `model_type` of its configuration. */
  readonly family: string;
  /** Relative to models/. */
  readonly address?: string;
  readonly repository?: string;
  readonly files: readonly KnownFile[];
  /** Of all files; exact where every file's size is known. */
  readonly download_bytes: number;
  /** Of the weights on a GPU. */
  readonly device_bytes: number;
  readonly license: string;
  readonly good_for: string;
  /** What was compared with the reference: these very weights, or only models of the same architecture. */
  readonly checked: 'weights' | 'architecture';
}

/** A loaded model that has a known one's names, and how its digest compares. */
export interface Standing {
  readonly model: KnownModel;
  /** One plain sentence, without its full stop. */
  readonly sentence: string;
  /** Whether the visitor should hear of it before anything is scored. */
  readonly news: boolean;
}

const FOLDER = 'models/';
const FILE = 'catalogue.json';
/** A server that does not answer shall not keep a model from being used. */
const PATIENCE_MS = 10_000;
/** Sizes that are not known exactly are estimates. */
const SIZE_TOLERANCE = 0.25;

let known: Promise<readonly KnownModel[]> | null = null;

/** The known checkpoints, fetched once. */
export function catalogue(): Promise<readonly KnownModel[]> {
  known ??= read().catch((error: unknown) => {
    known = null;
    throw error;
  });
  return known;
}

/** Absolute addresses on this page's own server: where a model lies, or where a host that copies it has to put it. */
export function addressesOf({ id, address, files }: KnownModel): string[] {
  const folder = new URL(FOLDER, document.baseURI);
  if (address !== undefined) return [new URL(address, folder).href];
  const names = files.map(({ name }) => name);
  const pair = names.filter(isGguf);
  const root = names.includes(MANIFEST) ? MANIFEST : CONFIG;
  return (pair.length > 0 ? pair : [root]).map((name) => new URL(`${id}/${encodeURIComponent(name)}`, folder).href);
}

/** Whether this page's own server has a model. */
export async function isHere(model: KnownModel): Promise<boolean> {
  const [first] = addressesOf(model);
  if (first === undefined) return false;
  const response = await fetch(first, { method: 'HEAD', signal: AbortSignal.timeout(PATIENCE_MS) }).catch(() => null);
  // Some servers answer every address with a page.
  return response?.ok === true && !(response.headers.get('Content-Type') ?? '').startsWith('text/html');
}

/**
 * How a loaded model compares with the known one of its names; null where none has them. Fails where a size or a
 * digest is known and differs. A digest that nobody told is recorded for this site, outside the model's own record,
 * so that it outlives the model's removal.
 */
export async function standing(source: ModelSource, { files, info }: Evaluator): Promise<Standing | null> {
  // What hosts need not have is no condition for scoring.
  const all = await catalogue().catch(() => []);
  const addresses = keyOf(sourceOf({ model: source }).origin?.addresses ?? []);
  const { architecture, sha256 } = info.model;
  const model =
    all.find((candidate) => keyOf(addressesOf(candidate)) === addresses) ??
    all.find((candidate) => candidate.family === architecture && isNamedAs(candidate, files));
  if (model === undefined) return null;
  for (const file of model.files) compare(model, file, files.find(({ name }) => name === file.name));
  const want = await digestOfAll(model, files);
  if (want === null) return { model, ...atFirstSight(model, sha256) };
  if (want !== sha256) throw differs(`the weights of ${model.name} have SHA-256 ${sha256}`, want);
  const checked =
    model.checked === 'weights' ? 'these very weights were checked' : 'only their architecture was checked';
  return { model, sentence: `SHA-256 as listed; ${checked}`, news: false };
}

/**
 * Whether files that came from anywhere are named and sized as a known model's. What `imatch convert` writes always
 * has the same names, and a manifest says its digests itself, so that a model with an address is known by that alone.
 */
function isNamedAs({ address, files: listed, download_bytes }: KnownModel, files: readonly ModelFile[]): boolean {
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  if (address !== undefined || Math.abs(total / download_bytes - 1) > SIZE_TOLERANCE) return false;
  return listed.every(({ name, bytes }) =>
    files.some((file) => file.name === name && (bytes === null || file.bytes === bytes)),
  );
}

function compare({ name: of }: KnownModel, { name, bytes, sha256 }: KnownFile, file: ModelFile | undefined): void {
  if (file === undefined) throw differs(`${name} of ${of} is not among the model's files`, 'it there');
  if (bytes !== null && file.bytes !== bytes) throw differs(`${name} of ${of} has ${file.bytes} bytes`, `${bytes}`);
  // Files that were given have no digests of their own; the engine's covers their weights.
  if (sha256 !== null && file.sha256 !== undefined && file.sha256 !== sha256) {
    throw differs(`${name} of ${of} has SHA-256 ${file.sha256}`, sha256);
  }
}

/** What the engine should say of the weights as a whole (`model_sha256` of the crate); null where a part is not known. */
async function digestOfAll({ files: listed }: KnownModel, files: readonly ModelFile[]): Promise<string | null> {
  const converted = files.some(({ name }) => name === MANIFEST);
  const covered = listed.filter(({ name }) =>
    converted ? name !== MANIFEST : isGguf(name) || name.endsWith('.safetensors'),
  );
  if (covered.some(({ sha256 }) => sha256 === null)) return null;
  const sorted = [...covered].sort((a, b) => (a.name < b.name ? -1 : 1));
  return digestOf(sorted.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join(''));
}

/** Records a digest, or compares it with the one recorded before, which stays. */
function atFirstSight({ id, files }: KnownModel, sha256: string): Omit<Standing, 'model'> {
  const key = `imatch.sha256.${id}`;
  const untold = files.some((file) => file.sha256 !== null)
    ? 'only some of its files’ digests are listed'
    : 'nobody told us what it should be';
  try {
    const [before = '', date = ''] = (localStorage.getItem(key) ?? '').split(' ');
    if (before === '') {
      localStorage.setItem(key, `${sha256} ${new Date().toISOString().slice(0, 10)}`);
      return { sentence: `SHA-256 recorded today at first sight; ${untold}`, news: true };
    }
    if (before === sha256) return { sentence: `SHA-256 as recorded at first sight on ${date}; ${untold}`, news: false };
    const recorded = `the one recorded at first sight on ${date} (${before.slice(0, 12)}…)`;
    return { sentence: `SHA-256 is not ${recorded}: these are other weights under the same names`, news: true };
  } catch {
    return { sentence: `SHA-256 could not be recorded, as the browser lets this site store nothing; ${untold}`, news: true };
  }
}

function keyOf(addresses: readonly string[]): string {
  return [...addresses].sort().join(' ');
}

async function read(): Promise<readonly KnownModel[]> {
  const address = new URL(FOLDER + FILE, document.baseURI);
  const response = await fetch(address, { signal: AbortSignal.timeout(PATIENCE_MS) }).catch((error: unknown) => {
    throw new ImatchError({ code: 'network', message: `${FILE}: ${messageOf(error)}` });
  });
  if (!response.ok) throw new ImatchError({ code: 'network', message: `${FILE}: the server answered ${response.status}` });
  const { format, version, models } = ((await response.json().catch(() => null)) ?? {}) as Record<string, unknown>;
  if (format !== 'imatch-catalogue' || version !== 1 || !Array.isArray(models)) {
    throw malformed('not an imatch-catalogue of version 1 with a list of models');
  }
  models.forEach((model: unknown, index) => {
    if (!isKnownModel(model)) throw malformed(`models[${index}] lacks a field, or has one of another type`);
  });
  return models as KnownModel[];
}

function isKnownModel(value: unknown): value is KnownModel {
  const model = (value ?? {}) as Record<string, unknown>;
  const texts = ['id', 'name', 'family', 'license', 'good_for', 'checked'].map((key) => model[key]);
  const place = model['address'] ?? model['repository'];
  const { files, download_bytes: download, device_bytes: device } = model;
  return (
    [...texts, place].every((text) => typeof text === 'string') &&
    [download, device].every(Number.isSafeInteger) &&
    Array.isArray(files) &&
    files.every(isKnownFile)
  );
}

function isKnownFile(value: unknown): value is KnownFile {
  const { name, bytes, sha256 } = (value ?? {}) as Record<string, unknown>;
  return (
    typeof name === 'string' &&
    (bytes === null || Number.isSafeInteger(bytes)) &&
    (sha256 === null || (typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)))
  );
}

function differs(got: string, expected: string): ImatchError {
  return new ImatchError({ code: 'integrity', message: `${got}, and ${FILE} expects ${expected}` });
}

function malformed(what: string): ImatchError {
  return new ImatchError({ code: 'invalid_input', message: `${FILE}: ${what}` });
}
