/** Chunks are gathered into pieces of this size before they become blobs, which are costly in small change. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Gathers chunks into blobs. */
export class Pieces {
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #bytes = 0;

  /** Takes a chunk; gives a piece where one is full. */
  push(chunk: Uint8Array<ArrayBuffer>): Blob | null {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    return this.#bytes < PIECE_BYTES ? null : this.take();
  }

  /** Whatever has been gathered; null where that is nothing. */
  take(): Blob | null {
    if (this.#bytes === 0) return null;
    const piece = new Blob(this.#chunks);
    this.clear();
    return piece;
  }

  clear(): void {
    this.#chunks = [];
    this.#bytes = 0;
  }
}

/** The bytes of a blob, one chunk after the other. */
export async function* streamed(blob: Blob): AsyncGenerator<Uint8Array> {
  const reader = blob.stream().getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}
