import type { Progress } from '../protocol';
import { extent, stage } from '../words';
import { make } from './dom';

/** A progress bar with what goes on and how far it is. Hidden where nothing goes on. */
export class ProgressLine extends HTMLElement {
  readonly #bar = make('progress', { 'aria-labelledby': 'progress-stage' });
  readonly #stage = make('span', { id: 'progress-stage', class: 'progress-stage' });
  readonly #extent = make('span', { class: 'progress-extent' });

  connectedCallback(): void {
    this.replaceChildren(this.#stage, this.#extent, this.#bar);
  }

  show(progress: Progress | null): void {
    this.hidden = false;
    this.#stage.textContent = stage(progress);
    this.#extent.textContent = progress === null ? '' : extent(progress);
    if (progress === null || progress.total <= 0) this.#bar.removeAttribute('value');
    else this.#bar.value = Math.min(1, progress.loaded / progress.total);
  }

  hide(): void {
    this.hidden = true;
  }
}

customElements.define('progress-line', ProgressLine);
