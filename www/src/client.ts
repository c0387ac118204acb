/**
 * imatch in a page: `probe`, `inspect`, `models`, `Evaluator`, `Picture`. Each evaluator has a scorer of its own, a
 * worker that is thrown away with everything in it when its wasm module or its device fails; all share the one
 * worker that downloads.
 */
import { Connection } from './connection';
import { ImatchError, aborted } from './error';
import { fromFiles } from './given';
import { askDownloader, sourceOf, type Gathered, type Kept, type SourceOptions } from './models';
import type {
  Device,
  DeviceChoice,
  EngineInfo,
  Inspection,
  ModelFile,
  Opened,
  ProbeReport,
  Progress,
  ScoreRequest,
  ScoreResult,
  ScorerCalls,
} from './protocol';
import { Recovery } from './recovery';
import { connect, start } from './start';

export { ImatchError } from './error';
export { fit, type Fit } from './fit';
export { models, type Kept, type ModelSource, type SourceOptions } from './models';
export type * from './protocol';

export interface LoadOptions extends SourceOptions {
  /** `auto`, the default, takes the GPU where one passes the checks, and the CPU otherwise. */
  readonly device?: DeviceChoice;
  /** Lets `auto` take an adapter that is emulated on the CPU. For tests. */
  readonly software?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface InspectOptions extends SourceOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface ScoreOptions extends ScoreRequest {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** What the browser offers and what `device: 'auto'` would run on. Downloads nothing. */
export async function probe(options: { readonly software?: boolean } = {}): Promise<ProbeReport> {
  const connection = connect();
  try {
    return await connection.ask('probe', { software: options.software ?? false });
  } finally {
    connection.close();
  }
}

/** What a model is and needs, from its headers: of its files only small ranges are downloaded. */
export async function inspect({ signal, ...options }: InspectOptions): Promise<Inspection> {
  const { origin, given } = sourceOf(options);
  const connection = connect();
  try {
    if (origin === null) {
      const { name, files: blobs } = await fromFiles(given);
      return await connection.ask('inspect', { name, blobs }, { signal });
    }
    const { port1, port2 } = new MessageChannel();
    const { name, files } = await askDownloader('examine', { ...origin, port: port1 }, { signal, transfer: [port1] });
    return await connection.ask('inspect', { name, files, port: port2 }, { signal, transfer: [port2] });
  } finally {
    connection.close();
  }
}

/** A model on a device, in a worker of its own. */
export class Evaluator {
  /** Whether the worker's script came with a policy that forbids connections to other servers. */
  readonly policy: boolean;
  /** Where the model's files are. */
  readonly kept: Kept;
  /** What they are; with digests where they were downloaded. */
  readonly files: readonly ModelFile[];
  readonly #recovery: Recovery;

  private constructor(recovery: Recovery, { kept, files }: Gathered, policy: boolean) {
    this.#recovery = recovery;
    this.kept = kept;
    this.files = files.map(({ blob, ...file }) => ({ ...file, bytes: blob.size }));
    this.policy = policy;
  }

  /** Downloads, checks and starts a model. Where `auto` finds a GPU that fails, a fresh worker starts on the CPU. */
  static async load(options: LoadOptions): Promise<Evaluator> {
    const { gathered, scorer } = await start(options);
    const { signal, onProgress, ...later } = options;
    const restart = async (signal: AbortSignal) => {
      // What was sound when it was loaded may not be so any more.
      const known = { ...gathered, unchecked: gathered.origin !== null };
      return (await start({ ...later, signal }, known)).scorer;
    };
    const policy = await askDownloader('policy', { script: scorer.loaded.script }, { signal }).catch(() => false);
    if (signal?.aborted) {
      scorer.connection.close();
      throw aborted();
    }
    return new Evaluator(new Recovery(scorer, restart), gathered, policy);
  }

  get info(): EngineInfo {
    return this.#recovery.loaded.info;
  }

  get device(): Device {
    return this.#recovery.loaded.device;
  }

  /** Why the GPU is not used, in plain words; null where it is. */
  get reason(): string | null {
    return this.#recovery.loaded.reason;
  }

  /** Bytes of the model's files. */
  get bytes(): number {
    return this.#recovery.loaded.bytes;
  }

  /** Whether the worker is gone, after `dispose` or a failure that it did not survive. */
  get closed(): boolean {
    return this.#recovery.closed;
  }

  /** Decodes a picture (PNG, JPEG or WebP) and runs the vision part once. */
  async open(
    picture: Blob | BufferSource,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Picture> {
    const blob = picture instanceof Blob ? picture : new Blob([picture]);
    return Picture.open(this.#recovery, blob, signal);
  }

  /** Frees the model and ends the worker. */
  dispose(): Promise<void> {
    return this.#recovery.dispose();
  }
}

/** A picture under the number by which one scorer knows it. */
interface OpenedIn extends Opened {
  readonly connection: Connection<ScorerCalls>;
  readonly id: number;
}

/** A picture that the model has seen. */
export class Picture {
  readonly width: number;
  readonly height: number;
  /** SHA-256 of the decoded pixels. */
  readonly sha256: string;
  readonly #recovery: Recovery;
  readonly #blob: Blob;
  #opened: Promise<OpenedIn>;
  #connection: Connection<ScorerCalls>;
  #closed = false;

  private constructor(recovery: Recovery, blob: Blob, opened: OpenedIn) {
    this.#recovery = recovery;
    this.#blob = blob;
    this.#opened = Promise.resolve(opened);
    this.#connection = opened.connection;
    this.width = opened.width;
    this.height = opened.height;
    this.sha256 = opened.sha256;
  }

  /** For `Evaluator.open`. */
  static async open(recovery: Recovery, blob: Blob, signal: AbortSignal | undefined): Promise<Picture> {
    const opened = await recovery.run((connection) => show(connection, blob, signal), signal);
    return new Picture(recovery, blob, opened);
  }

  /** Asks for the overall score and one score per element; gives the object of `imatch score --json`. */
  async score({ signal, onProgress, prompt, elements, promptType }: ScoreOptions): Promise<ScoreResult> {
    const request: ScoreRequest = {
      prompt,
      elements: [...elements],
      ...(promptType === undefined ? {} : { promptType }),
    };
    return this.#recovery.run(async (connection) => {
      const { id } = await this.#in(connection);
      return connection.ask('score', { picture: id, request }, { signal, onProgress });
    }, signal);
  }

  /** Frees what the model keeps about the picture. */
  close(): void {
    this.#closed = true;
    void this.#opened.then(({ connection, id }) => connection.ask('close', { picture: id })).catch(() => undefined);
  }

  /** The picture as this scorer knows it: one that took the place of a lost one has not seen it yet. */
  #in(connection: Connection<ScorerCalls>): Promise<OpenedIn> {
    if (this.#closed) throw new ImatchError({ code: 'invalid_input', message: 'the picture was closed' });
    if (connection !== this.#connection) {
      this.#connection = connection;
      this.#opened = show(connection, this.#blob, undefined);
    }
    return this.#opened;
  }
}

async function show(
  connection: Connection<ScorerCalls>,
  blob: Blob,
  signal: AbortSignal | undefined,
): Promise<OpenedIn> {
  const bytes = await blob.arrayBuffer().catch((error: unknown) => {
    throw new ImatchError({ code: 'io', message: `the picture could not be read: ${String(error)}` });
  });
  const { id, value } = connection.askWithId('open', { bytes }, { signal, transfer: [bytes] });
  return { ...(await value), connection, id };
}
