// What scoring asks of WebGPU: calls of each phase, encoding on the CPU, and the speed of every product.
//
//     scripts/bench gpu [--model demo|mid|full] [--layers 3] [--folder FOLDER] [--pkg FOLDER] [--limit SECONDS]
//                       [--hardware] [--json FILE]
//
// Without --model the demo model, `mid` (54.5 million parameters, 8-bit weights) and `full` (the widths of
// Qwen3-VL-2B with --layers layers in decoder and tower, 3 without the flag) run one after the other. --folder has
// other files for the one model that is named, --pkg another build of the module than www/pkg. The GPU is SwiftShader
// unless --hardware is given. What takes longer than --limit seconds, 600 without the flag, is given up; with a limit
// of 0 nothing is scored on the GPU and only calls and encoding are measured.
//
// The module runs in a page, one call after the other: the model is loaded, a picture is opened and scored with an
// overall question and eight elements (`first`), and scored again with another prompt (`second`). Then both are done
// with a timestamp before and after every dispatch, and at last with stand-ins for everything that reaches the GPU.
//
// Columns: `wall ms` is the phase as it ran, readback included; a phase without a map ends while the GPU still works.
// `GPU ms` adds up the times of its dispatches. `stubbed ms` is the best of five with stand-ins: encoding and the rest
// of the work on the CPU, such as decoding the picture and reading rows of the embedding table; `us/dispatch` is that
// time for each dispatch. GFLOP are 2 M K N for a product and 4 x queries x keys x width for a head of attention, other
// kernels not counted; GFLOP/s are of the best dispatch of a size.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measure } from './parts/gpu-browser.mjs';
import { MODELS, withoutGolden } from './parts/gpu-models.mjs';
import { summarise } from './parts/gpu-summary.mjs';
import { print } from './parts/gpu-tables.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

function options() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string' },
      layers: { type: 'string', default: '3' },
      folder: { type: 'string' },
      pkg: { type: 'string', default: join(ROOT, 'www/pkg') },
      limit: { type: 'string', default: '600' },
      hardware: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  });
  if (values.model !== undefined && MODELS[values.model] === undefined)
    throw new Error(`--model is ${values.model}, expected ${Object.keys(MODELS).join(', ')}`);
  if (values.folder !== undefined && values.model === undefined) throw new Error('--folder needs --model');
  return {
    ...values,
    models: values.model === undefined ? Object.keys(MODELS) : [values.model],
    layers: number('layers', values.layers, 1, 28),
    limit: number('limit', values.limit, 0, 86_400),
    pkg: resolve(values.pkg),
  };
}

function number(name, text, least, most) {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new Error(`--${name} is ${text}, expected ${least} to ${most}`);
}

const digest = (path) => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Digests of the files of weights, so that the module need not compute them. */
function digests(files) {
  const weights = Object.entries(files).filter(([name]) => /\.(gguf|safetensors)$/.test(name));
  return Object.fromEntries(weights.map(([name, path]) => [name, digest(path)]));
}

const { models, layers, folder, pkg, limit, hardware, json } = options();
// Ends the browser too, by the handler that Playwright has for the end of this program.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
const module = digest(join(pkg, 'imatch_bg.wasm'));
const summaries = [];
for (const name of models) {
  const model = MODELS[name](folder, layers);
  const files = { files: model.files, untested: withoutGolden(model.files), digests: digests(model.files) };
  const measured = await measure({ ...model, ...files, pkg, limit, hardware });
  const summary = { model: model.name, module, ...summarise(measured) };
  print(summary);
  summaries.push(summary);
  if (measured.failures.length > 0) process.exitCode = 1;
}
if (json !== undefined) writeFileSync(json, JSON.stringify(summaries, null, 1));
