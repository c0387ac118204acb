import { Evaluator, ImatchError, type Picture } from './client';
import { standing, type Standing } from './catalogue';
import { unlessAborted } from './error';
import type { ModelSource } from './models';
import type { Device, DeviceChoice, Progress } from './protocol';
import { spell } from './categories';
import type { ChosenPicture, Problem, State, Store } from './store';

/** Files beyond this are refused before they are read into memory. */
const MAX_PICTURE_BYTES = 64 * 1024 * 1024;

export interface ControllerOptions {
  readonly software: boolean;
}

interface Loading {
  readonly controller: AbortController;
  readonly evaluator: Promise<Evaluator>;
  known: Standing | null;
}

/** What the page can do: load, score, stop. Writes into the store, knows nothing of the DOM. */
export class Controller {
  readonly #store: Store;
  readonly #options: ControllerOptions;
  #loading: Loading | null = null;
  #job: AbortController | null = null;
  #opened: { blob: Blob; picture: Picture } | null = null;
  /** Settles when every model before has been given back: two may not have room beside each other. */
  #freed: Promise<unknown> = Promise.resolve();

  constructor(store: Store, options: ControllerOptions) {
    this.#store = store;
    this.#options = options;
  }

  /** Loads the model ahead of the first score. A failure is shown, not thrown. */
  async prepare(): Promise<void> {
    await this.#ready().catch((error: unknown) => this.#fail(error));
  }

  /** Starts anew on another device. */
  async choose(device: DeviceChoice): Promise<void> {
    if (device === this.#store.state.device && this.#loading !== null) return;
    this.#store.set({ device, problem: null });
    await this.#renew();
  }

  /** Starts anew with another model; a result that is there came from the one before. */
  async use(model: ModelSource): Promise<void> {
    this.#store.set({ model, problem: null, stale: this.#store.state.result !== null });
    await this.#renew();
  }

  async score(): Promise<void> {
    // What is asked is what stood there at the click, however long the model takes to come.
    const asked = this.#store.state;
    if (this.#job !== null) return;
    const problem = this.#missing();
    if (problem !== null || asked.picture === null) return this.#store.set({ problem });
    const job = new AbortController();
    this.#job = job;
    this.#store.set({ running: true, problem: null });
    try {
      const result = await this.#ask(asked.picture, asked, job.signal);
      this.#store.set({ result, stale: !sameForm(asked, this.#store.state), running: false, progress: null });
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#job = null;
      this.#store.set({ running: false, progress: null });
    }
  }

  /** Stops whatever goes on. */
  cancel(): void {
    this.#job?.abort();
    if (this.#store.state.engine.phase === 'loading') this.#loading?.controller.abort();
  }

  async #ask({ blob }: ChosenPicture, { prompt, elements, promptType }: State, signal: AbortSignal) {
    const evaluator = await unlessAborted(this.#ready(), signal);
    const onProgress = (progress: Progress) => this.#progress(progress, signal);
    onProgress({ stage: 'image', loaded: 0, total: 0 });
    const opened = await this.#open(evaluator, blob, signal);
    const request = { prompt, elements: elements.map(spell), ...(promptType === null ? {} : { promptType }) };
    const result = await opened.score({ ...request, signal, onProgress });
    // After a loss the model may have been started again elsewhere.
    if (this.#loading !== null && evaluator.device !== deviceOf(this.#store)) this.#loaded(this.#loading, evaluator);
    return result;
  }

  /** The picture as the model has seen it; opened once, however often it is asked about. */
  async #open(evaluator: Evaluator, blob: Blob, signal: AbortSignal): Promise<Picture> {
    if (this.#opened?.blob === blob) return this.#opened.picture;
    this.#opened?.picture.close();
    this.#opened = null;
    const picture = await evaluator.open(blob, { signal });
    this.#opened = { blob, picture };
    return picture;
  }

  /** The loaded model, loading it where that has not begun. */
  #ready(): Promise<Evaluator> {
    if (this.#loading !== null) return this.#loading.evaluator;
    const controller = new AbortController();
    const { signal } = controller;
    const { model, device } = this.#store.state;
    const onProgress = (progress: Progress) => this.#progress(progress, signal);
    const load = async () => {
      await unlessAborted(this.#freed, signal);
      const loaded = await Evaluator.load({ ...this.#options, model, device, signal, onProgress });
      loading.known = await compared(loaded, model, signal);
      return loaded;
    };
    const evaluator = load();
    const loading: Loading = { controller, evaluator, known: null };
    this.#loading = loading;
    this.#store.set({ engine: { phase: 'loading' }, progress: null });
    evaluator.then(
      (loaded) => this.#loaded(loading, loaded),
      () => this.#unload(loading),
    );
    return evaluator;
  }

  #loaded(loading: Loading, { info, device, reason, bytes, policy, kept }: Evaluator): void {
    if (this.#loading !== loading) return;
    const { known } = loading;
    this.#store.set({ engine: { phase: 'ready', info, device, reason, bytes, policy, kept, known }, progress: null });
  }

  #unload(loading: Loading): void {
    if (this.#loading !== loading) return;
    this.#loading = null;
    this.#opened = null;
    this.#store.set({ engine: { phase: 'absent' }, progress: null });
  }

  /** Loads what is chosen in the place of what there is. The page says so at once, and not when the old one is freed. */
  async #renew(): Promise<void> {
    this.cancel();
    this.#discard();
    await this.prepare();
  }

  /** Gives back what is loaded, or stops its loading. */
  #discard(): void {
    const loading = this.#loading;
    if (loading === null) return;
    this.#unload(loading);
    const freed = loading.evaluator.then((evaluator) => evaluator.dispose()).catch(() => undefined);
    this.#freed = Promise.all([this.#freed, freed]);
  }

  #progress(progress: Progress, { aborted }: AbortSignal): void {
    if (!aborted) this.#store.set({ progress });
  }

  #missing(): Problem | null {
    const { picture, prompt } = this.#store.state;
    const code = 'invalid_input';
    if (picture === null) return { code, field: 'picture', message: 'choose a picture first' };
    if (picture.blob.size > MAX_PICTURE_BYTES) {
      return { code: 'invalid_image', field: 'picture', message: 'the file is larger than 64 MiB' };
    }
    return prompt.trim() === '' ? { code, field: 'prompt', message: 'write what the picture was asked to show' } : null;
  }

  #fail(error: unknown): void {
    const { code, message } =
      error instanceof ImatchError ? error : { code: 'internal' as const, message: String(error) };
    // After a failure that the worker did not survive, the next score starts a new one.
    this.#loading?.evaluator.then((evaluator) => evaluator.closed && this.#forget()).catch(() => undefined);
    if (code !== 'aborted') this.#store.set({ problem: { code, message } });
  }

  #forget(): void {
    if (this.#loading !== null) this.#unload(this.#loading);
  }
}

/** Weights that are not what their names promise are given back before anything is scored with them. */
async function compared(evaluator: Evaluator, model: ModelSource, signal: AbortSignal): Promise<Standing | null> {
  try {
    return await unlessAborted(standing(model, evaluator), signal);
  } catch (error) {
    await evaluator.dispose();
    throw error;
  }
}

function sameForm(one: State, other: State): boolean {
  const words = ({ prompt, elements, promptType }: State) => JSON.stringify([prompt, elements.map(spell), promptType]);
  return one.picture?.blob === other.picture?.blob && one.model === other.model && words(one) === words(other);
}

function deviceOf({ state: { engine } }: Store): Device | null {
  return engine.phase === 'ready' ? engine.device : null;
}
