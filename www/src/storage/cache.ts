import { promisedRoom, writeFailure, type Part, type Store } from './store';
import { Pieces, streamed } from './pieces';

const CACHE = 'imatch';

/** Which pieces a file consists of. */
interface Pointer {
  readonly generation: string;
  /** Of all pieces, so that they need not be opened to be counted. */
  readonly bytes: number;
}

/**
 * Cache storage. It cannot append, so a file is many pieces, `pieces/GENERATION/NUMBER`; `files/ID` and `parts/ID`
 * say which generation is the whole file and which the unfinished one.
 */
export class CacheStore implements Store {
  readonly kind = 'cache';
  readonly #entries: Entries;

  private constructor(entries: Entries) {
    this.#entries = entries;
  }

  static async open(): Promise<CacheStore> {
    const storage = (self as { caches?: CacheStorage }).caches;
    if (storage === undefined) throw new Error('this browser has no cache storage here');
    const cache = await storage.open(CACHE).catch((error: unknown) => {
      throw new Error(`this browser keeps its cache storage closed: ${String(error)}`);
    });
    return new CacheStore(new Entries(cache));
  }

  async file(id: string): Promise<Blob | null> {
    const pointer = await this.#entries.json<Pointer>(`files/${id}`);
    return pointer === null ? null : new Blob(await this.#entries.pieces(pointer.generation));
  }

  async fileBytes(id: string): Promise<number | null> {
    return (await this.#entries.json<Pointer>(`files/${id}`))?.bytes ?? null;
  }

  async part(id: string): Promise<Part> {
    const known = await this.#entries.json<Pointer>(`parts/${id}`);
    const generation = known?.generation ?? crypto.randomUUID();
    if (known === null) await this.#entries.put(`parts/${id}`, { generation, bytes: 0 } satisfies Pointer);
    return new CachePart(this.#entries, id, generation, await this.#entries.pieces(generation));
  }

  async partBytes(id: string): Promise<number> {
    return (await this.#entries.json<Pointer>(`parts/${id}`))?.bytes ?? 0;
  }

  async room(bytes: number): Promise<number> {
    return Math.min(bytes, await promisedRoom());
  }

  async remove(id: string): Promise<void> {
    for (const name of [`files/${id}`, `parts/${id}`]) {
      const pointer = await this.#entries.json<Pointer>(name);
      await this.#entries.remove(name);
      if (pointer !== null) await this.#entries.removeBelow(`pieces/${pointer.generation}/`);
    }
  }

  record(name: string): Promise<unknown> {
    return this.#entries.json(`records/${name}`);
  }

  setRecord(name: string, value: object | null): Promise<void> {
    return value === null ? this.#entries.remove(`records/${name}`) : this.#entries.put(`records/${name}`, value);
  }

  records(): Promise<string[]> {
    return this.#entries.below('records/');
  }
}

class CachePart implements Part {
  bytes: number;
  readonly #entries: Entries;
  readonly #id: string;
  readonly #generation: string;
  #blobs: Blob[];
  readonly #pieces = new Pieces();

  constructor(entries: Entries, id: string, generation: string, blobs: Blob[]) {
    this.#entries = entries;
    this.#id = id;
    this.#generation = generation;
    this.#blobs = blobs;
    this.bytes = sum(blobs);
  }

  async append(chunk: Uint8Array<ArrayBuffer>): Promise<void> {
    this.bytes += chunk.length;
    await this.#keep(this.#pieces.push(chunk));
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    await this.close();
    yield* streamed(new Blob(this.#blobs));
  }

  async clear(): Promise<void> {
    this.#pieces.clear();
    await this.#entries.removeBelow(`pieces/${this.#generation}/`);
    this.#blobs = [];
    this.bytes = 0;
    await this.#point('parts');
  }

  async discard(): Promise<void> {
    await this.clear();
    await this.#entries.remove(`parts/${this.#id}`);
  }

  async commit(): Promise<Blob> {
    await this.close();
    const before = await this.#entries.json<Pointer>(`files/${this.#id}`);
    await this.#point('files');
    await this.#entries.remove(`parts/${this.#id}`);
    if (before !== null) await this.#entries.removeBelow(`pieces/${before.generation}/`);
    return new Blob(this.#blobs);
  }

  async close(): Promise<void> {
    await this.#keep(this.#pieces.take());
  }

  #point(to: 'files' | 'parts'): Promise<void> {
    const pointer: Pointer = { generation: this.#generation, bytes: sum(this.#blobs) };
    return this.#entries.put(`${to}/${this.#id}`, pointer);
  }

  async #keep(piece: Blob | null): Promise<void> {
    if (piece === null) return;
    const number = String(this.#blobs.length).padStart(8, '0');
    await this.#entries.put(`pieces/${this.#generation}/${number}`, piece);
    this.#blobs.push(piece);
    await this.#point('parts');
  }
}

/** Entries of a cache by name. Their addresses are never asked of a server. */
class Entries {
  readonly #cache: Cache;
  readonly #base = new URL('/imatch-storage/', self.location.origin).href;

  constructor(cache: Cache) {
    this.#cache = cache;
  }

  async json<T>(name: string): Promise<T | null> {
    const found = await this.#cache.match(this.#base + name);
    return found === undefined ? null : ((await found.json().catch(() => null)) as T | null);
  }

  async put(name: string, value: object): Promise<void> {
    const body = value instanceof Blob ? value : JSON.stringify(value);
    await this.#cache.put(this.#base + name, new Response(body)).catch((error: unknown) => {
      throw writeFailure(error);
    });
  }

  async remove(name: string): Promise<void> {
    await this.#cache.delete(this.#base + name);
  }

  async below(prefix: string): Promise<string[]> {
    const keys = await this.#cache.keys();
    const start = this.#base + prefix;
    return keys.flatMap(({ url }) => (url.startsWith(start) ? [url.slice(start.length)] : [])).sort();
  }

  async removeBelow(prefix: string): Promise<void> {
    for (const name of await this.below(prefix)) await this.remove(prefix + name);
  }

  async pieces(generation: string): Promise<Blob[]> {
    const prefix = `pieces/${generation}/`;
    const names = await this.below(prefix);
    const found = await Promise.all(names.map((name) => this.#cache.match(this.#base + prefix + name)));
    return Promise.all(found.flatMap((response) => (response === undefined ? [] : [response.blob()])));
  }
}

function sum(blobs: readonly Blob[]): number {
  return blobs.reduce((total, { size }) => total + size, 0);
}
