import type { ElementScore } from '../protocol';
import { percent } from '../words';
import { make } from './dom';

/** One row per element: what was asked for, how probable it is that the picture shows it, and the verdict in a word. */
export class ElementTable extends HTMLElement {
  show(elements: readonly ElementScore[]): void {
    this.hidden = elements.length === 0;
    const heads = ['Element', 'Probability', 'Verdict'].map((text) => make('th', { scope: 'col' }, text));
    const present = elements.filter((element) => element.present).length;
    const caption = make(
      'caption',
      {},
      make('span', { class: 'caption-title' }, 'Elements'),
      ` ${present} of ${elements.length} present`,
    );
    const body = make('tbody', {}, ...elements.map(row));
    this.replaceChildren(
      make('table', { class: 'elements' }, caption, make('thead', {}, make('tr', {}, ...heads)), body),
    );
  }
}

function row({ element, category, score, present }: ElementScore): HTMLTableRowElement {
  const bar = make('span', { class: present ? 'bar' : 'bar below', 'aria-hidden': 'true' });
  bar.style.setProperty('--share', String(score));
  const name = make('th', { scope: 'row' }, element, ' ', make('span', { class: 'category' }, category));
  const value = make('td', { class: 'probability' }, bar, make('span', { class: 'value' }, percent(score)));
  const verdict = make('td', { class: present ? 'verdict present' : 'verdict absent' }, present ? 'present' : 'absent');
  return make('tr', {}, name, value, verdict);
}

customElements.define('element-table', ElementTable);
