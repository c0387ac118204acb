import type { OverallScore } from '../protocol';
import { percent } from '../words';
import { make } from './dom';

/** The distribution over the levels as bars on the scale of the score, and the same as a table. */
export class LevelChart extends HTMLElement {
  show({ levels, scale: [low, high], score, expected_level: expected }: OverallScore): void {
    this.hidden = levels.length === 0;
    if (this.hidden) return this.replaceChildren();
    const valueOf = (index: number) => low + (index * (high - low)) / Math.max(1, levels.length - 1);
    const top = levels.reduce(
      (best, { probability }, index) => (probability > (levels[best]?.probability ?? 0) ? index : best),
      0,
    );
    const peak = levels[top]?.probability ?? 0;
    const summary =
      `Probabilities of ${levels.length} levels from ${low} to ${high}. Most likely: ${valueOf(top).toFixed(2)}, ` +
      `with ${percent(peak)}. Mean: ${score.toFixed(2)}${expected == null ? '' : `, level ${expected.toFixed(1)} of ${levels.length}`}.`;
    const bars = levels.map(({ token, probability }, index) => {
      const bar = make('span', {
        class: index === top ? 'level top' : 'level',
        title: `${token}, ${valueOf(index).toFixed(2)}: ${percent(probability)}`,
      });
      bar.style.setProperty('--height', String(peak > 0 ? probability / peak : 0));
      return bar;
    });
    const marker = make('span', { class: 'marker' });
    const plot = make('div', { class: 'plot', role: 'img', 'aria-label': summary }, ...bars, marker);
    this.style.setProperty('--n', String(levels.length));
    plot.style.setProperty('--mean', String((score - low) / (high - low)));
    this.replaceChildren(plot, axis(low, high), this.#table(levels, valueOf));
  }

  #table(levels: OverallScore['levels'], valueOf: (index: number) => number): HTMLDetailsElement {
    const heads = ['Level', 'Score', 'Probability'].map((text) => make('th', { scope: 'col' }, text));
    const rows = levels.map(({ token, probability }, index) =>
      make(
        'tr',
        {},
        make('th', { scope: 'row' }, token),
        make('td', {}, valueOf(index).toFixed(2)),
        make('td', {}, `${(probability * 100).toFixed(2)} %`),
      ),
    );
    const table = make(
      'table',
      { class: 'numbers' },
      make('thead', {}, make('tr', {}, ...heads)),
      make('tbody', {}, ...rows),
    );
    return make('details', { class: 'more' }, make('summary', {}, 'The levels as numbers'), table);
  }
}

/** Ticks at the whole numbers of the scale, which are a fraction of the way from the first bar's middle to the last's. */
function axis(low: number, high: number): HTMLDivElement {
  const ticks: HTMLSpanElement[] = [];
  for (let value = Math.ceil(low); value <= high; value++) {
    const tick = make('span', { class: 'tick' }, String(value));
    tick.style.setProperty('--at', String((value - low) / (high - low)));
    ticks.push(tick);
  }
  const ends = make('div', { class: 'ends' }, make('span', {}, 'not at all'), make('span', {}, 'completely'));
  return make('div', { class: 'axis', 'aria-hidden': 'true' }, make('div', { class: 'ticks' }, ...ticks), ends);
}

customElements.define('level-chart', LevelChart);
