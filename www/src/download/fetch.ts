/** One file from the network into storage: by range where it was begun, and only whole and checked in the end. */
import { ImatchError } from '../error';
import type { Part } from '../storage';
import type { Digest } from './hash';
import {
  Changed,
  Exchange,
  Temporary,
  agree,
  confirm,
  contentRange,
  endOf,
  isMarked,
  insist,
  refusePage,
  refused,
  versionOf,
  type Manner,
  type Version,
} from './http';

/** A file to fetch. What is known of it beforehand has to turn out true. */
export interface Wanted {
  readonly name: string;
  readonly url: string;
  readonly bytes: number | null;
  readonly sha256: string | null;
  /** What the server has; null where it was not asked, because a digest says more. */
  readonly version: Version | null;
}

export interface Fetched {
  readonly blob: Blob;
  readonly sha256: string;
  readonly version: Version;
}

/** A part with what is remembered of where it came from. */
export interface Begun {
  readonly part: Part;
  readonly digest: Digest;
  /** The version that the part belongs to; null where it has not begun. */
  readonly version: Version | null;
  /** Remembers the version of a part before its first byte is written; null where the part is no more. */
  remember(version: Version | null): Promise<void>;
  /** Puts the part in the place of the file. */
  commit(): Promise<Blob>;
}

export interface FetchOptions extends Manner {
  /** Bytes that are there. */
  readonly onLoaded: (bytes: number) => void;
  /** Bytes of the part that have been hashed again. */
  readonly onHashed: (bytes: number) => void;
}

/** Fetches what is missing of a file. Damaged parts are removed, unfinished ones stay for another time. */
export async function fetchFile(wanted: Wanted, begun: Begun, options: FetchOptions): Promise<Fetched> {
  return new Transfer(wanted, begun, options).run();
}

class Transfer {
  readonly #wanted: Wanted;
  readonly #begun: Begun;
  readonly #part: Part;
  readonly #options: FetchOptions;
  #version: Version | null;
  /** Most bytes that were ever there: only what goes beyond them is progress. */
  #most = 0;

  constructor(wanted: Wanted, begun: Begun, options: FetchOptions) {
    this.#wanted = wanted;
    this.#begun = begun;
    this.#part = begun.part;
    this.#options = options;
    this.#version = begun.version;
  }

