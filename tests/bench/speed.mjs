// Speed of the demo model natively, in Chromium on the CPU and on WebGPU (SwiftShader where there is no GPU),
// beside the floating-point work that each figure stands for. Figures are medians; only ratios within one run
// compare machines.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { launch, serve } from '../browser/harness.mjs';
import { work } from './parts/work.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MODEL = join(ROOT, 'www/models/shapes');
const BINARY = process.env.IMATCH_BINARY ?? join(ROOT, 'target/release/imatch');
const SAMPLES = JSON.parse(readFileSync(join(ROOT, 'www/samples/samples.json'), 'utf8'));
const sample = (SAMPLES.samples ?? SAMPLES)[0];
const PICTURE = join(ROOT, 'www/samples', sample.file);
const PROMPT = 'a large red circle to the left of two small blue squares';
const ELEMENTS = [
  'circle (shape)',
  'red circle (color)',
  'blue square (color)',
  'two blue squares (counting)',
  'large red circle (attribute)',
  'small blue square (attribute)',
  'red circle left of blue square (spatial)',
  'green star (object)',
];
const REPEATS = 5;

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const flags = (elements) => elements.flatMap((element) => ['--element', element]);
const run = (verb, elements) =>
  JSON.parse(
    execFileSync(
      BINARY,
      [verb, '--model', MODEL, '--image', PICTURE, '--prompt', PROMPT, ...flags(elements), '--json'],
      { encoding: 'utf8' },
    ),
  );

/** Medians of each stage over several runs. */
function summarise(results) {
  const stages = ['load', 'image', 'questions'];
  return Object.fromEntries(stages.map((stage) => [stage, median(results.map((result) => result.timings_ms[stage]))]));
}

async function inBrowser(device) {
  const site = await serve('real');
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.route(`${site.origin}/bench`, (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>bench</title>' }),
    );
    await page.goto(`${site.origin}/bench`);
    const picture = [...readFileSync(PICTURE)];
    return await page.evaluate(
      async ({ device, picture, prompt, elements, repeats }) => {
        const { Evaluator } = await import('/imatch.js');
        const evaluator = await Evaluator.load({ model: '/models/shapes/manifest.json', device, software: true });
        const results = { alone: [], packed: [] };
        for (let i = 0; i <= repeats; i += 1) {
          for (const [kind, list] of [['alone', []], ['packed', elements]]) {
            const open = await evaluator.open(new Blob([new Uint8Array(picture)]));
            const result = await open.score({ prompt, elements: list });
            open.close();
            if (i > 0) results[kind].push(result);
          }
        }
        await evaluator.dispose();
        return results;
      },
      { device, picture, prompt: PROMPT, elements: ELEMENTS, repeats: device === 'gpu' ? 2 : REPEATS },
    );
  } finally {
    await browser.close();
    await site.close();
  }
}

function report(name, { alone, packed }) {
  const [one, nine] = [summarise(alone), summarise(packed)];
  const total = (timings) => timings.image + timings.questions;
  const row = (label, timings) =>
    console.log(
      `${name.padEnd(18)} ${label.padEnd(8)} load ${timings.load.toFixed(0).padStart(6)}  picture ${timings.image.toFixed(1).padStart(8)}  ` +
        `questions ${timings.questions.toFixed(1).padStart(8)} ms`,
    );
  row('overall', one);
  row('and 8', nine);
  console.log(`${name.padEnd(18)} ratio of 1 + 8 packed to 1 alone: ${(total(nine) / total(one)).toFixed(2)}`);
}

const { config } = JSON.parse(readFileSync(join(MODEL, 'manifest.json'), 'utf8'));
const [one, nine] = [[], ELEMENTS].map((elements) => work(config, run('prompt', elements)));
const gflop = ({ vision, decoder }) => vision + decoder;
console.log(
  `work: ${gflop(one).toFixed(3)} GFLOP for the overall question (vision ${one.vision.toFixed(3)}), ` +
    `${gflop(nine).toFixed(3)} with 8 elements; ratio ${(gflop(nine) / gflop(one)).toFixed(2)}`,
);
const native = { alone: [], packed: [] };
for (let i = 0; i < REPEATS; i += 1) {
  native.alone.push(run('score', []));
  native.packed.push(run('score', ELEMENTS));
}
report('native cpu', native);
report('chromium cpu', await inBrowser('cpu'));
report('chromium webgpu', await inBrowser('gpu'));

const files = (folder) =>
  readdirSync(folder, { recursive: true })
    .map((name) => join(folder, name))
    .filter((name) => statSync(name).isFile());
const dist = join(ROOT, 'www/dist');
const sum = (names, size) => names.reduce((total, name) => total + size(name), 0);
const page = files(dist).filter((name) => !/\/(models|samples|types)\//.test(name));
const model = files(join(dist, 'models/shapes'));
const raw = (name) => statSync(name).size;
const packed = (name) => gzipSync(readFileSync(name), { level: 9 }).length;
console.log(`page: ${sum(page, raw)} bytes (${sum(page, packed)} gzipped); demo model: ${sum(model, raw)} bytes`);
