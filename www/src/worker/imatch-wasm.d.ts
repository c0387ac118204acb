/** The wasm module's surface (src/web in the crate), as the worker relies on it. */
declare module 'imatch-wasm' {
  import type { Device, EngineInfo, Inspection, ModelFile, Progress, ScoreRequest, ScoreResult } from '../protocol';
  import type { Read } from '../port';

  export default function init(): Promise<unknown>;

  export class AbortFlag {
    abort(): void;
    free(): void;
  }

  export interface LoadOptions {
    /** The form of the model is found by the names. */
    files: ModelFile[];
    /** What the model is called where its files do not say. */
    name: string;
    read: Read;
    device: Device;
    /** What the graphics adapter calls itself. */
    deviceName?: string;
    onProgress?: (progress: Progress) => void;
  }

  /** Reads headers only, at most 1 MiB at a time, one after the other. */
  export function inspect(options: {
    files: ModelFile[];
    name: string;
    read: Read;
    prepare: boolean;
  }): Promise<Inspection>;

  export class Engine {
    private constructor();
    static load(options: LoadOptions, flag: AbortFlag): Promise<Engine>;
    info(): EngineInfo;
    open(bytes: Uint8Array, flag: AbortFlag): Promise<Picture>;
    free(): void;
  }

  export class Picture {
    private constructor();
    readonly width: number;
    readonly height: number;
    sha256(): string;
    score(request: ScoreRequest, flag: AbortFlag, onProgress?: (progress: Progress) => void): Promise<ScoreResult>;
    free(): void;
  }
}