  async run(): Promise<Fetched> {
    await this.#takeUp();
    await insist(
      this.#options,
      () => this.#attempt(),
      () => this.#progressed(),
    );
    const sha256 = await this.#check();
    const blob = await this.#begun.commit();
    return { blob, sha256, version: this.#version ?? { bytes: blob.size, etag: null, modified: null } };
  }

  /** Hashes the part that is there, unless nothing would show that it belongs to another version of the file. */
  async #takeUp(): Promise<void> {
    const { sha256, bytes } = this.#wanted;
    const known = this.#version !== null && (sha256 !== null || isMarked(this.#version));
    if (!known || (bytes !== null && this.#part.bytes > bytes)) return this.#restart();
    let hashed = 0;
    for await (const chunk of this.#part.chunks()) {
      this.#options.signal.throwIfAborted();
      this.#begun.digest.update(chunk);
      hashed += chunk.length;
      this.#options.onHashed(hashed);
    }
    this.#most = this.#part.bytes;
  }

  async #attempt(): Promise<void> {
    if (this.#isWhole()) return;
    const { name, url, bytes, version } = this.#wanted;
    const resuming = this.#part.bytes > 0;
    const exchange = await Exchange.open(url, { headers: this.#conditions() }, this.#options);
    try {
      const { response } = exchange;
      // It is all there, and too short: sizes and digests are compared in the end.
      if (resuming && bytes !== null && endOf(response) === this.#part.bytes) return;
      const useless = response.status === 416 || (response.status === 206 && !this.#continues(response));
      if (resuming && useless) return await this.#again(exchange);
      if (useless || !response.ok) throw refused(url, response);
      refusePage(url, response);
      if (version !== null && !agree(version, versionOf(response))) throw new Changed(name);
      if (response.status !== 206) await this.#begin(response);
      await this.#receive(exchange);
    } finally {
      exchange.cancel();
    }
  }

  /** Whether all is there: as much as was promised, or as the server has of the version that the part is of. */
  #isWhole(): boolean {
    const { bytes, version } = this.#wanted;
    if (this.#part.bytes === 0) return false;
    if (bytes !== null) return this.#part.bytes === bytes;
    return (
      version !== null &&
      this.#version !== null &&
      this.#part.bytes === version.bytes &&
      confirm(this.#version, version)
    );
  }

  /** Asks for what is missing. */
  #conditions(): Record<string, string> {
    if (this.#part.bytes === 0) return {};
    const range = { Range: `bytes=${this.#part.bytes}-` };
    const { etag = null, modified = null } = this.#version ?? {};
    const condition = etag?.startsWith('W/') ? modified : (etag ?? modified);
    // To another origin this header would need a preflight, which many file servers refuse; the answer is compared.
    const foreign = new URL(this.#wanted.url).origin !== self.location.origin;
    return condition === null || foreign ? range : { ...range, 'If-Range': condition };
  }

  /** Whether a partial answer goes on where the part ends, in the same version. */
  #continues(response: Response): boolean {
    const first = contentRange(response.headers)?.first ?? null;
    const arriving = versionOf(response);
    const before = this.#version;
    if (before === null || !agree(before, arriving) || (first !== null && first !== this.#part.bytes)) return false;
    // Servers of other origins may not let these headers be seen; then only a digest can tell.
    return this.#wanted.sha256 !== null || (first !== null && confirm(before, arriving));
  }

  async #again(exchange: Exchange): Promise<void> {
    exchange.cancel();
    await this.#restart();
    return this.#attempt();
  }

  /** A whole file arrives, whatever there was of it. */
  async #begin(response: Response): Promise<void> {
    await this.#restart();
    this.#version = versionOf(response);
    await this.#begun.remember(this.#version);
  }

  async #receive(exchange: Exchange): Promise<void> {
    const { name, bytes } = this.#wanted;
    for await (const chunk of exchange.chunks()) {
      await this.#part.append(chunk);
      this.#begun.digest.update(chunk);
      if (bytes !== null && this.#part.bytes > bytes) {
        throw await this.#damaged(`${name}: more than the ${bytes} bytes that the manifest promises`);
      }
      this.#options.onLoaded(this.#part.bytes);
    }
    // Not every browser takes an answer that ends early for a failure. What the server states says when it does not.
    const promised = this.#version?.bytes ?? bytes ?? this.#wanted.version?.bytes ?? 0;
    if (this.#part.bytes !== bytes && this.#part.bytes < promised) {
      throw new Temporary(`${name}: the connection ended after ${this.#part.bytes} of ${promised} bytes`);
    }
  }

  async #check(): Promise<string> {
    const { name, bytes, sha256 } = this.#wanted;
    const length = this.#part.bytes;
    if (bytes !== null && length !== bytes) {
      throw await this.#damaged(`${name}: ${length} bytes, the manifest promises ${bytes}`);
    }
    const found = this.#begun.digest.finish();
    if (sha256 !== null && found !== sha256) {
      throw await this.#damaged(`${name}: SHA-256 ${found}, the manifest promises ${sha256}`);
    }
    return found;
  }

  async #damaged(message: string): Promise<ImatchError> {
    await this.#part.discard();
    await this.#begun.remember(null);
    return new ImatchError({ code: 'integrity', message });
  }

  async #restart(): Promise<void> {
    if (this.#part.bytes > 0) await this.#part.clear();
    this.#begun.digest.reset();
    this.#version = null;
  }

  #progressed(): boolean {
    const further = this.#part.bytes > this.#most;
    this.#most = Math.max(this.#most, this.#part.bytes);
    return further;
  }
}
