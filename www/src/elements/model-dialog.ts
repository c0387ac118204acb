import { ImatchError, fit, inspect, models, probe, type ModelSource, type StoredModel } from '../client';
import { catalogue } from '../catalogue';
import { messageOf } from '../error';
import { FORMS, failure, sentence, size } from '../words';
import { byId, make } from './dom';
import { droppedFiles } from './entries';
import { knownModel } from './known-model';
import { modelCard } from './model-card';

/**
 * A dialog to choose a model: one that the browser keeps, a known one, one at an address, or one on this machine. What is new is
 * looked at first. Emits `choose` with a ModelSource and `announce` with a sentence as its detail.
 */
export class ModelDialog extends HTMLElement {
  /** Lets a GPU that is emulated on the CPU count as one. */
  software = false;
  #current: readonly string[] = [];
  #looking: AbortController | null = null;
  #listeners = new AbortController();

  connectedCallback(): void {
    this.#listeners = new AbortController();
    const { signal } = this.#listeners;
    this.#dialog.addEventListener('close', () => this.#clear(), { signal });
    this.#dialog.addEventListener('dragover', (event) => event.preventDefault(), { signal });
    this.#dialog.addEventListener('drop', (event) => void this.#drop(event), { signal });
    byId('model-close', HTMLButtonElement).addEventListener('click', () => this.#dialog.close(), { signal });
    byId('model-by-address', HTMLFormElement).addEventListener('submit', (event) => this.#submit(event), { signal });
    byId('known', HTMLDetailsElement).addEventListener('toggle', () => void this.#showKnown(), { signal });
    for (const id of ['model-files', 'model-folder']) {
      const input = byId(id, HTMLInputElement);
      input.addEventListener('change', () => void this.#take(input), { signal });
    }
  }

  disconnectedCallback(): void {
    this.#listeners.abort();
    this.#looking?.abort();
  }

  get open(): boolean {
    return this.#dialog.open;
  }

  /** Opens the dialog; `current` are the addresses of the model in use. */
  show(current: readonly string[]): void {
    this.#current = current;
    this.#dialog.showModal();
    void this.#list();
  }

  get #dialog(): HTMLDialogElement {
    return byId('model-chooser', HTMLDialogElement);
  }

  async #list(): Promise<void> {
    const note = byId('model-usage', HTMLParagraphElement);
    try {
      note.textContent = await this.#showStored();
    } catch (error) {
      note.textContent = `They could not be listed. ${sentence(messageOf(error))}`;
    }
  }

  /** Lists the stored models; gives a sentence about the room that they take. */
  async #showStored(): Promise<string> {
    const [listed, { bytes, persisted }] = await Promise.all([models.list(), models.usage()]);
    byId('model-stored', HTMLUListElement).replaceChildren(...listed.map((model) => this.#row(model)));
    const promise = persisted
      ? 'The browser has promised to keep them.'
      : 'The browser may clear them when the disk is full.';
    return listed.length === 0 ? 'None yet.' : `${size(bytes)} in all. ${promise}`;
  }

  #row(model: StoredModel): HTMLLIElement {
    const { key, name, form, bytes, complete, addresses, storage } = model;
    const used = addresses.join(' ') === this.#current.join(' ');
    const state = [
      FORMS[form],
      `${size(bytes)}${complete ? '' : ', not all there yet'}`,
      ...(storage === 'memory' ? ['until this page is closed'] : []),
      ...(used ? ['in use'] : []),
    ];
    const use = make('button', { type: 'button', class: 'button quiet small', 'aria-label': `Use ${name}` }, 'Use');
    const remove = make(
      'button',
      { type: 'button', class: 'button quiet small', 'aria-label': `Remove ${name}` },
      'Remove',
    );
    use.disabled = used;
    use.addEventListener('click', () => this.#choose(addresses));
    remove.addEventListener('click', () => void this.#remove(key, name));
    const text = make('p', {}, name, make('span', { class: 'hint' }, state.join(' · ')));
    return make('li', {}, text, use, remove);
  }

  /** The known models, once the visitor wants to see them. */
  async #showKnown(): Promise<void> {
    const list = byId('known-models', HTMLUListElement);
    const note = byId('known-note', HTMLParagraphElement);
    if (list.childElementCount > 0 || !byId('known', HTMLDetailsElement).open) return;
    const events = {
      look: (addresses: readonly string[]) => void this.#look(addresses),
      announce: (text: string) => this.#announce(text),
    };
    try {
      list.replaceChildren(...(await catalogue()).map((model) => make('li', {}, knownModel(model, events))));
      note.textContent = '';
    } catch (error) {
      note.textContent = `They could not be listed. ${sentence(messageOf(error))}`;
    }
    note.hidden = note.textContent === '';
  }

  async #remove(key: string, name: string): Promise<void> {
    try {
      await models.remove(key);
      this.#announce(`Removed ${name}`);
    } catch (error) {
      this.#problem(error);
    }
    await this.#list();
    // The button that had the focus is gone.
    byId('model-close', HTMLButtonElement).focus();
  }

  #submit(event: Event): void {
    event.preventDefault();
    const addresses = byId('model-address', HTMLInputElement)
      .value.split(/\s+/)
      .filter((address) => address !== '');
    if (addresses.length > 0) void this.#look(addresses);
  }

  async #take(input: HTMLInputElement): Promise<void> {
    const files = [...(input.files ?? [])];
    // The same files can be chosen again after something else was.
    input.value = '';
    if (files.length > 0) await this.#look(files);
  }

