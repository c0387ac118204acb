/** The page: wires events to the controller and the store, and the store to the view. */
import { Controller } from './controller';
import { copyOnClick } from './elements/copy-button';
import { byId, make } from './elements/dom';
import type { ModelSource } from './models';
import type { DeviceChoice, PromptType } from './protocol';
import { fetchSamples, type Sample } from './samples';
import { DEMO_MODEL, Store, type ChosenPicture } from './store';
import { announce, findParts, view, type Parts } from './view';

/**
 * `?model=` the address of another model (a manifest.json, config.json or .gguf file), `?device=` as the choice on the
 * page, `?software=1` an emulated GPU.
 */
const query = new URLSearchParams(location.search);
const store = new Store();
const parts = findParts();
const controller = new Controller(store, {
  software: query.get('software') === '1',
});

view(store, parts);
listenToForm(parts);
listenToModel(parts);
listenToKeys(parts);
listenToCopy(parts);
void fetchSamples().then(offer);
start();

/** Loads at once, unless the visitor asked to spare data: then with the first score. */
function start(): void {
  const device = query.get('device');
  if (isDevice(device)) store.set({ device });
  store.set({ model: query.get('model') ?? DEMO_MODEL });
  const { connection } = navigator as { connection?: { saveData?: boolean } };
  if (connection?.saveData !== true) void controller.prepare();
}

function listenToForm({ dropZone, prompt, elements, promptType, devices, form, cancel, problem }: Parts): void {
  dropZone.addEventListener('choose', (event) => choose((event as CustomEvent<File>).detail));
  prompt.addEventListener('input', () => store.edit({ prompt: prompt.value }));
  elements.addEventListener('change', () => store.edit({ elements: elements.elements }));
  elements.addEventListener('announce', (event) => announce(parts, (event as CustomEvent<string>).detail));
  promptType.addEventListener('change', () =>
    store.edit({ promptType: (promptType.value || null) as PromptType | null }),
  );
  devices.addEventListener('change', ({ target }) => {
    if (target instanceof HTMLInputElement && isDevice(target.value)) void controller.choose(target.value);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    elements.commit();
    void controller.score();
  });
  cancel.addEventListener('click', () => controller.cancel());
  problem.addEventListener('click', ({ target }) => {
    const device = target instanceof HTMLElement ? (target.dataset['device'] ?? null) : null;
    if (isDevice(device)) void controller.choose(device);
  });
}

function listenToModel({ modelChange, modelDialog }: Parts): void {
  modelDialog.software = query.get('software') === '1';
  modelChange.addEventListener('click', () => modelDialog.show(addressesOf(store.state.model)));
  modelDialog.addEventListener('choose', (event) => void controller.use((event as CustomEvent<ModelSource>).detail));
  modelDialog.addEventListener('announce', (event) => announce(parts, (event as CustomEvent<string>).detail));
}

/** Ctrl or Cmd with Enter scores from anywhere in the page's own fields; Escape stops what runs. */
function listenToKeys({ form }: Parts): void {
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.isComposing || parts.modelDialog.open) return;
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === 'Escape' && !parts.cancel.hidden) controller.cancel();
  });
  if (/mac|iphone|ipad/i.test(navigator.userAgent)) byId('score-key', HTMLElement).textContent = '⌘ ↵';
}

function listenToCopy({ copy }: Parts): void {
  copyOnClick(
    copy,
    () => JSON.stringify(store.state.result, null, 2),
    (said) => announce(parts, said),
  );
}

function choose(file: File): void {
  const before = store.state.picture;
  const picture: ChosenPicture = {
    blob: file,
    url: URL.createObjectURL(file),
    name: file.name,
    alt: `The picture ${file.name}`,
  };
  store.edit({ picture });
  announce(parts, `Picture ${file.name} chosen`);
  if (before !== null && before.blob instanceof File) URL.revokeObjectURL(before.url);
}

function offer(samples: readonly Sample[]): void {
  byId('samples', HTMLDivElement).hidden = samples.length === 0;
  byId('sample-list', HTMLUListElement).replaceChildren(
    ...samples.map((sample) => {
      const button = make(
        'button',
        { type: 'button', class: 'sample', title: sample.prompt },
        make('img', { src: sample.url, alt: '' }),
        make('span', {}, sample.title),
      );
      button.addEventListener('click', () => take(sample));
      return make('li', {}, button);
    }),
  );
}

function take({ blob, url, name, title, alt, prompt, promptType, elements }: Sample): void {
  store.edit({ picture: { blob, url, name, alt }, prompt, promptType, elements });
  announce(parts, `Sample taken: ${title}`);
}

/** The absolute addresses of a model; none where it was given as files. */
function addressesOf(model: ModelSource): string[] {
  const listed = typeof model === 'string' || model instanceof URL ? [model] : [...model];
  return listed.flatMap((item) => {
    const named = !(item instanceof File) && URL.canParse(item, document.baseURI);
    return named ? [new URL(item, document.baseURI).href] : [];
  });
}

function isDevice(name: string | null): name is DeviceChoice {
  return name === 'auto' || name === 'gpu' || name === 'cpu';
}
