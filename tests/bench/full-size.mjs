// A model of the shape of Qwen3-VL-2B with random weights, about 1.5 GB of Q4_0 and Q8_0, answers natively and in
// Chromium: what loading, the first score and a further question cost in time and memory.
//
//     scripts/bench full-size [FOLDER] [--native-only] [--device gpu|cpu] [--layers N] [--elements N]
//
// The model is written to FOLDER, target/full-size without one, unless it is there. A GPU that is emulated takes hours
// for its answers: with --layers the model keeps its widths and has so many layers in decoder and tower, with --elements
// fewer questions are asked. docs/full-size.md has the figures of a run, and how the answers are compared with transformers.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { PIXELS, configuration, writeModel } from './parts/full-size-model.mjs';
import { measureNative } from './parts/full-size-native.mjs';
import { picture } from './parts/picture.mjs';
import { words } from './parts/vocabulary.mjs';
import { work } from './parts/work.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BINARY = process.env.IMATCH_BINARY ?? join(ROOT, 'target/release/imatch');
// Short, as a software device takes seconds for each token.
const PROMPT = 'sunset';
const ALL_ELEMENTS = [
  'sun',
  'sea',
  'clouds',
  'red sky (color)',
  'beach (location)',
  'two boats (counting)',
  'calm water (attribute)',
  'round sun (shape)',
  'sun above sea (spatial)',
];
/** What the answers of a device may be off the native ones, in probability. */
const LARGEST_DIFFERENCE = { cpu: 1e-5, gpu: 1e-4 };
/** What the wasm heap may take where the weights lie on a GPU. */
const LARGEST_HEAP = 256e6;
/** What may hold the page while a model is loaded; tasks of more than 50 ms are known. */
const LONGEST_TASK_MS = 100;

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      'native-only': { type: 'boolean', default: false },
      device: { type: 'string', multiple: true },
      layers: { type: 'string' },
      elements: { type: 'string', default: String(ALL_ELEMENTS.length) },
    },
  });
  const devices = values.device ?? ['cpu', 'gpu'];
  const wrong = devices.find((device) => !['cpu', 'gpu'].includes(device));
  if (wrong !== undefined) throw new Error(`--device is ${wrong}, expected cpu or gpu`);
  if (positionals.length > 1) throw new Error(`${positionals.length} folders are named, expected one`);
  const elements = ALL_ELEMENTS.slice(0, number('elements', values.elements, ALL_ELEMENTS.length));
  const layers = values.layers === undefined ? undefined : number('layers', values.layers, 28);
  const name = layers === undefined ? 'full-size' : `full-size-${layers}`;
  const folder = positionals[0] ?? join(ROOT, 'target', name);
  return { folder, devices: values['native-only'] ? [] : devices, layers, elements };
}

function number(name, text, most) {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`--${name} is ${text}, expected 1 to ${most}`);
}

/** What is asked of a model about a picture, and the model's input. */
function asked(model, picture, elements, ...more) {
  const flags = ['--prompt', PROMPT, ...elements.flatMap((element) => ['--element', element])];
  const input = ['prompt', '--model', model, '--image', picture, ...flags, '--json', ...more];
  return { flags, input: JSON.parse(execFileSync(BINARY, input, { encoding: 'utf8' })) };
}

/** Refuses questions that the vocabulary was not made for, as they take a token for each letter. */
function checkLengths({ image, questions }) {
  // user, assistant, three ends of lines and five special tokens.
  const around = 10 + image.n_tokens;
  for (const { text, token_ids: ids } of questions) {
    const expected = around + words(text).length;
    if (ids.length !== expected) throw new Error(`"${text}" takes ${ids.length} tokens, expected ${expected}`);
  }
}

