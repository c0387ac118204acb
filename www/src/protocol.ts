/**
 * What the page and the worker say to each other, and the types of the public API.
 * The only file that both sides import. Every message carries the id of the request it belongs to.
 */

/** Stable codes of failures; the first twelve are those of the crate's `Kind::code`. */
export type ErrorCode =
  | 'invalid_input'
  | 'invalid_image'
  | 'invalid_model'
  | 'integrity'
  | 'unsupported'
  | 'io'
  | 'network'
  | 'device'
  | 'device_lost'
  | 'self_test'
  | 'aborted'
  | 'internal';

export type Device = 'gpu' | 'cpu';
export type DeviceChoice = 'auto' | Device;
export type PromptType = 'real' | 'synthetic';

/** What an error is once it has crossed the boundary between worker and page. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  /** The device that was being started when loading failed. */
  readonly device?: Device;
}

/** Stages of loading, opening and scoring, in the order in which they come. */
export type Stage =
  'program' | 'download' | 'verify' | 'upload' | 'compile' | 'selftest' | 'image' | 'prefix' | 'questions';

/** How far a stage is: bytes for `download`, `verify` and `upload`, otherwise steps. `total` 0 means unknown. */
export interface Progress {
  readonly stage: Stage;
  readonly loaded: number;
  readonly total: number;
}

/** What the graphics adapter says about itself. */
export interface AdapterReport {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** Whether it computes on the CPU and only pretends to be a GPU. */
  readonly software: boolean;
  readonly features: readonly string[];
  /** The limits that scoring depends on, in bytes or counts. */
  readonly limits: Readonly<Record<string, number>>;
}

/** What `probe()` finds. Nothing is downloaded for it. */
export interface ProbeReport {
  /** Whether the browser has WebGPU at all. */
  readonly webgpu: boolean;
  /** The adapter it offers, or null. */
  readonly adapter: AdapterReport | null;
  /** What `device: 'auto'` would run on. */
  readonly device: Device;
  /** Why not the GPU, in plain words; null where it is the GPU. */
  readonly reason: string | null;
}

export interface ModelInfo {
  readonly name: string;
  readonly architecture: string;
  readonly quantization: string;
  readonly sha256: string;
}

/** What the loaded engine says about itself. */
export interface EngineInfo {
  readonly model: ModelInfo;
  readonly device: string;
  readonly scoring: Readonly<Record<string, unknown>>;
  readonly selftest: { readonly passed: boolean; readonly max_difference: number };
  readonly load_ms: number;
}

export interface Loaded {
  readonly info: EngineInfo;
  readonly device: Device;
  /** Why the GPU is not used, in plain words; null where it is. */
  readonly reason: string | null;
  /** Bytes of the model's files. */
  readonly bytes: number;
  /** Whether the worker's script came with a policy that forbids connections elsewhere. */
  readonly policy: boolean;
}

export interface Opened {
  readonly width: number;
  readonly height: number;
  /** SHA-256 of the decoded pixels. */
  readonly sha256: string;
}

export interface ScoreRequest {
  readonly prompt: string;
  /** Each as `text (category)`; without a category it counts as `other`. */
  readonly elements: readonly string[];
  readonly promptType?: PromptType;
}

export interface LevelScore {
  readonly token: string;
  readonly probability: number;
}

export interface OverallScore {
  /** On `scale`. */
  readonly score: number;
  readonly scale: readonly [number, number];
  /** In [0, 1]; null where the kind of question has none. */
  readonly confidence?: number | null;
  readonly expected_level?: number | null;
  /** The probability of yes, where the overall question is a yes or no question. */
  readonly probability?: number | null;
  /** Empty where the overall question is a yes or no question. */
  readonly levels: readonly LevelScore[];
}

export interface ElementScore {
  readonly element: string;
  readonly category: string;
  readonly score: number;
  readonly present: boolean;
}

/** The object that `imatch score --json` prints. */
export interface ScoreResult {
  readonly model: ModelInfo;
  readonly overall: OverallScore;
  readonly elements: readonly ElementScore[];
  readonly device: string;
  readonly timings_ms: Readonly<Record<string, number>>;
  /** The scoring options behind the numbers: a score without its scale and provenance is not a result. */
  readonly scoring: Readonly<Record<string, unknown>>;
}

/** Page to worker. A picture is named by the id of the request that opened it. */
export type Request =
  | { readonly kind: 'probe'; readonly id: number; readonly software: boolean }
  | {
      readonly kind: 'load';
      readonly id: number;
      readonly manifest: string;
      readonly device: DeviceChoice;
      readonly software: boolean;
    }
  | { readonly kind: 'open'; readonly id: number; readonly bytes: ArrayBuffer }
  | { readonly kind: 'score'; readonly id: number; readonly picture: number; readonly request: ScoreRequest }
  | { readonly kind: 'close'; readonly id: number; readonly picture: number }
  | { readonly kind: 'dispose'; readonly id: number }
  | { readonly kind: 'abort'; readonly id: number };

/** What each kind of request is answered with; `abort` has no answer of its own. */
export interface Answers {
  probe: ProbeReport;
  load: Loaded;
  open: Opened;
  score: ScoreResult;
  close: null;
  dispose: null;
}

export type AnswerKind = keyof Answers;

/** Worker to page. */
export type Response =
  | {
      [K in AnswerKind]: { readonly kind: 'answer'; readonly to: K; readonly id: number; readonly value: Answers[K] };
    }[AnswerKind]
  | { readonly kind: 'progress'; readonly id: number; readonly progress: Progress }
  | { readonly kind: 'error'; readonly id: number; readonly error: PlainError }
  /** The wasm module is dead; so is everything that was asked of it. */
  | { readonly kind: 'crashed'; readonly error: PlainError };
