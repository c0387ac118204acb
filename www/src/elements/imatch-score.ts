import { Evaluator, ImatchError, type Progress, type ScoreResult } from '../client';
import { parse, spell } from '../categories';
import { percent, stage } from '../words';
import { make } from './dom';

/** Models that elements on this page share, by address. */
const evaluators = new Map<string, Promise<Evaluator>>();

/** A constructed sheet, as a page's policy may forbid inline styles. */
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  :host { display: inline-block; font: inherit; }
  :host([hidden]) { display: none; }
  .score { font-size: 2em; font-variant-numeric: tabular-nums; margin: 0; }
  .scale, .note { opacity: .75; font-size: .5em; }
  .note { font-size: .875em; margin: 0; }
  ul { list-style: none; margin: .5em 0 0; padding: 0; font-size: .875em; }
  li { display: grid; grid-template-columns: 1fr auto auto; gap: 1em; font-variant-numeric: tabular-nums; }
`);

/**
 * `<imatch-score model="…/manifest.json" src="picture.png" prompt="…" elements="red circle (color); 2 squares (counting)">`
 *
 * Scores as soon as all of model, src and prompt are there and again when one changes. Emits `progress`
 * (detail: Progress), `score` (detail: ScoreResult) and `error` (detail: ImatchError). `elements` are
 * separated by semicolons or lines.
 */
export class ImatchScore extends HTMLElement {
  static readonly observedAttributes = ['model', 'src', 'prompt', 'elements'];

  readonly #root = this.attachShadow({ mode: 'open' });
  #job: AbortController | null = null;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [sheet];
  }

  connectedCallback(): void {
    this.#restart();
  }

  disconnectedCallback(): void {
    this.#job?.abort();
  }

  attributeChangedCallback(): void {
    if (this.isConnected) this.#restart();
  }

  /** Begins after the current turn, so that several attributes set together make one score. */
  #restart(): void {
    this.#job?.abort();
    const job = new AbortController();
    this.#job = job;
    queueMicrotask(() => {
      if (!job.signal.aborted) void this.#run(job.signal);
    });
  }

  async #run(signal: AbortSignal): Promise<void> {
    const [model, src, prompt] = [this.getAttribute('model'), this.getAttribute('src'), this.getAttribute('prompt')];
    if (!model || !src || !prompt) return;
    try {
      const result = await this.#score({ model, src, prompt, signal });
      this.#show(result);
      this.#emit('score', result);
    } catch (error) {
      if (signal.aborted) return;
      const failed =
        error instanceof ImatchError ? error : new ImatchError({ code: 'internal', message: String(error) });
      this.#root.replaceChildren(make('p', { class: 'note', role: 'alert' }, failed.message));
      this.#emit('error', failed);
    }
  }

  async #score({
    model,
    src,
    prompt,
    signal,
  }: {
    model: string;
    src: string;
    prompt: string;
    signal: AbortSignal;
  }): Promise<ScoreResult> {
    const onProgress = (progress: Progress) => {
      if (signal.aborted) return;
      this.#root.replaceChildren(make('p', { class: 'note' }, `${stage(progress)} …`));
      this.#emit('progress', progress);
    };
    const [evaluator, blob] = await Promise.all([shared(model, onProgress), fetchPicture(src, signal)]);
    const picture = await evaluator.open(blob, { signal });
    try {
      return await picture.score({ prompt, elements: this.#elements, signal, onProgress });
    } finally {
      picture.close();
    }
  }

  get #elements(): string[] {
    const written = (this.getAttribute('elements') ?? '').split(/[;\n]/).filter((text) => text.trim() !== '');
    return written.map((text) => spell(parse(text, 'other')));
  }

  #show({ overall, elements }: ScoreResult): void {
    const scale = make('span', { class: 'scale' }, `of ${overall.scale[1]}`);
    const items = elements.map(({ element, score, present }) =>
      make(
        'li',
        {},
        make('span', {}, element),
        make('span', {}, percent(score)),
        make('span', {}, present ? 'present' : 'absent'),
      ),
    );
    this.#root.replaceChildren(
      make('p', { class: 'score' }, overall.score.toFixed(2), ' ', scale),
      make('ul', {}, ...items),
    );
  }

  #emit(name: 'progress' | 'score' | 'error', detail: Progress | ScoreResult | ImatchError): void {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** One evaluator per model, started by whoever comes first; one that failed or was closed is started anew. */
function shared(model: string, onProgress: (progress: Progress) => void): Promise<Evaluator> {
  const address = new URL(model, document.baseURI).href;
  const load = () => Evaluator.load({ model: address, onProgress });
  const known = evaluators.get(address);
  const evaluator = known === undefined ? load() : known.then((found) => (found.closed ? load() : found), load);
  evaluators.set(address, evaluator);
  return evaluator;
}

async function fetchPicture(src: string, signal: AbortSignal): Promise<Blob> {
  const response = await fetch(new URL(src, document.baseURI), { signal }).catch(() => null);
  if (response === null || !response.ok)
    throw new ImatchError({ code: 'network', message: `${src}: the picture could not be fetched` });
  return response.blob();
}

customElements.define('imatch-score', ImatchScore);