/** A cell; empty where a phase did not come to an end. */
const milliseconds = (value) => (Number.isFinite(value) ? value.toFixed(0) : '');
const megabytes = (value) => (Number.isFinite(value) ? (value / 1e6).toFixed(0) : '');
const { folder, devices, layers, elements } = options();
const config = configuration(layers);
const COLUMNS = {
  'download ms': ({ download }) => milliseconds(download),
  'load ms': ({ load }) => milliseconds(load),
  'picture ms': ({ image }) => milliseconds(image),
  'overall and 1 ms': ({ one }) => milliseconds(one),
  'first score ms': ({ image, one }) => milliseconds(image + one),
  [`overall and ${elements.length} ms`]: ({ more }) => milliseconds(more),
  // Weights are unpacked once for all questions, so that what a question adds may be less than the noise.
  'further question ms': ({ one, more }) => (more < one ? 'in the noise' : milliseconds((more - one) / (elements.length - 1))),
  'peak memory MB': ({ memory }) => megabytes(memory),
  'device MB': ({ device }) => megabytes(device),
  'longest task ms': ({ longest }) => milliseconds(longest),
};
const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
const row = (name, figures) => line([name, ...Object.values(COLUMNS).map((show) => show(figures))]);

const probabilities = ({ overall, elements }) => [overall.probability, ...elements.map(({ score }) => score)];

/** How far two results are apart. */
function difference(left, right) {
  const [a, b] = [left, right].map(probabilities);
  if (a.length !== b.length) throw new Error(`${a.length} and ${b.length} answers cannot be compared`);
  return Math.max(...a.map((probability, i) => Math.abs(probability - b[i])));
}

mkdirSync(folder, { recursive: true });
const image = join(folder, 'picture.png');
writeFileSync(image, picture(Math.sqrt(PIXELS)));
// For the comparison with transformers.
writeFileSync(join(folder, 'request.json'), JSON.stringify({ prompt: PROMPT, elements }));

// The demo model is asked in the same words: they make the vocabulary.
const wording = asked(join(ROOT, 'www/models/shapes'), image, ALL_ELEMENTS, '--overall', 'yes_no');
const started = performance.now();
const { bytes, written } = writeModel(folder, config, wording.input.questions.map(({ text }) => text));
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`${folder}: ${(bytes / 1e9).toFixed(2)} GB, ${written ? `written in ${seconds} s` : 'there already'}`);

const model = join(folder, 'decoder.gguf');
const requests = { one: asked(model, image, elements.slice(0, 1)), more: asked(model, image, elements) };
for (const [name, { input }] of Object.entries(requests)) {
  checkLengths(input);
  const { vision, decoder, prefix, read } = work(config, input);
  console.log(
    `overall and ${name === 'one' ? 1 : elements.length}: ${(vision + decoder).toFixed(0)} GFLOP (vision ${vision.toFixed(0)}), ` +
      `${read} tokens, ${prefix} of them shared`,
  );
}

line(['', ...Object.keys(COLUMNS)]);
line(Array(Object.keys(COLUMNS).length + 1).fill('---'));
const native = await measureNative(BINARY, model, image, requests);
row('native, CPU', native.figures);
console.log(`probabilities of yes: ${probabilities(native.result).map((p) => p.toFixed(4)).join(', ')}`);

if (devices.length > 0) {
  const { measureInChromium } = await import('./parts/full-size-browser.mjs');
  const request = { folder, image, devices, prompt: PROMPT, elements };
  for await (const { device, figures, result, failure } of measureInChromium(request)) {
    row(`Chromium, ${device === 'gpu' ? 'WebGPU' : 'CPU'}`, figures);
    if (figures.longest >= LONGEST_TASK_MS) {
      console.error(`${device}: a task held the page for ${figures.longest.toFixed(0)} ms, expected less than ${LONGEST_TASK_MS}`);
      process.exitCode = 1;
    }
    if (device === 'gpu' && figures.memory >= LARGEST_HEAP) {
      console.error(`${device}: the wasm heap takes ${megabytes(figures.memory)} MB, expected less than ${megabytes(LARGEST_HEAP)}`);
      process.exitCode = 1;
    }
    const apart = result && difference(result, native.result);
    if (apart !== undefined)
      console.log(`answers are at most ${apart.toExponential(1)} off the native ones, expected less than ${LARGEST_DIFFERENCE[device]}`);
    if (failure !== undefined) console.error(failure);
    if (failure !== undefined || !(apart < LARGEST_DIFFERENCE[device])) process.exitCode = 1;
  }
}
