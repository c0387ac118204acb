import { CATEGORIES, isCategory, parse, spell, type Category, type PromptElement } from '../categories';
import { make } from './dom';

/**
 * A list of elements that grows by Enter and shrinks by its remove buttons or by Backspace in the empty field.
 * Emits `change` when the list changes and `announce` with a sentence for the screen reader.
 */
export class ElementChips extends HTMLElement {
  readonly #list = make('ul', { class: 'chips', 'aria-label': 'Elements to look for' });
  #elements: readonly PromptElement[] = [];

  connectedCallback(): void {
    this.querySelector('.chips')?.replaceWith(this.#list);
    const { text, category } = this.#fields;
    category.replaceChildren(
      ...CATEGORIES.map((name) => make('option', { value: name, selected: name === 'object' }, name)),
    );
    text.addEventListener('keydown', (event) => this.#key(event));
    category.addEventListener('keydown', (event) => this.#key(event));
    this.querySelector('.add')?.addEventListener('click', () => this.#add());
    this.#render();
  }

  get elements(): readonly PromptElement[] {
    return this.#elements;
  }

  set elements(elements: readonly PromptElement[]) {
    if (elements === this.#elements) return;
    this.#elements = elements;
    this.#render();
  }

  /** Adds what stands in the field, as a person who scores without pressing Enter expects. */
  commit(): void {
    if (this.#fields.text.value.trim() !== '') this.#add();
  }

  get #fields() {
    const text = this.querySelector('input');
    const category = this.querySelector('select');
    if (text === null || category === null) throw new Error('element-chips lacks its fields');
    return { text, category };
  }

  #key(event: KeyboardEvent): void {
    const { text } = this.#fields;
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Enter') {
      event.preventDefault();
      this.#add();
    } else if (event.key === 'Backspace' && event.target === text && text.value === '' && this.#elements.length > 0) {
      this.#remove(this.#elements.length - 1);
    }
  }

  #add(): void {
    const { text, category } = this.#fields;
    const otherwise: Category = isCategory(category.value) ? category.value : 'other';
    const asked = parse(text.value, otherwise);
    text.focus();
    if (asked.text === '') return;
    text.value = '';
    if (this.#elements.some((other) => spell(other) === spell(asked)))
      return this.#announce(`${asked.text} is in the list already`);
    this.#change([...this.#elements, asked]);
    this.#announce(`Added ${asked.text}, ${asked.category}`);
  }

  #remove(index: number): void {
    const removed = this.#elements[index];
    if (removed === undefined) return;
    this.#change(this.#elements.filter((_, other) => other !== index));
    const buttons = this.#list.querySelectorAll('button');
    if (document.activeElement !== this.#fields.text)
      (buttons[index] ?? buttons[index - 1] ?? this.#fields.text).focus();
    this.#announce(`Removed ${removed.text}`);
  }

  #change(elements: readonly PromptElement[]): void {
    this.#elements = elements;
    this.#render();
    this.dispatchEvent(new CustomEvent('change'));
  }

  #render(): void {
    this.#list.hidden = this.#elements.length === 0;
    this.#list.replaceChildren(...this.#elements.map((element, index) => this.#chip(element, index)));
  }

  #chip({ text, category }: PromptElement, index: number): HTMLLIElement {
    const remove = make('button', { type: 'button', class: 'remove', 'aria-label': `Remove ${text}` });
    remove.addEventListener('click', () => this.#remove(index));
    return make(
      'li',
      { class: 'chip' },
      make('span', { class: 'chip-text' }, text),
      make('span', { class: 'chip-category' }, category),
      remove,
    );
  }

  #announce(text: string): void {
    this.dispatchEvent(new CustomEvent<string>('announce', { detail: text }));
  }
}

customElements.define('element-chips', ElementChips);
