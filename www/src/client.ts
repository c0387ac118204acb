/**
 * imatch in a page: `probe`, `Evaluator`, `Picture`. One worker belongs to one evaluator; a worker whose
 * wasm module failed is thrown away with everything in it.
 */
import { Connection, ImatchError } from './connection';
import type {
  Device,
  DeviceChoice,
  EngineInfo,
  Loaded,
  ProbeReport,
  Progress,
  ScoreRequest,
  ScoreResult,
} from './protocol';

export { ImatchError } from './connection';
export type * from './protocol';

export interface LoadOptions {
  /** Address of manifest.json; relative ones are taken from the document. */
  readonly model: string | URL;
  /** `auto`, the default, takes the GPU where one passes the checks, and the CPU otherwise. */
  readonly device?: DeviceChoice;
  /** Lets `auto` take an adapter that is emulated on the CPU. For tests. */
  readonly software?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface ScoreOptions extends ScoreRequest {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** What the browser offers and what `device: 'auto'` would run on. Downloads nothing. */
export async function probe(options: { readonly software?: boolean } = {}): Promise<ProbeReport> {
  const connection = new Connection();
  try {
    return await connection.ask('probe', { software: options.software ?? false });
  } finally {
    connection.close();
  }
}

/** A model on a device, in a worker of its own. */
export class Evaluator {
  readonly info: EngineInfo;
  readonly device: Device;
  /** Why the GPU is not used, in plain words; null where it is. */
  readonly reason: string | null;
  /** Bytes of the model's files. */
  readonly bytes: number;
  /** Whether the worker's script came with a policy that forbids connections to other servers. */
  readonly policy: boolean;
  readonly #connection: Connection;

  private constructor(connection: Connection, { info, device, reason, bytes, policy }: Loaded) {
    this.#connection = connection;
    this.info = info;
    this.device = device;
    this.reason = reason;
    this.bytes = bytes;
    this.policy = policy;
  }

  /** Downloads, checks and starts a model. Where `auto` finds a GPU that fails, a fresh worker starts on the CPU. */
  static async load(options: LoadOptions): Promise<Evaluator> {
    const device = options.device ?? 'auto';
    try {
      return await Evaluator.#start(options, device);
    } catch (error) {
      if (device !== 'auto' || !(error instanceof ImatchError) || !failedOnGpu(error)) throw error;
      const evaluator = await Evaluator.#start(options, 'cpu');
      return evaluator.#because(`the GPU was tried and failed (${error.message})`);
    }
  }

  static async #start({ model, software, signal, onProgress }: LoadOptions, device: DeviceChoice): Promise<Evaluator> {
    const connection = new Connection();
    const request = { manifest: new URL(model, document.baseURI).href, device, software: software ?? false };
    try {
      return new Evaluator(connection, await connection.ask('load', request, { signal, onProgress }));
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  #because(reason: string): Evaluator {
    const { info, device, bytes, policy } = this;
    return new Evaluator(this.#connection, { info, device, reason, bytes, policy });
  }

  /** Whether the worker is gone, after `dispose` or a failure that it cannot survive. */
  get closed(): boolean {
    return this.#connection.closed;
  }

  /** Decodes a picture (PNG, JPEG or WebP) and runs the vision part once. */
  async open(
    picture: Blob | BufferSource,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Picture> {
    const bytes = await new Blob([picture]).arrayBuffer().catch((error: unknown) => {
      throw new ImatchError({ code: 'io', message: `the picture could not be read: ${String(error)}` });
    });
    const { id, value } = this.#connection.askWithId('open', { bytes }, { signal, transfer: [bytes] });
    const { width, height, sha256 } = await value;
    return new Picture(this.#connection, { id, width, height, sha256 });
  }

  /** Frees the model and ends the worker. */
  async dispose(): Promise<void> {
    if (this.closed) return;
    await this.#connection.ask('dispose', {}).catch(() => undefined);
    this.#connection.close();
  }
}

/** A picture that the model has seen. */
export class Picture {
  readonly width: number;
  readonly height: number;
  /** SHA-256 of the decoded pixels. */
  readonly sha256: string;
  readonly #connection: Connection;
  readonly #id: number;

  /** Made by `Evaluator.open`. */
  constructor(connection: Connection, opened: { id: number; width: number; height: number; sha256: string }) {
    this.#connection = connection;
    this.#id = opened.id;
    this.width = opened.width;
    this.height = opened.height;
    this.sha256 = opened.sha256;
  }

  /** Asks for the overall score and one score per element; gives the object of `imatch score --json`. */
  async score({ signal, onProgress, prompt, elements, promptType }: ScoreOptions): Promise<ScoreResult> {
    const request: ScoreRequest = {
      prompt,
      elements: [...elements],
      ...(promptType === undefined ? {} : { promptType }),
    };
    return this.#connection.ask('score', { picture: this.#id, request }, { signal, onProgress });
  }

  /** Frees what the model keeps about the picture. */
  close(): void {
    if (!this.#connection.closed) this.#connection.ask('close', { picture: this.#id }).catch(() => undefined);
  }
}

/** Failures that speak of the GPU and not of the model, the network or a request to stop. */
function failedOnGpu({ code, device }: ImatchError): boolean {
  return (
    device === 'gpu' && (code === 'device' || code === 'device_lost' || code === 'self_test' || code === 'internal')
  );
}
