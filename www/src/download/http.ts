/** Requests that are patient with a network that misbehaves, and never with one that says no. */
import { ImatchError, aborted, messageOf } from '../error';
import type { Patience } from '../protocol';

declare const self: DedicatedWorkerGlobalScope;

/** What a request waits for and what stops it. */
export interface Manner {
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

/** What a server says about the version of a file; null where it does not say. */
export interface Version {
  readonly bytes: number | null;
  readonly etag: string | null;
  readonly modified: string | null;
}

/** A failure that another try may not meet. */
export class Temporary extends ImatchError {
  /** How long the server asks to be left alone. */
  readonly waitMs: number;

  constructor(message: string, waitMs = 0) {
    super({ code: 'network', message });
    this.waitMs = waitMs;
  }
}

/** A server that says no. */
export class Refused extends ImatchError {}

/** A web page where a file should be. */
export class Page extends Refused {}

/** A file that is not the one it was when it was asked about. */
export class Changed extends ImatchError {
  constructor(name: string) {
    super({ code: 'network', message: `${name}: it changed on the server while it was fetched` });
  }
}

const TEMPORARY_STATUS: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

/** Requests that are under way, to be told where the policy of this worker keeps them from their server. */
const watches = new Set<Watch>();
self.addEventListener('securitypolicyviolation', (event) => {
  const { blockedURI, disposition } = event as SecurityPolicyViolationEvent;
  // A policy may also be one that only reports.
  if (disposition !== 'enforce' || !URL.canParse(blockedURI)) return;
  for (const watch of watches) watch.forbid(new URL(blockedURI));
});

/**
 * Tries until `attempt` succeeds, fails for good, or has failed in passing `patience.attempts` times in a row.
 * Tries that `progressed` vouches for begin the row anew.
 */
export async function insist<T>(
  { patience, signal }: Manner,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  for (let failures = 0; ;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Temporary)) throw error;
      failures = progressed() ? 1 : failures + 1;
      if (failures >= patience.attempts) throw given(error, failures);
      await pause(Math.max(error.waitMs, backoff(failures, patience)), signal);
    }
  }
}

/** One request and its answer; a connection that brings nothing for `patience.stallMs` is given up. */
export class Exchange {
  readonly response: Response;
  readonly #watch: Watch;

  private constructor(response: Response, watch: Watch) {
    this.response = response;
    this.#watch = watch;
  }

  /** Sends a request. The answer's status is the caller's to judge. */
  static async open(url: string, init: RequestInit, manner: Manner): Promise<Exchange> {
    const watch = new Watch(url, manner);
    try {
      const response = await fetch(url, { ...init, signal: watch.signal, credentials: 'omit', cache: 'no-store' });
      watch.feed();
      return new Exchange(response, watch);
    } catch (error) {
      throw await watch.explain(error);
    }
  }

  async *chunks(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const reader = this.response.body?.getReader();
    try {
      while (reader !== undefined) {
        this.#watch.feed();
        const { done, value } = await reader.read();
        if (done) break;
        yield value;
      }
    } catch (error) {
      throw error instanceof ImatchError ? error : await this.#watch.explain(error);
    } finally {
      this.cancel();
    }
  }

  /** The whole body, of at most `longest` bytes. */
  async bytes(longest: number): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let length = 0;
    for await (const chunk of this.chunks()) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > longest) {
        throw new ImatchError({
          code: 'invalid_model',
          message: `${nameOf(this.response.url)}: longer than ${longest} bytes`,
        });
      }
    }
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  }

  /** Ends the connection; what has not arrived yet is not wanted. */
  cancel(): void {
    this.#watch.end();
  }
}

/** Ends a request when nothing arrives for too long, and tells the reasons for its end apart. */
class Watch {
  readonly #url: string;
  readonly #manner: Manner;
  readonly #controller = new AbortController();
  readonly #stop = () => this.#controller.abort();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stalled = false;
  #forbidden = false;

  constructor(url: string, manner: Manner) {
    this.#url = url;
    this.#manner = manner;
    watches.add(this);
    if (manner.signal.aborted) this.#stop();
    manner.signal.addEventListener('abort', this.#stop, { once: true });
    this.feed();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#stalled = true;
      this.#stop();
    }, this.#manner.patience.stallMs);
  }

