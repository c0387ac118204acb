import { promisedRoom, writeFailure, type Part, type Store } from './store';

/** Not in TypeScript's library yet; Chromium, Firefox and Safari have it for files of this file system. */
interface Movable {
  move(name: string): Promise<void>;
}

const FOLDER = 'imatch';
/** A file that only tries how large it could be. */
const ROOM = 'room';
/** How exactly room is measured. */
const ROOM_STEP_BYTES = 256 * 1024;
const READ_BYTES = 4 * 1024 * 1024;
/** Written bytes reach the disk at least this often, so that a crash costs little. */
const FLUSH_BYTES = 64 * 1024 * 1024;
/** A file stays locked for a moment after the worker that wrote it was ended. */
const LOCKED_TRIES = 40;
const LOCKED_PAUSE_MS = 50;

/** The origin private file system: `ID` is a whole file, `ID.part` an unfinished one, `NAME.json` a record. */
export class OpfsStore implements Store {
  readonly kind = 'opfs';
  readonly #folder: FileSystemDirectoryHandle;

  private constructor(folder: FileSystemDirectoryHandle) {
    this.#folder = folder;
  }

  static async open(): Promise<OpfsStore> {
    const storage = (navigator as Partial<WorkerNavigator>).storage;
    if (storage === undefined || !('getDirectory' in storage))
      throw new Error('this browser has no private file system here');
    const { prototype } = FileSystemFileHandle;
    if (!('createSyncAccessHandle' in prototype) || !('move' in prototype)) {
      throw new Error('this browser’s private file system cannot write in a worker');
    }
    const root = await storage.getDirectory().catch((error: unknown) => {
      throw new Error(`this browser keeps its private file system closed: ${String(error)}`);
    });
    return new OpfsStore(await root.getDirectoryHandle(FOLDER, { create: true }));
  }

  async file(id: string): Promise<Blob | null> {
    return this.#folder.getFileHandle(id).then(
      (handle) => handle.getFile(),
      () => null,
    );
  }

  async fileBytes(id: string): Promise<number | null> {
    return (await this.file(id))?.size ?? null;
  }

  async part(id: string): Promise<Part> {
    return OpfsPart.open(this.#folder, id).catch((error: unknown) => {
      throw writeFailure(error);
    });
  }

  async partBytes(id: string): Promise<number> {
    const part = await this.file(`${id}.part`);
    return part?.size ?? 0;
  }

  /** Asks for the room by a file of that size, which takes none on disk until something is written into it. */
  async room(bytes: number): Promise<number> {
    const promised = Math.min(bytes, await promisedRoom());
    const handle = await this.#folder.getFileHandle(ROOM, { create: true });
    const access = await handle.createSyncAccessHandle().catch(() => null);
    // Another tab is trying; the writes themselves will show.
    if (access === null) return promised;
    try {
      return largest(promised, (size) => canGrow(access, size));
    } finally {
      access.close();
      await removed(this.#folder, ROOM);
    }
  }

  async remove(id: string): Promise<void> {
    await removed(this.#folder, id);
    await removed(this.#folder, `${id}.part`);
  }

  async record(name: string): Promise<unknown> {
    const file = await this.file(`${name}.json`);
    // Half a record, of a worker that was ended while it wrote, counts as none.
    return file === null
      ? null
      : file
          .text()
          .then(JSON.parse)
          .catch(() => null);
  }

  async setRecord(name: string, value: object | null): Promise<void> {
    if (value === null) return removed(this.#folder, `${name}.json`);
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    try {
      const access = await locked(await this.#folder.getFileHandle(`${name}.json`, { create: true }));
      try {
        access.truncate(0);
        access.write(bytes, { at: 0 });
      } finally {
        access.close();
      }
    } catch (error) {
      throw writeFailure(error);
    }
  }

  async records(): Promise<string[]> {
    const names: string[] = [];
    for await (const name of this.#folder.keys())
      if (name.endsWith('.json')) names.push(name.slice(0, -'.json'.length));
    return names;
  }
}

class OpfsPart implements Part {
  bytes: number;
  readonly #folder: FileSystemDirectoryHandle;
  readonly #id: string;
  readonly #handle: FileSystemFileHandle;
  readonly #access: FileSystemSyncAccessHandle;
  #unflushed = 0;
  #closed = false;

  private constructor(
    folder: FileSystemDirectoryHandle,
    id: string,
    handle: FileSystemFileHandle,
    access: FileSystemSyncAccessHandle,
  ) {
    this.#folder = folder;
    this.#id = id;
    this.#handle = handle;
    this.#access = access;
    this.bytes = access.getSize();
  }

  static async open(folder: FileSystemDirectoryHandle, id: string): Promise<OpfsPart> {
    const handle = await folder.getFileHandle(`${id}.part`, { create: true });
    return new OpfsPart(folder, id, handle, await locked(handle));
  }

  async append(chunk: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      const written = this.#access.write(chunk, { at: this.bytes });
      if (written !== chunk.length) throw new DOMException('no room', 'QuotaExceededError');
      this.bytes += written;
      this.#unflushed += written;
      if (this.#unflushed >= FLUSH_BYTES) this.#flush();
    } catch (error) {
      throw writeFailure(error);
    }
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    for (let at = 0; at < this.bytes;) {
      const read = this.#access.read(buffer, { at });
      if (read === 0) return;
      yield buffer.subarray(0, read);
      at += read;
    }
  }

  async clear(): Promise<void> {
    this.#access.truncate(0);
    this.bytes = 0;
  }

  async discard(): Promise<void> {
    await this.close();
    await removed(this.#folder, `${this.#id}.part`);
  }

  async commit(): Promise<Blob> {
    await this.close();
    await removed(this.#folder, this.#id);
    await (this.#handle as unknown as Movable).move(this.#id);
    return this.#handle.getFile();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#access.flush();
    } catch (error) {
      throw writeFailure(error);
    } finally {
      this.#access.close();
    }
  }

  #flush(): void {
    this.#access.flush();
    this.#unflushed = 0;
  }
}

/** The largest size up to `most` that `fits`, by halving. */
function largest(most: number, fits: (size: number) => boolean): number {
  if (fits(most)) return most;
  let [low, high] = [0, most];
  while (high - low > ROOM_STEP_BYTES) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function canGrow(access: FileSystemSyncAccessHandle, size: number): boolean {
  try {
    access.truncate(size);
    return true;
  } catch {
    return false;
  }
}

async function removed(folder: FileSystemDirectoryHandle, name: string): Promise<void> {
  await folder.removeEntry(name).catch((error: unknown) => {
    if (!(error instanceof DOMException && error.name === 'NotFoundError')) throw writeFailure(error);
  });
}

async function locked(handle: FileSystemFileHandle): Promise<FileSystemSyncAccessHandle> {
  for (let left = LOCKED_TRIES; ; left--) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (error) {
      const busy = error instanceof DOMException && error.name === 'NoModificationAllowedError';
      if (!busy || left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, LOCKED_PAUSE_MS));
    }
  }
}
