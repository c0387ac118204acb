// Every stage of two tiny random models in Chromium, on the CPU and on WebGPU, against transformers:
// the fixtures of tests/parity.rs through the module that the page loads.
// Needs the real module and the command line (IMATCH_BINARY); runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KINDS, blank, launch, serve } from './harness.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const GOLDEN = `${ROOT}tests/golden/`;
const reference = JSON.parse(readFileSync(`${GOLDEN}qwen3_vl_cases/cases.json`, 'utf8'));
/** Largest difference from transformers on each device. */
const TOLERANCE = { cpu: 1e-4, gpu: 3e-4 };

/** The arrays of a safetensors file of f32. */
function arrays(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString('utf8'));
  return Object.fromEntries(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
        assert.equal(dtype, 'F32', name);
        const data = bytes.subarray(8 + length + from, 8 + length + to);
        return [name, { shape, values: new Float32Array(new Uint8Array(data).buffer) }];
      }),
  );
}

function largestDifference(got, want, where) {
  assert.equal(got.length, want.length, `${where}: number of values`);
  return want.reduce((largest, value, index) => {
    const difference = Math.abs(got[index] - value);
    assert.ok(Number.isFinite(difference), `${where}: value ${index} is ${got[index]}`);
    return Math.max(largest, difference);
  }, 0);
}

if (KINDS.includes('real'))
  describe('every stage in Chromium is that of transformers', () => {
    let browser, site, folder;
    before(async () => {
      assert.ok(process.env.IMATCH_BINARY, 'IMATCH_BINARY names the command line that converts the models');
      site = await serve('real');
      browser = await launch();
      folder = mkdtempSync(join(tmpdir(), 'imatch-stages-'));
    });
    after(async () => {
      await browser?.close();
      await site?.close();
      if (folder) rmSync(folder, { recursive: true });
    });

    for (const model of Object.keys(reference.models))
      for (const device of ['cpu', 'gpu'])
        test(`${model} on ${device}`, { timeout: 600_000 }, async (context) => {
          const converted = join(folder, `${model}-${device}`);
          const args = ['convert', '--model', GOLDEN + model, '--quant', 'f32', '--out', converted];
          execFileSync(process.env.IMATCH_BINARY, args);
          const files = readdirSync(converted).map((name) => ({ name, bytes: statSync(join(converted, name)).size }));

          const { page, seen } = await blank(browser, site);
          await page.route(`${site.origin}/stages/**`, (route) => {
            const [, kind, name = ''] = new URL(route.request().url()).pathname.slice(1).split('/');
            if (kind === 'module') return route.fulfill({ path: `${ROOT}www/pkg/${name}` });
            if (kind === 'model') return route.fulfill({ path: join(converted, name) });
            return route.fulfill({ path: `${GOLDEN}qwen3_vl_cases/${name}` });
          });

          const cases = Object.entries(reference.cases).map(([name, { picture, text }]) => ({
            name,
            text,
            file: reference.pictures[picture].file,
          }));
          const traces = await page.evaluate(
            async ({ files, device, cases }) => {
              const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
              const { default: init, Engine, AbortFlag } = await import('/stages/module/imatch.js');
              await init();
              const fetched = new Map();
              const read = async (name, offset, length) => {
                if (!fetched.has(name)) fetched.set(name, await bytes(`/stages/model/${name}`));
                return fetched.get(name).slice(offset, offset + length);
              };
              const flag = new AbortFlag();
              const engine = await Engine.load({ files, device, read }, flag);
              const traces = {};
              for (const { name, text, file } of cases)
                traces[name] = await engine.trace(await bytes(`/stages/picture/${file}`), text);
              engine.free();
              return traces;
            },
            { files, device, cases },
          );

          const expected = arrays(`${GOLDEN}qwen3_vl_cases/${model}.safetensors`);
          let compared = 0;
          let largest = 0;
          for (const [name, { stages }] of Object.entries(reference.models[model].cases)) {
            const trace = traces[name];
            assert.deepEqual(trace.token_ids, reference.cases[name].input_ids, `${name}: token ids`);
            for (const stage of stages) {
              const where = `${model} on ${device}, ${name}: ${stage}`;
              const want = expected[`${name}.${stage}`];
              assert.ok(want, `${where}: the fixture has it`);
              const got =
                stage === 'logits' ? trace.logits : trace.stages.find((traced) => traced.stage === stage)?.values;
              assert.ok(got, `${where}: it was traced`);
              const values =
                stage === 'logits' ? trace.answer_token_ids.map((id) => want.values[id]) : [...want.values];
              const difference = largestDifference(got, values, where);
              assert.ok(difference <= TOLERANCE[device], `${where}: differs by ${difference}`);
              largest = Math.max(largest, difference);
              compared += 1;
            }
          }
          assert.equal(compared, Object.keys(expected).length, 'every array of the fixture is compared');
          context.diagnostic(`largest difference ${largest.toExponential(1)} in ${compared} arrays`);
          assert.deepEqual(seen.problems, []);
          await page.close();
        });
  });
