// What each strategy of the paper brings to a small model on records with noisy raters: `scripts/bench ablation`.
//
// One base model learns to see and to answer for a while; from it every variant is tuned on the same records, once
// for each seed, and scored on the same pictures, as they are and under another light. Work is kept in
// runs/ablation, so that an interrupted bench goes on where it stopped. Set IMATCH_SEEDS, IMATCH_RECORDS and
// IMATCH_TEST for other numbers.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const WORK = fileURLToPath(new URL('../../runs/ablation', import.meta.url));
const number = (name, value) => Number(process.env[name] ?? value);
const SEEDS = number('IMATCH_SEEDS', 3);
const RECORDS = number('IMATCH_RECORDS', 1000);
const TEST = number('IMATCH_TEST', 500);
const BASE_STEPS = number('IMATCH_BASE_STEPS', 2400);
const EPOCHS = number('IMATCH_EPOCHS', 3);

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
const imatch = (...args) =>
  execFileSync(process.env.IMATCH_BINARY, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const lines = (path) => readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line));

/** Writes a folder once: under another name first, so that it is whole or not there. */
function once(path, write) {
  if (existsSync(path)) return;
  const partial = `${path}.part`;
  rmSync(partial, { recursive: true, force: true });
  write(partial);
  renameSync(partial, path);
}

const synth = (name, count, seed, ...more) =>
  once(at(name), (out) => imatch('synth', '--out', out, '--count', String(count), '--seed', String(seed), ...more));

/** A run that goes on where it was stopped. */
function train(run, ...args) {
  if (existsSync(join(run, 'model', 'model.safetensors'))) return;
  if (existsSync(join(run, 'run.json'))) imatch('train', '--out', run, '--resume');
  else {
    rmSync(run, { recursive: true, force: true });
    imatch('train', '--out', run, ...args);
  }
}

/** Scores of a set, asked as the variant was taught, keyed as its labels are. */
function scored(model, set, on, out) {
  const records = json(at(set, 'records.json'));
  const named = on.includes('element augmentation');
  const typed = on.includes('prompt type augmentation');
  const list = records.map(({ img_path, prompt, type, element_score }) =>
    JSON.stringify({
      img_path,
      prompt,
      ...(typed && { type }),
      elements: Object.keys(element_score).map((key) => (named ? key : key.slice(0, key.lastIndexOf(' (')))),
    }),
  );
  const asked = at(set, `list-${named}-${typed}.jsonl`);
  writeFileSync(asked, `${list.join('\n')}\n`);
  imatch('score', '--model', model, '--batch', asked, '--out', out);
  return lines(out).map((result, index) => ({
    ...result,
    element_score: Object.fromEntries(
      Object.keys(records[index].element_score).map((key, i) => [key, result.elements[i].score]),
    ),
  }));
}

/** The figures of one set of scores against the truth. */
function figures(results, score, folder) {
  const path = join(folder, 'submission.json');
  const submission = results.map((result) => ({
    img_path: result.img_path,
    prompt: result.prompt,
    total_score: score(result),
    element_score: result.element_score,
  }));
  writeFileSync(path, JSON.stringify(submission));
  return JSON.parse(imatch('eval', '--labels', at('test', 'records.json'), '--predictions', path, '--json'));
}

const expectation = ({ overall }) => overall.score;
const likeliest = ({ overall: { levels } }) =>
  1 + (4 * levels.reduce((best, { probability }, i) => (probability > levels[best].probability ? i : best), 0)) / 14;

/** Trains and scores one variant with one seed, or reads what came out before. */
function measure(name, on, more, seed) {
  const run = at(`${name.replaceAll(/[^a-zA-Z]+/g, '-')}-${seed}`);
  const report = join(run, 'figures.json');
  if (!existsSync(report)) {
    const switches = NAMES.filter((other) => other !== 'validation-set augmentation').flatMap((other) => [
      STRATEGIES[other],
      on.includes(other) ? 'on' : 'off',
    ]);
    const pseudo = on.includes('validation-set augmentation');
    const images = at(`train-${seed}`);
    train(
      run,
      ...['--model', at('base', 'model'), '--records', join(images, 'records.json'), '--images', images],
      ...['--seed', String(seed)],
      ...['--epochs', String(EPOCHS), '--batch', '16', '--micro-batch', '16', '--shards', '2', '--learning-rate', '3e-4'],
      ...switches,
      ...(pseudo
        ? ['--validation', at('validation', 'records.json'), '--validation-images', at('validation'), '--pseudo-label']
        : []),
      ...more,
    );
    const model = join(run, 'model');
    const results = scored(model, 'test', on, join(run, 'test.jsonl'));
    const relit = scored(model, 'relit', on, join(run, 'relit.jsonl'));
    const moved = results.map(({ overall }, i) => Math.abs(overall.score - relit[i].overall.score));
    const drift = moved.reduce((sum, move) => sum + move, 0) / moved.length;
    const all = { expectation: { ...figures(results, expectation, run), drift } };
    if (name === 'QAlign') {
      const hard = results.map((result, i) => Math.abs(likeliest(result) - likeliest(relit[i])));
      all.likeliest = {
        ...figures(results, likeliest, run),
        drift: hard.reduce((sum, move) => sum + move, 0) / hard.length,
      };
    }
    writeFileSync(report, JSON.stringify(all));
    for (const heavy of ['checkpoint', 'teacher', 'model']) rmSync(join(run, heavy), { recursive: true, force: true });
  }
  return json(report);
}

const COLUMNS = ['srcc', 'plcc', 'accuracy', 'final', 'drift'];
function row(name, values) {
  const cell = (column) => {
    const each = values.map((value) => value[column]);
    const mean = each.reduce((sum, value) => sum + value, 0) / each.length;
    const spread = Math.sqrt(each.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, each.length - 1));
    return `${mean.toFixed(4)} ± ${spread.toFixed(4)}`;
  };
  return `| ${name} | ${COLUMNS.map(cell).join(' | ')} |`;
}

mkdirSync(WORK, { recursive: true });
synth('test', TEST, 40_000);
synth('relit', TEST, 40_000, '--light', '1');
synth('validation', RECORDS / 2, 50_000, '--unlabelled');
train(
  at('base'),
  ...['--from-scratch', '--seed', '7', '--steps', String(BASE_STEPS), '--see-steps', String(Math.round(BASE_STEPS / 2))],
  ...['--uncategorised', '0.5', '--untyped', '0.5'],
);
const seeds = Array.from({ length: SEEDS }, (_, index) => index + 1);
for (const seed of seeds)
  synth(`train-${seed}`, RECORDS, 60_000 + seed, ...['--raters', '3', '--rerated', '0.116', '--spread', '0.8', '--flips', '0.15']);
console.log(`| variant | ${COLUMNS.join(' | ')} |\n|---|${COLUMNS.map(() => '---').join('|')}|`);
for (const [name, on, more = []] of VARIANTS) {
  const measured = seeds.map((seed) => measure(name, on, more, seed));
  if (name === 'QAlign') console.log(row('base: the likeliest letter', measured.map((all) => all.likeliest)));
  console.log(row(name, measured.map((all) => all.expectation)));
}
