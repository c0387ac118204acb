import { make } from './dom';

const TYPES = /^image\/(png|jpeg|webp)$/;

/**
 * Takes a picture by choosing, dropping (anywhere on the page) or pasting. A labelled file input first, so that
 * the keyboard and screen readers have what they know. Emits `choose` with the file as its detail.
 */
export class DropZone extends HTMLElement {
  readonly #image = make('img', { class: 'stage-image', alt: '', hidden: true });
  #depth = 0;
  #listeners = new AbortController();

  connectedCallback(): void {
    this.#listeners = new AbortController();
    const { signal } = this.#listeners;
    this.querySelector('.stage')?.prepend(this.#image);
    this.#input?.addEventListener('change', () => this.#take(this.#input?.files ?? null), { signal });
    window.addEventListener('dragenter', (event) => this.#drag(event, 1), { signal });
    window.addEventListener('dragleave', (event) => this.#drag(event, -1), { signal });
    window.addEventListener('dragover', (event) => event.preventDefault(), { signal });
    window.addEventListener('drop', (event) => this.#drop(event), { signal });
    document.addEventListener('paste', (event) => this.#take(event.clipboardData?.files ?? null), { signal });
  }

  disconnectedCallback(): void {
    this.#listeners.abort();
  }

  /** Shows a picture in the zone and its name below. */
  show({ url, alt, name }: { readonly url: string; readonly alt: string; readonly name: string }): void {
    this.classList.add('filled');
    this.#image.hidden = false;
    this.#image.alt = alt;
    this.#image.src = url;
    this.querySelector('.picture-name')?.replaceChildren(name);
    this.querySelector('.choose .button')?.replaceChildren('Choose another');
  }

  get #input(): HTMLInputElement | null {
    return this.querySelector('input[type=file]');
  }

  #drag(event: DragEvent, step: 1 | -1): void {
    event.preventDefault();
    this.#depth = Math.max(0, this.#depth + step);
    this.classList.toggle('over', this.#depth > 0);
  }

  #drop(event: DragEvent): void {
    event.preventDefault();
    this.#depth = 0;
    this.classList.remove('over');
    this.#take(event.dataTransfer?.files ?? null);
  }

  #take(files: FileList | null): void {
    const all = [...(files ?? [])];
    const file = all.find(({ type }) => TYPES.test(type)) ?? all[0];
    if (file !== undefined) this.dispatchEvent(new CustomEvent<File>('choose', { detail: file }));
    // The same file can be chosen again after something else was.
    if (this.#input !== null) this.#input.value = '';
  }
}

customElements.define('drop-zone', DropZone);
