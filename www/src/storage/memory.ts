import type { Part, Store } from './store';
import { Pieces, streamed } from './pieces';

/** Blobs, which the browser may move to disk by itself; gone with the worker. */
export class MemoryStore implements Store {
  readonly kind = 'memory';
  readonly #files = new Map<string, Blob>();
  readonly #parts = new Map<string, MemoryPart>();
  readonly #records = new Map<string, object>();

  async file(id: string): Promise<Blob | null> {
    return this.#files.get(id) ?? null;
  }

  async fileBytes(id: string): Promise<number | null> {
    return this.#files.get(id)?.size ?? null;
  }

  async part(id: string): Promise<Part> {
    const part = this.#parts.get(id) ?? new MemoryPart((whole) => this.#settle(id, whole));
    this.#parts.set(id, part);
    return part;
  }

  async partBytes(id: string): Promise<number> {
    return this.#parts.get(id)?.bytes ?? 0;
  }

  async room(bytes: number): Promise<number> {
    return bytes;
  }

  async remove(id: string): Promise<void> {
    this.#files.delete(id);
    this.#parts.delete(id);
  }

  async record(name: string): Promise<unknown> {
    return this.#records.get(name) ?? null;
  }

  async setRecord(name: string, value: object | null): Promise<void> {
    if (value === null) this.#records.delete(name);
    else this.#records.set(name, value);
  }

  async records(): Promise<string[]> {
    return [...this.#records.keys()];
  }

  #settle(id: string, whole: Blob | null): void {
    if (whole !== null) this.#files.set(id, whole);
    this.#parts.delete(id);
  }
}

class MemoryPart implements Part {
  bytes = 0;
  #blobs: Blob[] = [];
  readonly #pieces = new Pieces();
  /** Takes the whole file, or null for a part that is not wanted any more. */
  readonly #onEnd: (whole: Blob | null) => void;

  constructor(onEnd: (whole: Blob | null) => void) {
    this.#onEnd = onEnd;
  }

  async append(chunk: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#keep(this.#pieces.push(chunk));
    this.bytes += chunk.length;
  }

  chunks(): AsyncGenerator<Uint8Array> {
    return streamed(this.#whole());
  }

  async clear(): Promise<void> {
    this.#blobs = [];
    this.#pieces.clear();
    this.bytes = 0;
  }

  async discard(): Promise<void> {
    await this.clear();
    this.#onEnd(null);
  }

  async commit(): Promise<Blob> {
    const whole = this.#whole();
    this.#onEnd(whole);
    return whole;
  }

  async close(): Promise<void> {}

  #whole(): Blob {
    this.#keep(this.#pieces.take());
    return new Blob(this.#blobs);
  }

  #keep(piece: Blob | null): void {
    if (piece !== null) this.#blobs.push(piece);
  }
}
