// What each strategy of the paper brings to a small model on records with noisy raters: `scripts/bench ablation`.
//
// One base model learns to see and to answer for a while; from it every variant is tuned on the same records, once
// for each seed, and scored on the same pictures, as they are and under another light. Variants run side by side,
// one a core. Work is kept in runs/ablation, so that an interrupted bench goes on where it stopped; remove that
// folder after a change of the numbers below or of the program. IMATCH_SEEDS and the like set other numbers.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const WORK = fileURLToPath(new URL('../../runs/ablation', import.meta.url));
const number = (name, value) => Number(process.env[name] ?? value);
const SEEDS = number('IMATCH_SEEDS', 3);
const RECORDS = number('IMATCH_RECORDS', 400);
const TEST = number('IMATCH_TEST', 250);
const BASE_STEPS = number('IMATCH_BASE_STEPS', 1200);
const EPOCHS = number('IMATCH_EPOCHS', 2);

const STRATEGIES = {
  'element augmentation': '--element-augmentation',
  'prompt type augmentation': '--prompt-type-augmentation',
  'image augmentation': '--image-augmentation',
  'score perturbation': '--score-perturbation',
  'validation-set augmentation': '--pseudo-label',
  'paraphrased instructions': '--paraphrase',
};
const NAMES = Object.keys(STRATEGIES);
const VARIANTS = [
  ['QAlign', []],
  ...NAMES.map((name) => [`QAlign + ${name}`, [name]]),
  ['all', NAMES],
  ...NAMES.map((name) => [`all but ${name}`, NAMES.filter((other) => other !== name)]),
  ['QAlign, soft labels', [], ['--soft-labels']],
];

const at = (...names) => join(WORK, ...names);
const run = promisify(execFile);
const MAX_OUTPUT = 2 ** 26;
// What was started ends with this program, so that no two write to one folder.
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort());
/** The command line on so many threads; its output. */
async function imatch(threads, ...args) {
  const env = { ...process.env, RAYON_NUM_THREADS: String(threads) };
  const options = { encoding: 'utf8', env, maxBuffer: MAX_OUTPUT, signal: stop.signal };
  return (await run(process.env.IMATCH_BINARY, args, options)).stdout;
}
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const lines = (path) => readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line));

/** A set of scenes and, for each way of asking, the list of what is asked about them. */
async function synth(name, count, seed, ...more) {
  const out = at(name);
  if (existsSync(out)) return;
  // Under another name first, so that it is whole or not there.
  const partial = `${out}.part`;
  rmSync(partial, { recursive: true, force: true });
  await imatch(1, 'synth', '--out', partial, '--count', String(count), '--seed', String(seed), ...more);
  const records = json(join(partial, 'records.json'));
  for (const named of [false, true])
    for (const typed of [false, true]) {
      const list = records.map(({ img_path, prompt, type, element_score }) =>
        JSON.stringify({
          img_path,
          prompt,
          ...(typed && { type }),
          elements: Object.keys(element_score).map((key) => (named ? key : key.slice(0, key.lastIndexOf(' (')))),
        }),
      );
      writeFileSync(join(partial, listName(named, typed)), `${list.join('\n')}\n`);
    }
  renameSync(partial, out);
}

const listName = (named, typed) => `${named ? 'named' : 'bare'}-${typed ? 'typed' : 'untyped'}.jsonl`;

/** A training run that goes on where it was stopped. */
async function train(folder, threads, ...args) {
  if (existsSync(join(folder, 'model', 'model.safetensors'))) return;
  if (existsSync(join(folder, 'run.json'))) await imatch(threads, 'train', '--out', folder, '--resume');
  else {
    rmSync(folder, { recursive: true, force: true });
    await imatch(threads, 'train', '--out', folder, '--shards', String(threads), ...args);
  }
}

/** Scores of a set, asked as the variant was taught, keyed as its labels are. */
async function scored(model, set, on, out) {
  const records = json(at(set, 'records.json'));
  const list = listName(on.includes('element augmentation'), on.includes('prompt type augmentation'));
  await imatch(1, 'score', '--model', model, '--batch', at(set, list), '--out', out);
  const results = lines(out);
  if (results.length !== records.length || results.some(({ img_path }, index) => img_path !== records[index].img_path))
    throw new Error(`${out} does not follow the records of ${set}; remove it and start again`);
  return results.map((result, index) => ({
    ...result,
    element_score: Object.fromEntries(
      Object.keys(records[index].element_score).map((key, i) => [key, result.elements[i].score]),
    ),
  }));
}

/** The figures of one set of scores against the truth. */
async function figures(results, score, folder) {
  const path = join(folder, 'submission.json');
  const submission = results.map((result) => ({
    img_path: result.img_path,
    prompt: result.prompt,
    total_score: score(result),
    element_score: result.element_score,
  }));
  writeFileSync(path, JSON.stringify(submission));
  return JSON.parse(await imatch(1, 'eval', '--labels', at('test', 'records.json'), '--predictions', path, '--json'));
}

const expectation = ({ overall }) => overall.score;
const likeliest = ({ overall: { levels } }) =>
  1 + (4 * levels.reduce((best, { probability }, i) => (probability > levels[best].probability ? i : best), 0)) / 14;

