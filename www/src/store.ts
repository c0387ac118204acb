import type { DeviceChoice, ErrorCode, EngineInfo, Device, Progress, PromptType, ScoreResult } from './protocol';
import type { Standing } from './catalogue';
import type { PromptElement } from './categories';
import type { Kept, ModelSource } from './models';

export interface ChosenPicture {
  readonly blob: Blob;
  /** A blob: address of it, for display. */
  readonly url: string;
  readonly name: string;
  /** What it shows, where that is known. */
  readonly alt: string;
}

export type EngineState =
  | { readonly phase: 'absent' | 'loading' }
  | {
      readonly phase: 'ready';
      readonly info: EngineInfo;
      readonly device: Device;
      readonly reason: string | null;
      readonly bytes: number;
      readonly policy: boolean;
      readonly kept: Kept;
      /** How it compares with a known model of its names; null where none has them. */
      readonly known: Standing | null;
    };

export interface Problem {
  readonly code: ErrorCode;
  readonly message: string;
  /** The field that has to change, where it is one. */
  readonly field?: 'picture' | 'prompt' | 'elements';
}

export interface State {
  readonly picture: ChosenPicture | null;
  readonly prompt: string;
  readonly elements: readonly PromptElement[];
  readonly promptType: PromptType | null;
  readonly model: ModelSource;
  readonly device: DeviceChoice;
  readonly engine: EngineState;
  /** Whether a score was asked for and is not there yet. */
  readonly running: boolean;
  /** Of loading or scoring, whichever goes on. */
  readonly progress: Progress | null;
  readonly result: ScoreResult | null;
  /** Whether the form has changed since the result. */
  readonly stale: boolean;
  readonly problem: Problem | null;
}

/** Failures that an edit may mend; the others stay until something is tried again. */
const OF_THE_FORM: ReadonlySet<ErrorCode> = new Set(['invalid_input', 'invalid_image', 'io']);

export const DEMO_MODEL = 'models/shapes/manifest.json';

export const INITIAL: State = {
  picture: null,
  prompt: '',
  elements: [],
  promptType: null,
  model: DEMO_MODEL,
  device: 'auto',
  engine: { phase: 'absent' },
  running: false,
  progress: null,
  result: null,
  stale: false,
  problem: null,
};

/** The page's one state: immutable, replaced by `set`, watched by `subscribe`. */
export class Store {
  #state: State = INITIAL;
  readonly #listeners = new Set<(state: State, before: State) => void>();

  get state(): State {
    return this.#state;
  }

  set(change: Partial<State>): void {
    const before = this.#state;
    this.#state = { ...before, ...change };
    for (const listener of this.#listeners) listener(this.#state, before);
  }

  /** Changes what a score is asked for; a result that is already there is then an old one. */
  edit(change: Partial<Pick<State, 'picture' | 'prompt' | 'elements' | 'promptType'>>): void {
    const { result, problem } = this.#state;
    const mended = problem !== null && OF_THE_FORM.has(problem.code);
    this.set({ ...change, stale: result !== null, problem: mended ? null : problem });
  }

  subscribe(listener: (state: State, before: State) => void): void {
    this.#listeners.add(listener);
    listener(this.#state, this.#state);
  }
}
