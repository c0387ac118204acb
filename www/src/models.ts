/** The page's side of the downloader: models by address, and those that the browser keeps. */
import { Connection, type AskOptions } from './connection';
import { ImatchError } from './error';
import { fromFiles } from './given';
import type {
  Downloaded,
  DownloaderCalls,
  NamedBlob,
  Origin,
  Patience,
  Progress,
  StorageKind,
  StorageUsage,
  StoredModel,
} from './protocol';

/** Addresses (manifest.json, config.json, a decoder .gguf file or both .gguf files), or the files themselves. */
export type ModelSource = string | URL | readonly (string | URL)[] | Iterable<File>;

export interface SourceOptions {
  readonly model: ModelSource;
  /** Where downloaded files are kept; without it the first that works of `opfs`, `cache` and `memory`. */
  readonly storage?: StorageKind | undefined;
  /** How long a download is waited for and how often it is tried. */
  readonly patience?: Partial<Patience> | undefined;
}

/** Where a loaded model's files are. */
export interface Kept {
  /** `files`: they were given, and stay where they are. */
  readonly kind: StorageKind | 'files';
  /** Why they are not in the origin private file system, in plain words; null where they are. */
  readonly reason: string | null;
  /** Whether the browser promised not to clear them by itself; null where it was not asked. */
  readonly persisted: boolean | null;
}

export interface Gathered {
  /** What the model is called where its files do not say. */
  readonly name: string;
  readonly files: readonly NamedBlob[];
  readonly kept: Kept;
  /** Whether files were stored before, and have not been hashed since. */
  readonly unchecked: boolean;
  /** null where the files were given. */
  readonly origin: Origin | null;
}

const PATIENCE: Patience = { attempts: 6, backoffMs: 500, longestBackoffMs: 30_000, stallMs: 30_000 };

/** For downloads beyond this the browser is asked not to clear them by itself. */
const PERSIST_BYTES = 32 * 1024 * 1024;

let connection: Connection<DownloaderCalls> | null = null;

/** The models that the browser keeps for this site. */
export const models = {
  list(): Promise<readonly StoredModel[]> {
    return askDownloader('list', {});
  },

  /** Removes a model by the `key` that `list` gives. Files that another model needs stay. */
  async remove(key: string): Promise<void> {
    await askDownloader('remove', { key });
  },

  usage(): Promise<StorageUsage> {
    return askDownloader('usage', {});
  },
};

/** Asks the page's one downloader; one that crashed is replaced. */
export function askDownloader<K extends keyof DownloaderCalls & string>(
  kind: K,
  ask: DownloaderCalls[K]['ask'],
  options: AskOptions = {},
): Promise<DownloaderCalls[K]['answer']> {
  if (connection === null || connection.closed) {
    connection = new Connection(new Worker(new URL('./downloader.ts', import.meta.url), { type: 'module' }));
  }
  return connection.ask(kind, ask, options);
}

/** The files of a model, downloaded where they are named by address. */
export async function gather(
  options: SourceOptions,
  { signal, onProgress, planned }: AskOptions & { readonly planned?: number | undefined },
): Promise<Gathered> {
  const { origin, given } = sourceOf(options);
  if (origin === null) {
    const kept: Kept = { kind: 'files', reason: null, persisted: null };
    return { ...(await fromFiles(given)), origin, unchecked: false, kept };
  }
  let persisted: Promise<boolean> | null = null;
  const watch = (progress: Progress) => {
    if (progress.stage === 'download' && progress.total > PERSIST_BYTES) persisted ??= askToPersist();
    onProgress?.(progress);
  };
  const downloaded: Downloaded = await askDownloader('download', { ...origin, planned }, { signal, onProgress: watch });
  const { name, files, unchecked, storage, reason } = downloaded;
  return { name, files, unchecked, origin, kept: { kind: storage, reason, persisted: await persisted } };
}

type Source = { readonly origin: Origin; readonly given: null } | { readonly origin: null; readonly given: File[] };

/** Where a model comes from: absolute addresses, or the files themselves. */
export function sourceOf({ model, storage, patience }: SourceOptions): Source {
  const listed = typeof model === 'string' || model instanceof URL ? [model] : [...model];
  if (listed.length === 0) throw invalid('no model was given');
  if (listed.every((item) => item instanceof File)) return { origin: null, given: listed };
  const addresses = listed.map((item) => {
    if (item instanceof File) throw invalid('addresses and files cannot be mixed');
    return absolute(item);
  });
  return { origin: { addresses, storage: storage ?? null, patience: { ...PATIENCE, ...patience } }, given: null };
}

function absolute(address: string | URL): string {
  if (!URL.canParse(address, document.baseURI)) throw invalid(`${JSON.stringify(address)} is no address`);
  const url = new URL(address, document.baseURI);
  if (!/^https?:$/.test(url.protocol)) {
    throw invalid(`${JSON.stringify(url.href.slice(0, 80))} is no address of a model: it has to begin with http or https`);
  }
  url.hash = '';
  return url.href;
}

/** Private windows refuse, and some browsers have no such promise. Others ask the visitor, so not twice. */
async function askToPersist(): Promise<boolean> {
  const storage = (navigator as Partial<Navigator>).storage;
  if (await storage?.persisted?.().catch(() => false)) return true;
  return (await storage?.persist?.().catch(() => false)) ?? false;
}

function invalid(message: string): ImatchError {
  return new ImatchError({ code: 'invalid_input', message });
}
