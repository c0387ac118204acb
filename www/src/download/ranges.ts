/** A model's headers without the model: ranges of its files, from storage or from their servers. */
import { ImatchError } from '../error';
import type { Read } from '../port';
import type { ModelFile, Origin } from '../protocol';
import { openStore } from '../storage';
import { Exchange, agree, contentRange, insist, refusePage, refused, versionOf, type Manner, type Version } from './http';
import { currentPlan, keepPlan } from './library';
import { kept, sizeOf } from './records';
import type { Planned } from './resolve';

/** Longest range that may be asked for at once. */
const MAX_RANGE_BYTES = 1024 * 1024;
/** Most ranges of one model: headers of some megabytes take a dozen. */
const MAX_RANGES = 256;
/** A file up to this size is taken whole from a server that sends no parts. */
const MAX_WHOLE_BYTES = 4 * 1024 * 1024;

export interface Examined {
  /** What the model is called where its files do not say. */
  readonly name: string;
  readonly files: readonly ModelFile[];
  /** Bytes that the browser does not keep. */
  readonly missing: number;
  /** For the download that may follow. */
  readonly planned: number;
  readonly read: Read;
}

/** The files of a model and a way to read small ranges of them; nothing large is downloaded. */
export async function examine(origin: Origin, manner: Manner): Promise<Examined> {
  const { store } = await openStore(origin.storage);
  const current = await currentPlan(store, origin, manner);
  const { plan } = current;
  const readers = new Map<string, Ranged>();
  for (const [name, text] of Object.entries(plan.texts)) readers.set(name, blobRanges(new Blob([text])));
  // Reads go on after the request that began them was answered.
  const later = { ...manner, signal: new AbortController().signal };
  let missing = 0;
  for (const file of plan.files) {
    const stored = await kept(store, file);
    if (stored === null) missing += sizeOf(file) ?? 0;
    readers.set(file.name, stored === null ? remoteRanges(file, later) : blobRanges(stored.blob));
  }
  const files = [...readers].map(([name, { bytes }]) => ({ name, bytes }));
  return { name: plan.name, files, missing, planned: keepPlan(current), read: limited(readers) };
}

interface Ranged {
  readonly bytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

function limited(readers: ReadonlyMap<string, Ranged>): Read {
  let left = MAX_RANGES;
  return async (name, offset, length) => {
    const reader = readers.get(name);
    if (reader === undefined) throw new ImatchError({ code: 'invalid_model', message: `${name}: not among the files` });
    if (!(offset >= 0 && length >= 0 && offset + length <= reader.bytes)) {
      throw new ImatchError({
        code: 'invalid_model',
        message: `${name}: bytes ${offset} to ${offset + length} of ${reader.bytes}`,
      });
    }
    if (length > MAX_RANGE_BYTES || left-- <= 0) {
      const message = `${name}: its headers are longer than ${MAX_RANGES} ranges of ${MAX_RANGE_BYTES} bytes`;
      throw new ImatchError({ code: 'invalid_model', message });
    }
    return reader.read(offset, length);
  };
}

function blobRanges(blob: Blob): Ranged {
  const read = async (offset: number, length: number) =>
    new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
  return { bytes: blob.size, read };
}

function remoteRanges(file: Planned, manner: Manner): Ranged {
  const bytes = sizeOf(file);
  if (bytes === null) return unmeasured(file);
  let whole: Ranged | null = null;
  let version: Version | null = file.version;
  const fetchRange = async (offset: number, length: number) => {
    const headers = { Range: `bytes=${offset}-${offset + length - 1}` };
    const exchange = await Exchange.open(file.url, { headers }, manner);
    try {
      const { response } = exchange;
      if (!response.ok) throw refused(file.url, response);
      refusePage(file.url, response);
      const found = versionOf(response);
      if (version !== null && !agree(version, found)) {
        throw new ImatchError({
          code: 'network',
          message: `${file.name}: it changed on the server while it was looked at`,
        });
      }
      version = found;
      if (response.status === 206) return await part(exchange, file.name, offset, length);
      whole = await everything(exchange, file.name, bytes);
      return await whole.read(offset, length);
    } finally {
      exchange.cancel();
    }
  };
  const read = async (offset: number, length: number) => {
    if (length === 0) return new Uint8Array();
    return whole === null ? insist(manner, () => fetchRange(offset, length)) : whole.read(offset, length);
  };
  return { bytes, read };
}

/** A file of which nothing can be read, as its end is not known. */
function unmeasured({ name }: Planned): Ranged {
  const read = async () => {
    throw new ImatchError({ code: 'network', message: `${name}: the server does not say how long it is` });
  };
  return { bytes: Number.MAX_SAFE_INTEGER, read };
}

async function part(exchange: Exchange, name: string, offset: number, length: number): Promise<Uint8Array> {
  const range = contentRange(exchange.response.headers);
  const bytes = await exchange.bytes(MAX_RANGE_BYTES);
  if ((range !== null && range.first !== offset) || bytes.length !== length) {
    throw new ImatchError({ code: 'network', message: `${name}: the server sent another part than it was asked for` });
  }
  return bytes;
}

/** All of a small file, where the server sends no parts of it. */
async function everything(exchange: Exchange, name: string, bytes: number): Promise<Ranged> {
  if (bytes > MAX_WHOLE_BYTES) {
    const message = `${name}: the server sends no parts of files, so it can be looked at only when it is downloaded`;
    throw new ImatchError({ code: 'network', message });
  }
  const blob = new Blob([await exchange.bytes(MAX_WHOLE_BYTES)]);
  if (blob.size === bytes) return blobRanges(blob);
  throw new ImatchError({ code: 'network', message: `${name}: ${blob.size} bytes arrived, expected ${bytes}` });
}