/** Trains and scores one variant with one seed, or reads what came out before. */
async function measure(name, on, more, seed) {
  const folder = at(`${name.replaceAll(/[^a-zA-Z]+/g, '-')}-${seed}`);
  const report = join(folder, 'figures.json');
  if (!existsSync(report)) {
    const switches = NAMES.filter((other) => other !== 'validation-set augmentation').flatMap((other) => [
      STRATEGIES[other],
      on.includes(other) ? 'on' : 'off',
    ]);
    const pseudo = on.includes('validation-set augmentation');
    const images = at(`train-${seed}`);
    await train(
      folder,
      1,
      ...['--model', at('base', 'model'), '--records', join(images, 'records.json'), '--images', images],
      ...['--seed', String(seed)],
      ...['--epochs', String(EPOCHS), '--batch', '16', '--micro-batch', '16', '--learning-rate', '3e-4'],
      ...switches,
      ...(pseudo
        ? ['--validation', at('validation', 'records.json'), '--validation-images', at('validation'), '--pseudo-label']
        : []),
      ...more,
    );
    const model = join(folder, 'model');
    const results = await scored(model, 'test', on, join(folder, 'test.jsonl'));
    const relit = await scored(model, 'relit', on, join(folder, 'relit.jsonl'));
    const moved = results.map(({ overall }, i) => Math.abs(overall.score - relit[i].overall.score));
    const drift = moved.reduce((sum, move) => sum + move, 0) / moved.length;
    const all = { expectation: { ...(await figures(results, expectation, folder)), drift } };
    if (name === 'QAlign') {
      const hard = results.map((result, i) => Math.abs(likeliest(result) - likeliest(relit[i])));
      all.likeliest = {
        ...(await figures(results, likeliest, folder)),
        drift: hard.reduce((sum, move) => sum + move, 0) / hard.length,
      };
    }
    writeFileSync(`${report}.part`, JSON.stringify(all));
    renameSync(`${report}.part`, report);
  }
  for (const heavy of ['checkpoint', 'teacher', 'model']) rmSync(join(folder, heavy), { recursive: true, force: true });
  return json(report);
}

const COLUMNS = ['srcc', 'plcc', 'accuracy', 'final', 'drift'];
/** Mean and sample deviation over the seeds; a figure may be undefined, as a correlation with a constant is. */
function spread(values, digits = 4) {
  if (!values.every(Number.isFinite)) return 'undefined';
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return `${mean.toFixed(digits)} ± ${Math.sqrt(squares / Math.max(1, values.length - 1)).toFixed(digits)}`;
}

/** One line of the table; the last cell compares the final score with another variant's, seed by seed. */
function row(name, values, other, others) {
  const cells = COLUMNS.map((column) => spread(values.map((value) => value[column])));
  const gains = others && spread(values.map(({ final }, seed) => final - others[seed].final));
  return `| ${[name, ...cells, gains ? `${gains} (${other})` : ''].join(' | ')} |`;
}

mkdirSync(WORK, { recursive: true });
const cores = availableParallelism();
const seeds = Array.from({ length: SEEDS }, (_, index) => index + 1);
const raters = ['--raters', '3', '--rerated', '0.116', '--spread', '0.8', '--flips', '0.15'];
await synth('test', TEST, 40_000);
await synth('relit', TEST, 40_000, '--light', '1');
await synth('validation', RECORDS / 2, 50_000, '--unlabelled');
for (const seed of seeds) await synth(`train-${seed}`, RECORDS, 60_000 + seed, ...raters);
await train(
  at('base'),
  cores,
  ...['--from-scratch', '--seed', '7', '--steps', String(BASE_STEPS), '--see-steps', String(Math.round(BASE_STEPS * 0.4))],
  ...['--uncategorised', '0.5', '--untyped', '0.5'],
);

// One worker a core takes the next variant and seed until none is left.
const jobs = VARIANTS.flatMap(([name, on, more = []]) => seeds.map((seed) => [name, on, more, seed]));
const measured = new Map();
const next = jobs.values();
async function work() {
  for (const [name, on, more, seed] of next) {
    const all = await measure(name, on, more, seed);
    measured.set(`${name} ${seed}`, all);
    console.error(`${name}, seed ${seed}: SRCC ${all.expectation.srcc}`);
  }
}
try {
  await Promise.all(Array.from({ length: cores }, work));
} finally {
  stop.abort();
}

const of = (name, reading = 'expectation') => seeds.map((seed) => measured.get(`${name} ${seed}`)[reading]);
console.log(`| variant | ${COLUMNS.join(' | ')} | final, change from |\n|---|${COLUMNS.map(() => '---').join('|')}|---|`);
console.log(row('base: the likeliest letter', of('QAlign', 'likeliest')));
for (const [name] of VARIANTS) {
  if (name === 'QAlign') console.log(row(name, of(name), 'base', of(name, 'likeliest')));
  else {
    const other = name.startsWith('all but') ? 'all' : 'QAlign';
    console.log(row(name, of(name), other, of(other)));
  }
}
