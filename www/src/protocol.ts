/**
 * What the page and its two workers say to each other, and the types of the public API. The scorer has the wasm
 * module, the device and the pictures, and asks the network for nothing but that module; the downloader has the
 * network and the storage, and never sees a picture. Every message carries the id of the request it belongs to.
 */

/** Stable codes of failures; all but `quota` are also those of the crate's `Kind::code`. */
export const ERROR_CODES = [
  'invalid_input',
  'invalid_image',
  'invalid_model',
  'integrity',
  'unsupported',
  'io',
  'network',
  'quota',
  'device',
  'device_lost',
  'out_of_memory',
  'self_test',
  'aborted',
  'internal',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

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
  'program' | 'download' | 'verify' | 'upload' | 'compile' | 'selftest' | 'image' | 'questions';

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
  /** Bytes of the weights on the device. */
  readonly device_bytes: number;
  /** The wasm module's memory, which never shrinks: the most that it held while loading. */
  readonly heap_bytes: number;
}

/** What the scorer will run on, found before anything is downloaded for it. */
export interface Chosen {
  readonly device: Device;
  /** Why the GPU is not used, in plain words; null where it is. */
  readonly reason: string | null;
  /** What the browser offered; null where it was not asked or had nothing. */
  readonly adapter: AdapterReport | null;
}

export interface Loaded extends Omit<Chosen, 'adapter'> {
  readonly info: EngineInfo;
  /** Bytes of the model's files. */
  readonly bytes: number;
  /** Address of the scorer's script, whose headers say what it may connect to. */
  readonly script: string;
}

/** How a model's files are laid out. */
export type ModelForm = 'converted' | 'gguf' | 'hugging_face';

/** A file of a model, as the engine finds it by name. */
export interface ModelFile {
  readonly name: string;
  readonly bytes: number;
  /** Found while the file arrived; absent where the file was given. */
  readonly sha256?: string;
}

/** A file of a model, with its bytes where the browser keeps them. */
export interface NamedBlob {
  readonly name: string;
  readonly blob: Blob;
  readonly sha256?: string;
}

/** What the headers of a model's files say about it. */
export interface Inspection {
  readonly name: string;
  readonly architecture: string;
  readonly quantization: string;
  readonly license: string | null;
  readonly form: ModelForm;
  readonly download_bytes: number;
  readonly device_bytes: { readonly gpu: number; readonly cpu: number };
  /** Of the largest tensor that the GPU has to bind whole. */
  readonly largest_binding_bytes: number;
  readonly host_bytes: number;
  readonly gflop: { readonly first_score: number; readonly question: number };
  readonly overall: 'levels' | 'yes_no';
}

/** Where downloaded files are kept: the origin private file system, cache storage, or memory until the page goes. */
export type StorageKind = 'opfs' | 'cache' | 'memory';

/** How long a download is waited for and how often it is tried. */
export interface Patience {
  /** Tries in a row that bring nothing new before a download fails. */
  readonly attempts: number;
  /** Pause after the first of them; it doubles with each, less up to a half by chance. */
  readonly backoffMs: number;
  readonly longestBackoffMs: number;
  /** A connection that brings nothing for so long is given up. */
  readonly stallMs: number;
}

/** What a model is fetched from, and how. */
export interface Origin {
  /** Absolute addresses: one of manifest.json, config.json or a .gguf file, or two of .gguf files. */
  readonly addresses: readonly string[];
  /** null takes the first kind of storage that works. */
  readonly storage: StorageKind | null;
  readonly patience: Patience;
}

export interface Downloaded {
  /** What the model is called where its files do not say. */
  readonly name: string;
  readonly files: readonly NamedBlob[];
  /** Whether some were stored before; their digests are those of then, and `recheck` says whether they still hold. */
  readonly unchecked: boolean;
  readonly storage: StorageKind;
  /** Why the files are not in the origin private file system; null where they are, or where another was asked for. */
  readonly reason: string | null;
}

