/** State to DOM: the only place that writes the page. Events go the other way, through main.ts. */
import type { Standing } from './catalogue';
import { byId, make } from './elements/dom';
import { DropZone } from './elements/drop-zone';
import { ElementChips } from './elements/element-chips';
import { ElementTable } from './elements/element-table';
import { LevelChart } from './elements/level-chart';
import { ModelDialog } from './elements/model-dialog';
import { ProgressLine } from './elements/progress-line';
import type { ErrorCode, ScoreResult } from './protocol';
import { DEMO_MODEL, type EngineState, type Problem, type State, type Store } from './store';
import { duration, failure, percent, place, sentence, size, stage } from './words';

const TIMINGS: Readonly<Record<string, string>> = {
  load: 'loading',
  image: 'picture',
  questions: 'questions',
};

/** Everything on the page that events come from or text goes to. */
export function findParts() {
  return {
    dropZone: byId('drop-zone', DropZone),
    file: byId('file', HTMLInputElement),
    prompt: byId('prompt', HTMLTextAreaElement),
    elements: byId('elements', ElementChips),
    elementText: byId('element-text', HTMLInputElement),
    promptType: byId('prompt-type', HTMLSelectElement),
    devices: byId('devices', HTMLFieldSetElement),
    form: byId('form', HTMLFormElement),
    score: byId('score', HTMLButtonElement),
    cancel: byId('cancel', HTMLButtonElement),
    copy: byId('copy', HTMLButtonElement),
    modelChange: byId('model-change', HTMLButtonElement),
    modelDialog: byId('model-dialog', ModelDialog),
    progress: byId('progress', ProgressLine),
    problem: byId('problem', HTMLDivElement),
    announcer: byId('announcer', HTMLParagraphElement),
    resultTitle: byId('result-title', HTMLHeadingElement),
  };
}

export type Parts = ReturnType<typeof findParts>;

/** Draws the state and whatever changes of it from then on. */
export function view(store: Store, parts: Parts): void {
  store.subscribe((state, before) => {
    const first = state === before;
    if (first || state.picture !== before.picture) drawPicture(state, parts);
    if (first || state.prompt !== before.prompt) drawPrompt(state, parts);
    if (first || state.elements !== before.elements) parts.elements.elements = state.elements;
    if (first || state.promptType !== before.promptType) parts.promptType.value = state.promptType ?? '';
    if (first || state.device !== before.device) drawDevice(state, parts);
    if (first || state.model !== before.model || state.engine !== before.engine) drawModel(state);
    if (first || state.problem !== before.problem) drawProblem(state.problem, parts);
    drawActivity(state, before, parts);
    byId('stale', HTMLParagraphElement).hidden = !state.stale;
    if (state.result !== null && state.result !== before.result) drawResult(state.result, state.engine, parts);
  });
}

/** Says a sentence to screen readers. */
export function announce({ announcer }: Parts, text: string): void {
  announcer.textContent = text;
}

function drawPicture({ picture }: State, { dropZone }: Parts): void {
  if (picture !== null) dropZone.show(picture);
}

function drawPrompt({ prompt: text }: State, { prompt }: Parts): void {
  if (prompt.value !== text) prompt.value = text;
}

function drawDevice({ device }: State, { devices }: Parts): void {
  for (const input of devices.querySelectorAll('input')) input.checked = input.value === device;
}

function drawModel({ model, engine }: State): void {
  byId('badge', HTMLParagraphElement).hidden = model !== DEMO_MODEL;
  byId('model-status', HTMLParagraphElement).textContent =
    engine.phase === 'ready'
      ? [`${engine.info.model.name}, ${size(engine.bytes)}, ${place(engine.kept)}`, ...news(engine.known)].join('. ')
      : engine.phase === 'loading'
        ? 'being loaded'
        : 'not loaded';
}

function news(known: Standing | null): string[] {
  return known?.news === true ? [`${known.sentence}.`] : [];
}

/** Buttons, progress and the line that says what runs and why. The focus follows the button that takes over. */
function drawActivity(state: State, before: State, parts: Parts): void {
  const { running, engine, progress } = state;
  const busy = running || engine.phase === 'loading';
  const { score, cancel } = parts;
  const focused = document.activeElement;
  score.hidden = running;
  cancel.hidden = !busy;
  if (running && focused === score) cancel.focus();
  if (!busy && focused === cancel) score.focus();
  if (busy) parts.progress.show(progress);
  else parts.progress.hide();
  if (busy && progress?.stage !== before.progress?.stage) announce(parts, stage(progress));
  const status = byId('device-status', HTMLParagraphElement);
  status.hidden = busy;
  status.textContent = engineStatus(engine);
  if (engine.phase === 'ready' && before.engine.phase === 'loading' && !running) announce(parts, engineStatus(engine));
  if (before.running && !running && state.result === before.result && state.problem === null)
    announce(parts, 'Stopped');
  if (engine.phase === 'ready' && !engine.policy) byId('privacy', HTMLSpanElement).textContent = WITHOUT_POLICY;
}

