import { ImatchError, messageOf } from '../error';
import type { Read } from '../port';
import type { ModelFile, NamedBlob } from '../protocol';

export function described({ name, blob, sha256 }: NamedBlob): ModelFile {
  return sha256 === undefined ? { name, bytes: blob.size } : { name, bytes: blob.size, sha256 };
}

/** Reads ranges of blobs, and keeps the first failure: the engine may report it in words of its own. */
export class BlobReader {
  readonly #files: ReadonlyMap<string, NamedBlob>;
  failure: ImatchError | null = null;

  constructor(files: readonly NamedBlob[]) {
    this.#files = new Map(files.map((file) => [file.name, file]));
  }

  readonly read: Read = async (name, offset, length) => {
    try {
      return await this.#slice(name, offset, length);
    } catch (thrown) {
      this.failure ??= thrown instanceof ImatchError ? thrown : vanished(this.#files.get(name), thrown);
      throw this.failure;
    }
  };

  async #slice(name: string, offset: number, length: number): Promise<Uint8Array> {
    const { blob } = this.#files.get(name) ?? {};
    if (blob === undefined) throw new ImatchError({ code: 'invalid_model', message: `${name}: not among the files` });
    if (!(offset >= 0 && length >= 0 && offset + length <= blob.size)) {
      const message = `${name}: bytes ${offset} to ${offset + length} of ${blob.size}`;
      throw new ImatchError({ code: 'invalid_model', message });
    }
    return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
  }
}

/**
 * A file on disk is only borrowed: its owner may change, move or delete it. What is stored, known by its digest, may be
 * removed or replaced by another tab.
 */
function vanished(file: NamedBlob | undefined, thrown: unknown): ImatchError {
  const gone = thrown instanceof DOMException && ['NotReadableError', 'NotFoundError'].includes(thrown.name);
  const what =
    file?.sha256 === undefined
      ? 'the file was changed, moved or removed after it was chosen'
      : 'the stored copy was removed or replaced while it was in use';
  return new ImatchError({ code: 'io', message: `${file?.name}: ${gone ? what : messageOf(thrown)}` });
}