/** A model that the browser keeps, or has begun to. */
export interface StoredModel {
  /** Its addresses, for `models.remove`. */
  readonly key: string;
  /** For `Evaluator.load`. */
  readonly addresses: readonly string[];
  readonly name: string;
  readonly form: ModelForm;
  readonly storage: StorageKind;
  /** Bytes that are there. */
  readonly bytes: number;
  /** Whether it can be loaded without the network. */
  readonly complete: boolean;
}

export interface StorageUsage {
  /** Bytes of all stored models, files that two of them share counted once. */
  readonly bytes: number;
  /** Bytes that the browser says it still grants this site, which may be more than there are; null where it does not say. */
  readonly free: number | null;
  /** Whether the browser has promised not to clear the storage by itself. */
  readonly persisted: boolean;
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
  /** The geometric mean of the elements' scores; null without elements. */
  readonly elements_geometric_mean: number | null;
  /** The scoring options behind the numbers: a score without its scale and provenance is not a result. */
  readonly scoring: Readonly<Record<string, unknown>>;
}

/** The requests that a worker takes, by kind: what they carry and what they are answered with. */
export type Calls = Readonly<Record<string, { readonly ask: object; readonly answer: unknown }>>;

/** A picture is named by the id of the request that opened it. */
export type ScorerCalls = {
  probe: { ask: { readonly software: boolean }; answer: ProbeReport };
  /** Chooses the device and begins to fetch the wasm module, so that both are there when the files are. */
  start: { ask: { readonly device: DeviceChoice; readonly software: boolean }; answer: Chosen };
  load: { ask: { readonly name: string; readonly files: readonly NamedBlob[] }; answer: Loaded };
  /** Reads go to blobs, or over a port to the downloader. */
  inspect: {
    ask: { readonly name: string } & (
      { readonly blobs: readonly NamedBlob[] } | { readonly files: readonly ModelFile[]; readonly port: MessagePort }
    );
    answer: Inspection;
  };
  open: { ask: { readonly bytes: ArrayBuffer }; answer: Opened };
  score: { ask: { readonly picture: number; readonly request: ScoreRequest }; answer: ScoreResult };
  close: { ask: { readonly picture: number }; answer: null };
  dispose: { ask: object; answer: null };
};

export type DownloaderCalls = {
  /** `planned`: what `examine` gave, so that the servers are not asked twice. */
  download: { ask: Origin & { readonly planned?: number | undefined }; answer: Downloaded };
  /** A model's name, and names and sizes of its files; ranges are then read over `port` until it is closed. */
  examine: {
    ask: Origin & { readonly port: MessagePort };
    answer: {
      readonly name: string;
      readonly files: readonly ModelFile[];
      /** Bytes that the browser does not keep. */
      readonly missing: number;
      /** For `download`. */
      readonly planned: number;
    };
  };
  /** Compares the stored files of a model with their SHA-256 and forgets those that differ; gives their names. */
  recheck: { ask: Origin; answer: readonly string[] };
  list: { ask: object; answer: readonly StoredModel[] };
  remove: { ask: { readonly key: string }; answer: null };
  usage: { ask: object; answer: StorageUsage };
  /** Whether a worker's script comes with a policy that forbids connections elsewhere. */
  policy: { ask: { readonly script: string }; answer: boolean };
};

/** Page to worker. `abort` has no answer of its own. */
export type Request<C extends Calls> =
  | { [K in keyof C & string]: { readonly kind: K; readonly id: number; readonly ask: C[K]['ask'] } }[keyof C & string]
  | { readonly kind: 'abort'; readonly id: number };

/** Worker to page. */
export type Response =
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'progress'; readonly id: number; readonly progress: Progress }
  | { readonly kind: 'error'; readonly id: number; readonly error: PlainError }
  /** The worker is of no use any more; whatever was asked of it fails. */
  | { readonly kind: 'crashed'; readonly error: PlainError };