const OF_THE_GPU: ReadonlySet<string> = new Set<ErrorCode>(['device', 'device_lost', 'out_of_memory', 'self_test']);

const WITHOUT_POLICY =
  'The picture stays in this tab: nothing is sent while scoring. (This server does not send the policy that would also forbid it.)';

function engineStatus(engine: EngineState): string {
  if (engine.phase !== 'ready') return 'The model is not loaded yet; scoring loads it.';
  const device = engine.device === 'gpu' ? 'GPU' : 'CPU';
  return `Ready on the ${device}${engine.reason === null ? '' : `: ${engine.reason}`}.`;
}

function drawProblem(problem: Problem | null, parts: Parts): void {
  drawFieldProblem('picture', parts.file, problem);
  drawFieldProblem('prompt', parts.prompt, problem);
  const panel = parts.problem;
  const general = problem !== null && problem.field === undefined;
  panel.hidden = !general;
  if (!general) return panel.replaceChildren();
  const { title, advice } = failure(problem.code);
  panel.replaceChildren(
    make('p', { class: 'problem-title' }, title),
    ...(advice === '' ? [] : [make('p', {}, advice)]),
    make('p', { class: 'problem-detail' }, sentence(problem.message)),
    ...(OF_THE_GPU.has(problem.code)
      ? [make('button', { type: 'button', class: 'button quiet small', 'data-device': 'cpu' }, 'Use the CPU')]
      : []),
  );
}

function drawFieldProblem(field: Problem['field'] & string, input: HTMLElement, problem: Problem | null): void {
  const line = byId(`${field}-problem`, HTMLParagraphElement);
  const concerns = problem?.field === field;
  line.hidden = !concerns;
  line.textContent = concerns ? sentence(problem.message) : '';
  input.removeAttribute('aria-invalid');
  if (!concerns) return;
  input.setAttribute('aria-invalid', 'true');
  input.focus();
}

function drawResult(result: ScoreResult, engine: EngineState, { resultTitle }: Parts): void {
  const { overall, elements } = result;
  byId('result', HTMLElement).hidden = false;
  byId('overall-value', HTMLSpanElement).textContent = overall.score.toFixed(2);
  byId('overall-scale', HTMLSpanElement).textContent = `of ${overall.scale[1]}`;
  drawFact('confidence', overall.confidence?.toFixed(2));
  drawFact('probability', overall.probability == null ? undefined : percent(overall.probability));
  const together = result.elements_geometric_mean;
  drawFact('together', together == null || elements.length < 2 ? undefined : percent(together));
  byId('levels', LevelChart).show(overall);
  byId('element-table', ElementTable).show(elements);
  byId('provenance', HTMLDListElement).replaceChildren(
    ...provenance(result, engine).flatMap(([term, text, title]) => [
      make('dt', {}, term),
      make('dd', title === undefined ? {} : { title }, text),
    ]),
  );
  resultTitle.setAttribute('aria-label', `Result: ${overall.score.toFixed(2)} of ${overall.scale[1]}`);
  resultTitle.focus({ preventScroll: true });
  byId('result', HTMLElement).scrollIntoView({ block: 'nearest' });
}

function drawFact(name: 'confidence' | 'probability' | 'together', text: string | undefined): void {
  byId(`${name}-fact`, HTMLDivElement).hidden = text === undefined;
  byId(name, HTMLElement).textContent = text ?? '';
}

function provenance({ model, device, timings_ms, scoring }: ScoreResult, engine: EngineState): [string, string, string?][] {
  const taken = Object.entries(timings_ms).filter(([, ms]) => ms > 0);
  const times = taken.map(([name, ms]) => `${TIMINGS[name] ?? name} ${duration(ms)}`);
  const { preset } = scoring;
  const bytes = engine.phase === 'ready' ? `${size(engine.bytes)}, ` : '';
  const rows: [string, string, string?][] = [
    ['Model', `${model.name}, ${model.architecture}`],
    ['Weights', `${model.quantization}, ${bytes}SHA-256 ${model.sha256.slice(0, 12)}…`, model.sha256],
  ];
  if (engine.phase === 'ready' && engine.known !== null) {
    rows.push(['Known as', `${engine.known.model.name}. ${engine.known.sentence}.`]);
  }
  if (typeof preset === 'string') rows.push(['Read', `${preset}: not tuned on levels, so it is asked yes or no`]);
  rows.push(['Device', device.toUpperCase()]);
  if (engine.phase === 'ready') {
    const { passed, max_difference } = engine.info.selftest;
    const difference = `largest difference ${max_difference.toExponential(1)}`;
    rows.push(['Self-test', `${passed ? 'passed' : 'failed'}, ${difference}`]);
  }
  rows.push(['Time', times.join(' · ')]);
  return rows;
}
