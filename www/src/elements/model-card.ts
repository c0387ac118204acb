import type { Fit, Inspection } from '../client';
import { FORMS, size } from '../words';
import { make } from './dom';

/** What a model is and needs, before it is loaded. */
export function modelCard(inspection: Inspection, { sentence, device }: Fit): HTMLElement[] {
  const { name, architecture, quantization, license, form, download_bytes, gflop, overall } = inspection;
  const facts: [string, string][] = [
    ['Kind', `${architecture}, ${quantization}, ${FORMS[form]}`],
    ['Licence', license ?? 'not stated'],
    ['Size', size(download_bytes)],
    [
      'Work',
      `${gflop.first_score.toPrecision(2)} GFLOP for the first score, ${gflop.question.toPrecision(2)} a question`,
    ],
    ['Overall score', overall === 'levels' ? 'fifteen levels' : 'a yes or no question: not tuned for scores'],
  ];
  return [
    make('h3', { class: 'label' }, name),
    make(
      'dl',
      { class: 'card-facts' },
      ...facts.flatMap(([term, text]) => [make('dt', {}, term), make('dd', {}, text)]),
    ),
    make('p', { class: device === null ? 'card-unfit' : 'card-fit' }, sentence),
  ];
}
