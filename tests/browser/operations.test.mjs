// Every operation of the module on WebGPU against burn's own on the CPU, at odd sizes, and a device whose kernels are
// wrong. Needs the real module; runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KINDS, blank, launch, serve } from './harness.mjs';

const PKG = fileURLToPath(new URL('../../www/pkg/', import.meta.url));
/** Rows of left sides: one, fewer than a tile, a tile and one more, several tiles. */
const ROWS = [1, 7, 23, 64, 65, 257];
/** Every stored type with rows that fill whole blocks of it, and floats with rows that fill no vector. */
const WIDTHS = {
  f32: [1, 30, 36, 64, 100],
  f16: [3, 36, 96],
  bf16: [5, 40, 96],
  q8_0: [32, 96, 320],
  q4_0: [32, 96, 320],
  q4_k: [256, 768],
  q5_k: [256, 768],
  q6_k: [256, 768],
};
const ALL_STEPS = { bias: true, scale: true, residual: true };
const FINISHES = [
  ...['none', 'gelu_erf', 'gelu_tanh', 'gate'].map((made) => ({ made, ...ALL_STEPS })),
  { bias: true },
  { residual: true },
];

const CHECKS = {
  'products with every stored type': Object.entries(WIDTHS).flatMap(([stored, widths]) =>
    widths.flatMap((d_in) => ROWS.map((rows) => ({ product: { stored, rows, d_in, d_out: d_in % 3 === 0 ? 65 : 68 } }))),
  ),
  'products of few and of many columns': [1, 4, 31, 64, 68, 200].flatMap((d_out) =>
    ['f32', 'q8_0', 'q6_k'].map((stored) => ({ product: { stored, rows: 33, d_in: 256, d_out } })),
  ),
  'every epilogue': FINISHES.flatMap((finish, index) =>
    [60, 61].map((d_out) => ({
      product: { stored: 'f32', rows: index % 2 ? 9 : 64, d_in: 8, d_out, finish },
    })),
  ),
  norms: [true, false].flatMap((layer) =>
    [1, 36, 40, 101, 1024, 2050].flatMap((width) => [1, 65].map((rows) => ({ norm: { layer, rows, width } }))),
  ),
  'norms of more rows than one direction of a grid has': [{ norm: { layer: false, rows: 70_000, width: 4 } }],
  'attention of patches': [24, 32, 36, 64, 72, 80, 128].flatMap((width) =>
    [1, 23, 65, 257].map((tokens) => ({ joint: { heads: 3, width, tokens, turned: width !== 80 } })),
  ),
  'attention behind a cache': [24, 32, 64, 80, 128].flatMap((width) =>
    [
      { heads: 1, key_heads: 1, past: 1, segments: [1] },
      { heads: 4, key_heads: 2, past: 7, segments: [3, 0, 9] },
      { heads: 6, key_heads: 2, past: 65, segments: [23, 64, 1, 65] },
      { heads: 2, key_heads: 2, past: 300, segments: [0, 17, 0] },
    ].map((sizes, index) => ({ cached: { width, normed: index % 2 === 0, ...sizes } })),
  ),
  'rows added to rows': [
    [41, 64, 3, 30],
    [7, 33, 0, 7],
    [300, 40, 299, 1],
  ].map(([rows, width, start, features]) => ({ add_rows: { rows, width, start, features } })),
};

/** What makes a kernel wrong, one for each text: what is in it, what is taken out and put in, and how loading ends. */
const MISTAKES = [
  ['a product that leaves a vector out', 'fn stage_right', 'right[at + 16u] = t[1];', ''],
  ['a gate that is not one', 'fn silu', 'exp(clamp(-x', 'exp(clamp(x'],
  ['a norm without its epsilon and root', 'inverseSqrt', 'inverseSqrt(', '1.0 / ('],
  ['attention that sees one key too few', 'exp2(', 'info[1]', '(info[1] - 1u)'],
  ['heads that turn the other way', 'cosine', 'a * cosine - b * sine', 'a * cosine + b * sine'],
  ['features one row too late', 'features[', 'info[1]', '(info[1] + 1u)'],
  ['a kernel that does not compile', 'exp2(', 'exp2(', 'exp2(no such word', 'device'],
];

