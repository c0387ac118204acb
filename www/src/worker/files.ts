import { Failure } from './failure';
import type { Progress } from '../protocol';

/** The model's files, whole, until the engine has taken its tensors from them. */
export interface ModelFiles {
  /** Text of manifest.json. */
  readonly manifest: string;
  /** Bytes of all files together. */
  readonly bytes: number;
  /** A view of a range, for the engine to copy. */
  read(path: string, offset: number, length: number): Promise<Uint8Array>;
  /** Forgets the bytes. */
  drop(): void;
}

interface Entry {
  readonly path: string;
  readonly bytes: number;
}

/** Longest manifest that is read; real ones have a few kilobytes. */
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/**
 * Downloads a manifest and the files it lists, which lie beside it. Their sizes are checked against the
 * manifest here; their SHA-256 is checked by the engine, on the bytes it reads.
 */
export async function download(
  manifestUrl: string,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<ModelFiles> {
  const response = await request(manifestUrl, signal);
  const manifest = await response.text().catch((error: unknown) => broken(error, manifestUrl, signal));
  if (manifest.length > MAX_MANIFEST_BYTES)
    throw new Failure('invalid_model', `${name(manifestUrl)}: longer than 4 MiB`);
  const entries = listed(manifest, name(manifestUrl));
  const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  const files = new Map<string, Uint8Array>();
  let before = 0;
  for (const entry of entries) {
    onProgress({ stage: 'download', loaded: before, total });
    const done = before;
    const report = (loaded: number) => onProgress({ stage: 'download', loaded: done + loaded, total });
    files.set(entry.path, await fetchFile(beside(manifestUrl, entry.path), entry, signal, report));
    before += entry.bytes;
  }
  return { manifest, bytes: total, read: async (...range) => slice(files, ...range), drop: () => files.clear() };
}

/** The list `files` of a manifest, each with `path` and `bytes`. */
function listed(manifest: string, where: string): Entry[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(manifest);
  } catch {
    throw new Failure('invalid_model', `${where}: not JSON`);
  }
  const files: unknown = typeof parsed === 'object' && parsed !== null && 'files' in parsed ? parsed.files : undefined;
  if (!Array.isArray(files) || files.length === 0) throw new Failure('invalid_model', `${where}: lists no files`);
  return files.map((file: unknown) => {
    const { path, bytes } = (file ?? {}) as Record<string, unknown>;
    if (typeof path !== 'string' || typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
      throw new Failure('invalid_model', `${where}: a file without a path or a size`);
    }
    return { path, bytes };
  });
}

/** The address of a file beside the manifest; a path that leads elsewhere is refused. */
function beside(manifestUrl: string, path: string): string {
  const folder = new URL('.', manifestUrl);
  const url = new URL(path, folder);
  if (
    url.origin !== folder.origin ||
    !url.pathname.startsWith(folder.pathname) ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    throw new Failure('invalid_model', `manifest: the path ${JSON.stringify(path)} leads outside the model's folder`);
  }
  return url.href;
}

async function request(url: string, signal: AbortSignal): Promise<Response> {
  const response = await fetch(url, { signal, credentials: 'omit' }).catch((error: unknown) =>
    broken(error, url, signal),
  );
  if (!response.ok) throw new Failure('network', `${name(url)}: the server answered ${response.status}`);
  return response;
}

async function fetchFile(
  url: string,
  { path, bytes }: Entry,
  signal: AbortSignal,
  onLoaded: (loaded: number) => void,
): Promise<Uint8Array> {
  const response = await request(url, signal);
  const file = allocate(bytes, path);
  const reader = response.body?.getReader();
  let loaded = 0;
  while (reader !== undefined) {
    const { done, value } = await reader.read().catch((error: unknown) => broken(error, url, signal));
    if (done) break;
    if (loaded + value.length > bytes) {
      void reader.cancel().catch(() => undefined);
      throw new Failure('integrity', `${path}: more than the ${bytes} bytes that the manifest promises`);
    }
    file.set(value, loaded);
    loaded += value.length;
    onLoaded(loaded);
  }
  if (loaded !== bytes) throw new Failure('integrity', `${path}: ${loaded} bytes, the manifest promises ${bytes}`);
  return file;
}

function allocate(bytes: number, path: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw new Failure('unsupported', `${path}: ${bytes} bytes are more than this browser can hold`);
  }
}

function slice(files: ReadonlyMap<string, Uint8Array>, path: string, offset: number, length: number): Uint8Array {
  const file = files.get(path);
  if (file === undefined) throw new Failure('invalid_model', `${path}: not listed in the manifest`);
  if (!(offset >= 0 && length >= 0 && offset + length <= file.length)) {
    throw new Failure('invalid_model', `${path}: bytes ${offset} to ${offset + length} of ${file.length}`);
  }
  return file.subarray(offset, offset + length);
}

/** A download that broke off: on request, or because of the network. */
function broken(error: unknown, url: string, signal: AbortSignal): never {
  if (signal.aborted) throw new Failure('aborted', 'stopped on request');
  throw new Failure('network', `${name(url)}: ${error instanceof Error ? error.message : String(error)}`);
}

function name(url: string): string {
  return new URL(url).pathname.split('/').at(-1) ?? url;
}
