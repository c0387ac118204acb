import { ImatchError, messageOf } from '../error';
import type { StorageKind } from '../protocol';

/** A file that is being written, by one writer at a time. */
export interface Part {
  /** Bytes written so far. */
  readonly bytes: number;
  append(chunk: Uint8Array<ArrayBuffer>): Promise<void>;
  /** What has been written so far, from the beginning. */
  chunks(): AsyncGenerator<Uint8Array>;
  /** Forgets what has been written, to write something else. */
  clear(): Promise<void>;
  /** Forgets what has been written and ends writing. */
  discard(): Promise<void>;
  /** Makes it the whole file of its id, in place of one that is there. */
  commit(): Promise<Blob>;
  /** Ends writing; what has been written stays. */
  close(): Promise<void>;
}

/** Files by id, parts of files by id, and small records by name. */
export interface Store {
  readonly kind: StorageKind;
  file(id: string): Promise<Blob | null>;
  /** The size of a file; null where there is none. */
  fileBytes(id: string): Promise<number | null>;
  /** The part of a file, begun where there is none. */
  part(id: string): Promise<Part>;
  partBytes(id: string): Promise<number>;
  /** How many of `bytes` more there is room for, as far as can be told beforehand. */
  room(bytes: number): Promise<number>;
  /** Removes a file and its part. */
  remove(id: string): Promise<void>;
  /** A record; null where there is none that can be read. */
  record(name: string): Promise<unknown>;
  /** Writes a record, or removes it where `value` is null. */
  setRecord(name: string, value: object | null): Promise<void>;
  records(): Promise<string[]>;
}

/** Bytes that the browser says it still grants this site. Chromium names a round number that may not be there. */
export async function promisedRoom(): Promise<number> {
  const { quota, usage = 0 } = await navigator.storage.estimate();
  return quota === undefined ? Infinity : Math.max(0, quota - usage);
}

/** A write that failed, as a failure of this library. */
export function writeFailure(thrown: unknown): ImatchError {
  const full = thrown instanceof DOMException && thrown.name === 'QuotaExceededError';
  return full
    ? new ImatchError({ code: 'quota', message: 'the browser’s storage for this site is full' })
    : new ImatchError({ code: 'io', message: `the browser’s storage cannot be written: ${messageOf(thrown)}` });
}