  async #drop(event: DragEvent): Promise<void> {
    event.preventDefault();
    // Anywhere else on the page a picture is dropped.
    event.stopPropagation();
    try {
      const files = event.dataTransfer === null ? [] : await droppedFiles(event.dataTransfer);
      if (files.length > 0) await this.#look(files);
    } catch (error) {
      this.#problem(error);
    }
  }

  /** Shows what a model is and whether it will run here, with a button that takes it. */
  async #look(model: readonly string[] | File[]): Promise<void> {
    this.#looking?.abort();
    const { signal } = (this.#looking = new AbortController());
    this.#card(make('p', { class: 'hint' }, 'Looking at the model …'));
    try {
      const [inspection, report] = await Promise.all([inspect({ model, signal }), probe({ software: this.software })]);
      if (signal.aborted) return;
      const verdict = fit(inspection, report);
      const fits = verdict.device !== null;
      const take = make(
        'button',
        { type: 'button', class: fits ? 'button primary' : 'button quiet' },
        fits ? 'Use this model' : 'Try it all the same',
      );
      take.addEventListener('click', () => this.#choose(model));
      this.#card(...modelCard(inspection, verdict), take);
      take.focus();
      this.#announce(verdict.sentence);
    } catch (error) {
      if (!signal.aborted) this.#problem(error);
    }
  }

  #choose(model: ModelSource): void {
    this.#dialog.close();
    this.dispatchEvent(new CustomEvent<ModelSource>('choose', { detail: model }));
  }

  #problem(error: unknown): void {
    const { code, message } =
      error instanceof ImatchError ? error : { code: 'internal' as const, message: String(error) };
    const { title } = failure(code);
    this.#card(make('p', { class: 'problem-title' }, title), make('p', { class: 'problem-detail' }, sentence(message)));
    this.#announce(`${title}. ${sentence(message)}`);
  }

  #card(...content: HTMLElement[]): void {
    const card = byId('model-card', HTMLDivElement);
    card.replaceChildren(...content);
    card.hidden = content.length === 0;
    card.scrollIntoView({ block: 'nearest' });
  }

  #clear(): void {
    this.#looking?.abort();
    this.#card();
    byId('model-stored', HTMLUListElement).replaceChildren();
  }

  #announce(text: string): void {
    this.dispatchEvent(new CustomEvent<string>('announce', { detail: text }));
  }
}

customElements.define('model-dialog', ModelDialog);