if (KINDS.includes('real'))
  describe('operations on WebGPU', () => {
    let browser, site;
    before(async () => {
      site = await serve('real');
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    for (const [what, checks] of Object.entries(CHECKS))
      test(`${what} are those of the CPU`, { timeout: 600_000 }, async (context) => {
        const { page, seen } = await blank(browser, site);
        await page.route(`${site.origin}/module/**`, (route) =>
          route.fulfill({ path: PKG + new URL(route.request().url()).pathname.split('/').pop() }),
        );
        const differences = await page.evaluate(async (checks) => {
          const { default: init, compare } = await import('/module/imatch.js');
          await init();
          return compare(checks);
        }, checks);
        assert.equal(differences.length, checks.length);
        context.diagnostic(`${checks.length} checks, largest difference ${Math.max(...differences).toExponential(1)}`);
        assert.deepEqual(seen.problems, []);
        await page.close();
      });

    for (const [what, text, right, wrong, expected = 'self_test'] of MISTAKES)
      test(`${what} ends in the error ${expected}`, { timeout: 300_000 }, async () => {
        const { page } = await blank(browser, site);
        await page.route('**/assets/worker-*.js', async (route) => {
          const response = await route.fetch();
          await route.fulfill({ response, body: `(${breakKernels})(${JSON.stringify([text, right, wrong])});\n${await response.text()}` });
        });
        const { error, changed } = await page.evaluate(async () => {
          const channel = new BroadcastChannel('kernels');
          let changed = 0;
          channel.onmessage = () => (changed += 1);
          const { Evaluator } = await import('/imatch.js');
          const options = { model: '/models/shapes/manifest.json', device: 'gpu', software: true };
          const error = await Evaluator.load(options).then(
            () => null,
            ({ code, message }) => ({ code, message }),
          );
          return { error, changed };
        });
        assert.ok(changed > 0, 'no kernel was changed');
        assert.equal(error?.code, expected, `loading ended with ${JSON.stringify(error)}`);
        await page.close();
      });

    test('a picture of 4,096 patches makes no buffer that grows with their square', { timeout: 600_000 }, async () => {
      const { page, seen } = await blank(browser, site);
      await page.route(`${site.origin}/module/**`, (route) =>
        route.fulfill({ path: PKG + new URL(route.request().url()).pathname.split('/').pop() }),
      );
      const largest = await page.evaluate(async (checks) => {
        let largest = 0;
        const { createBuffer } = GPUDevice.prototype;
        GPUDevice.prototype.createBuffer = function (descriptor) {
          largest = Math.max(largest, descriptor.size);
          return createBuffer.call(this, descriptor);
        };
        const { default: init, compare } = await import('/module/imatch.js');
        await init();
        await compare(checks);
        return largest;
      }, [{ joint: { heads: 2, width: 64, tokens: 4096, turned: true } }]);
      // Queries, keys and values, 6.3 MB; a head's scores would take 67 MB.
      assert.ok(largest >= 3 * 2 * 64 * 4096 * 4 && largest < 16e6, `${largest} bytes`);
      assert.deepEqual(seen.problems, []);
      await page.close();
    });
  });

/** Runs in the worker: changes the text of every kernel that has `text` in it. */
function breakKernels([text, right, wrong]) {
  const { createShaderModule } = GPUDevice.prototype;
  const channel = new BroadcastChannel('kernels');
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    if (!descriptor.code.includes(text)) return createShaderModule.call(this, descriptor);
    if (!descriptor.code.includes(right)) throw new Error(`${text} without ${right}`);
    channel.postMessage('changed');
    return createShaderModule.call(this, { ...descriptor, code: descriptor.code.replaceAll(right, wrong) });
  };
}
