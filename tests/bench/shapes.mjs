// What the demo model knows: 2,000 pictures of a seed that training never used, and how far its scores move
// with the precision of its weights. `scripts/bench shapes [RUN]`; the folder of its training run holds the weights
// before quantisation and the log, and is needed for the second part only.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MODEL = fileURLToPath(new URL('../../www/models/shapes', import.meta.url));
const COUNT = Number(process.env.IMATCH_COUNT ?? 2000);
/** Training draws from seed 1 unless told otherwise. */
const SEED = 20_000;

const [run] = process.argv.slice(2);
for (const part of run === undefined ? [] : ['metrics.jsonl', 'model/config.json'])
  if (!existsSync(join(run, part))) throw new Error(`${run} is no run folder, it has no ${part}`);

const folder = mkdtempSync(join(tmpdir(), 'imatch-shapes-'));
const at = (name) => join(folder, name);
const imatch = (...args) =>
  execFileSync(process.env.IMATCH_BINARY, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const lines = (path) => readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A set of scenes with the list of what is asked about them. */
function drawn(...more) {
  const set = mkdtempSync(at('set-'));
  imatch('synth', '--out', set, '--count', String(COUNT), '--seed', String(SEED), ...more);
  const records = JSON.parse(readFileSync(join(set, 'records.json'), 'utf8'));
  const list = records.map(({ img_path, prompt, type, element_score }) =>
    JSON.stringify({ img_path, prompt, type, elements: Object.keys(element_score) }),
  );
  writeFileSync(join(set, 'list.jsonl'), `${list.join('\n')}\n`);
  return { set, records };
}

/** Every picture of a set scored by a model. */
function scored(model, set, out) {
  imatch('score', '--model', model, '--batch', join(set, 'list.jsonl'), '--out', at(out));
  return lines(at(out));
}

function drift(got, want) {
  const differences = (of) => want.flatMap((result, index) => of(result, got[index]));
  const overall = differences((a, b) => Math.abs(a.overall.score - b.overall.score));
  const elements = differences((a, b) => a.elements.map(({ score }, i) => Math.abs(score - b.elements[i].score)));
  const flipped = differences((a, b) => a.elements.map(({ present }, i) => Number(present !== b.elements[i].present)));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const largest = (values) => values.reduce((most, value) => Math.max(most, value), 0);
  return (
    `overall on [1, 5]: mean ${mean(overall).toFixed(4)}, largest ${largest(overall).toFixed(3)}; ` +
    `elements: mean ${mean(elements).toFixed(5)}, largest ${largest(elements).toFixed(3)}, answers changed ${percent(mean(flipped))}`
  );
}

/** The log of a training run as means over so many steps. */
function learned(log, every = 500) {
  const rows = ['| steps | learning rate at the end | auxiliary loss | answers\' loss | elements right |', '|---|---|---|---|---|'];
  for (let from = 0; from < log.length; from += every) {
    const steps = log.slice(from, from + every);
    const mean = (key, show) => {
      const values = steps.map((step) => step[key]).filter((value) => typeof value === 'number');
      return values.length === 0 ? '' : show(values.reduce((sum, value) => sum + value, 0) / values.length);
    };
    const figure = (value) => value.toFixed(3);
    const means = [mean('auxiliary_loss', figure), mean('answer_loss', figure), mean('element_accuracy', percent)];
    const cells = [`${from} to ${from + steps.length - 1}`, steps.at(-1).learning_rate.toExponential(1), ...means];
    rows.push(`| ${cells.join(' | ')} |`);
  }
  return rows.join('\n');
}

try {
  const { set, records } = drawn();
  const results = scored(MODEL, set, 'shipped.jsonl');
  console.log(imatch('eval', '--labels', join(set, 'records.json'), '--predictions', at('shipped.jsonl')).trim());

  const categories = new Map();
  for (const [index, { element_score }] of records.entries())
    for (const [element, [key, truth]] of Object.entries(element_score).entries()) {
      const category = key.slice(key.lastIndexOf('(') + 1, -1);
      for (const name of [category, 'all']) {
        const row = categories.get(name) ?? { asked: 0, present: 0, right: 0 };
        row.asked += 1;
        row.present += truth;
        row.right += Number(results[index].elements[element].present === truth > 0.5);
        categories.set(name, row);
      }
    }
  console.log('\n| category | elements | accuracy | always the same answer |\n|---|---|---|---|');
  for (const [name, { asked, present, right }] of [...categories].toSorted(([a], [b]) => a.localeCompare(b)))
    console.log(`| ${name} | ${asked} | ${percent(right / asked)} | ${percent(Math.max(present, asked - present) / asked)} |`);

  const relit = scored(MODEL, drawn('--light', '1').set, 'relit.jsonl');
  console.log(`\nthe same scenes under another light: ${drift(relit, results)}`);

  if (run !== undefined) {
    const source = join(run, 'model');
    const exact = scored(source, set, 'f32.jsonl');
    for (const quant of ['q8_0', 'q4_0']) {
      imatch('convert', '--model', source, '--quant', quant, '--out', at(quant));
      console.log(`\n${quant} against f32: ${drift(scored(at(quant), set, `${quant}.jsonl`), exact)}`);
    }
    console.log(`\n${learned(lines(join(run, 'metrics.jsonl')))}`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