  /** Takes note of a violated policy. The report names the address that was asked for, or its origin only. */
  forbid(blocked: URL): void {
    const own = new URL(this.#url);
    if (blocked.href === own.href || blocked.href === `${own.origin}/`) this.#forbidden = true;
  }

  end(): void {
    watches.delete(this);
    clearTimeout(this.#timer);
    this.#manner.signal.removeEventListener('abort', this.#stop);
    this.#stop();
  }

  async explain(error: unknown): Promise<ImatchError> {
    this.end();
    const name = nameOf(this.#url);
    if (this.#manner.signal.aborted) return aborted();
    if (this.#stalled) return new Temporary(`${name}: nothing arrived for ${this.#manner.patience.stallMs / 1000} s`);
    // The report of a violated policy may come after the failure that it explains.
    watches.add(this);
    await new Promise((resolve) => setTimeout(resolve));
    watches.delete(this);
    if (this.#forbidden) {
      const place = `${new URL(this.#url).origin}, or to a place it redirects to`;
      const message = `${name}: the policy of this site does not let the downloader connect to ${place}`;
      return new ImatchError({ code: 'network', message });
    }
    return new Temporary(`${name}: ${messageOf(error)}`);
  }
}

/** The failure that an answer's status means. */
export function refused(url: string, { status, headers }: Response): ImatchError {
  const message = `${nameOf(url)}: the server answered ${status}`;
  if (!TEMPORARY_STATUS.has(status)) return new Refused({ code: 'network', message });
  return new Temporary(message, retryAfter(headers.get('Retry-After')));
}

/** Refuses a web page: hosts send one, as if all was well, for what they do not have and while they are closed. */
export function refusePage(url: string, { ok, headers }: Response): void {
  if (!ok || !/^text\/html\b/i.test(headers.get('Content-Type') ?? '')) return;
  throw new Page({ code: 'network', message: `${nameOf(url)}: the server answered with a web page` });
}

/** The version of a file, from an answer that carries all of it or, as 206, a part. */
export function versionOf({ status, headers }: Response): Version {
  const total = status === 206 ? contentRange(headers)?.total : number(headers.get('Content-Length'));
  // The length of a compressed answer is not that of the file.
  const bytes = headers.has('Content-Encoding') ? null : (total ?? null);
  return { bytes, etag: headers.get('ETag'), modified: headers.get('Last-Modified') };
}

/** Whether two versions may be the same: nothing that both sides state differs. */
export function agree(one: Version, other: Version): boolean {
  const same = <T>(a: T | null, b: T | null) => a === null || b === null || a === b;
  return (
    same(one.bytes, other.bytes) &&
    same(strong(one.etag), strong(other.etag)) &&
    // An entity tag says more than a date of whole seconds.
    ((one.etag !== null && other.etag !== null) || same(one.modified, other.modified))
  );
}

/** Whether two versions are the same by something that both sides state and that a new version changes. */
export function confirm(one: Version, other: Version): boolean {
  const etags = one.etag !== null && other.etag !== null;
  return agree(one, other) && (etags || (one.modified !== null && other.modified !== null));
}

/** Whether there is something by which a later version could be told from this one. */
export function isMarked({ etag, modified }: Version): boolean {
  return etag !== null || modified !== null;
}

/** First byte and, where stated, total of `Content-Range: bytes FIRST-LAST/TOTAL`; null where the header is unusable. */
export function contentRange(headers: Headers): { first: number; total: number | null } | null {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('Content-Range') ?? '');
  return match === null ? null : { first: Number(match[1]), total: match[2] === '*' ? null : Number(match[2]) };
}

/** The length of a file of which less was there than was asked for; null where the answer does not say. */
export function endOf({ status, headers }: Response): number | null {
  const match = /^bytes \*\/(\d+)$/.exec(headers.get('Content-Range') ?? '');
  return status !== 416 || match === null ? null : Number(match[1]);
}

/** The last part of an address, for people. */
export function nameOf(url: string): string {
  const name = new URL(url).pathname.split('/').at(-1);
  if (name === undefined || name === '') return url;
  try {
    return decodeURIComponent(name);
  } catch {
    // A percent sign that nothing was encoded by.
    return name;
  }
}

function given(error: Temporary, failures: number): Temporary {
  return failures === 1 ? error : new Temporary(`${error.message} (after ${failures} tries)`);
}

function backoff(failures: number, { backoffMs, longestBackoffMs }: Patience): number {
  return Math.min(backoffMs * 2 ** (failures - 1), longestBackoffMs) * (1 - Math.random() / 2);
}

/** Longest wait that a server may ask for; a longer one is a refusal in other words. */
const LONGEST_RETRY_AFTER_MS = 60_000;

/** `Retry-After`, in seconds or as a date. */
function retryAfter(header: string | null): number {
  if (header === null) return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS) : 0;
}

function number(header: string | null): number | null {
  return header !== null && /^\d+$/.test(header) ? Number(header) : null;
}

/** An entity tag without what compression makes of it: a weak one, or one with the name of the method. */
function strong(etag: string | null): string | null {
  return etag === null ? null : etag.replace(/^W\//, '').replace(/[-;]+(gzip|br|zstd|deflate)"$/, '"');
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(aborted());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
  });
}
