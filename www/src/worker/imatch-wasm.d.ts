/** The wasm module's surface (src/web in the crate), as the worker relies on it. */
declare module 'imatch-wasm' {
  import type { Device, EngineInfo, Progress, ScoreRequest, ScoreResult } from '../protocol';

  export default function init(): Promise<unknown>;

  export class AbortFlag {
    abort(): void;
    free(): void;
  }

  export interface LoadOptions {
    /** Text of manifest.json. */
    manifest: string;
    device: Device;
    read: (path: string, offset: number, length: number) => Promise<Uint8Array>;
    onProgress?: (progress: Progress) => void;
  }

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
