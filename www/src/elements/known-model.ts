import { addressesOf, isHere, type KnownModel } from '../catalogue';
import { size } from '../words';
import { copyButton } from './copy-button';
import { make } from './dom';

export interface KnownModelEvents {
  /** Looks at the model at these addresses. */
  readonly look: (addresses: readonly string[]) => void;
  readonly announce: (text: string) => void;
}

/** A known checkpoint, folded up: what it is, what it takes, what was checked, and how to get it. */
export function knownModel(model: KnownModel, events: KnownModelEvents): HTMLDetailsElement {
  const { name, license, good_for, download_bytes, device_bytes, checked, files, repository } = model;
  const exact = files.every(({ bytes }) => bytes !== null);
  const bytes = `${exact ? '' : 'about '}${size(download_bytes)}`;
  const told = files.every(({ sha256 }) => sha256 !== null);
  const facts: [string, string][] = [
    ['Memory', `about ${size(device_bytes)} on a GPU`],
    ['Licence', license],
    [
      'Checked',
      checked === 'weights'
        ? 'these very weights, against the reference'
        : 'only the architecture; these published weights were not tried',
    ],
    ['SHA-256', told ? 'listed, and compared before anything is scored' : 'not known; recorded when it is first loaded'],
  ];
  const details = make(
    'details',
    { class: 'known-model' },
    make('summary', {}, name, make('span', { class: 'hint' }, `${bytes} to download`)),
    make('p', {}, good_for),
    make(
      'dl',
      { class: 'card-facts' },
      ...facts.flatMap(([term, text]) => [make('dt', {}, term), make('dd', {}, text)]),
    ),
    ...(repository === undefined ? [lookButton(model, events)] : []),
  );
  if (repository !== undefined) {
    details.addEventListener('toggle', () => void open(details, model, repository, events), { once: true });
  }
  return details;
}

/** Only now the server is asked whether it has a copy. */
async function open(
  details: HTMLDetailsElement,
  model: KnownModel,
  repository: string,
  events: KnownModelEvents,
): Promise<void> {
  if (await isHere(model)) {
    details.append(make('p', { class: 'hint' }, 'This server has a copy.'), lookButton(model, events));
    return;
  }
  const names = model.files.map(({ name }) => name);
  const copy = copyButton('Copy the names', () => [repository, ...names].join('\n'), events.announce);
  details.append(
    make('p', {}, 'Its publisher has it as ', make('code', {}, repository), ':'),
    make('ul', { class: 'file-names' }, ...names.map((name) => make('li', {}, make('code', {}, name)))),
    make(
      'p',
      { class: 'hint' },
      'Fetch these files from there, then choose them or drop them here: the page’s policy lets it fetch from its own server only.',
    ),
    copy,
  );
}

function lookButton(model: KnownModel, { look }: KnownModelEvents): HTMLButtonElement {
  const button = make(
    'button',
    { type: 'button', class: 'button quiet small', 'aria-label': `Look at ${model.name}` },
    'Look at it',
  );
  button.addEventListener('click', () => look(addressesOf(model)));
  return button;
}
