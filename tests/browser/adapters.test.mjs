// Adapters that this machine does not have: the page on an adapter with other subgroup sizes, or with no more than the
// limits that every WebGPU adapter has. The scorer's worker is told so by a few lines before its script; the page, the
// worker and the module are those that are shipped. Kernels have to compute the same on all of them.
// Needs the real module; runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { KINDS, idle, launch, score, serve, takeSample, visit } from './harness.mjs';

/** A GPU that is emulated takes its time. */
const TIMEOUT = 300_000;
/** Largest differences in a score or probability: between adapters, and from the CPU. */
const SAME = 1e-5;
const CLOSE = 1e-3;

/** The default limits of WebGPU that bind compute shaders. */
const DEFAULTS = {
  maxBindGroups: 4,
  maxBindingsPerBindGroup: 1000,
  maxBufferSize: 256 * 1024 * 1024,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeWorkgroupsPerDimension: 65_535,
  maxDynamicStorageBuffersPerPipelineLayout: 4,
  maxDynamicUniformBuffersPerPipelineLayout: 8,
  maxStorageBufferBindingSize: 128 * 1024 * 1024,
  maxStorageBuffersPerShaderStage: 8,
  maxUniformBufferBindingSize: 64 * 1024,
  maxUniformBuffersPerShaderStage: 12,
  minStorageBufferOffsetAlignment: 256,
  minUniformBufferOffsetAlignment: 256,
};

/** Runs in the scorer's worker before its script, and leaves there what the script then saw. */
function pretend({ subgroups, limits }) {
  const seen = { adapters: 0, reads: {}, devices: [] };
  self.seen = seen;
  const natively = {};
  const replace = ({ prototype }, values) => {
    for (const [name, value] of Object.entries(values)) {
      natively[name] = Object.getOwnPropertyDescriptor(prototype, name).get;
      seen.reads[name] = 0;
      const get = () => {
        seen.reads[name] += 1;
        return value;
      };
      Object.defineProperty(prototype, name, { configurable: true, get });
    }
  };
  replace(GPUAdapterInfo, subgroups);
  replace(GPUSupportedLimits, limits);
  const { requestAdapter } = GPU.prototype;
  GPU.prototype.requestAdapter = function (options) {
    seen.adapters += 1;
    return requestAdapter.call(this, options);
  };
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    const asked = { ...descriptor.requiredLimits };
    // A device that was asked for nothing beyond them has the default limits, and the browser holds it to them.
    const few = Object.keys(limits).length === 0 ? descriptor : { ...descriptor, requiredLimits: {} };
    const device = await requestDevice.call(this, few);
    const granted = Object.keys(limits).map((name) => [name, natively[name].call(device.limits)]);
    seen.devices.push({ asked, granted: Object.fromEntries(granted) });
    return device;
  };
}

const ADAPTERS = [
  ...[4, 8, 16, 32, 64].map((size) => ({
    name: `with subgroups of ${size}`,
    subgroups: { subgroupMinSize: size, subgroupMaxSize: size },
    limits: {},
  })),
  { name: 'with the default limits', subgroups: {}, limits: DEFAULTS },
];

if (KINDS.includes('real'))
  describe('load, self-test and a score with the demo model give the same scores on every adapter', () => {
    let browser, site;
    const found = new Map();
    before(async () => {
      site = await serve('real');
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    /** Scores the first sample on the page: the numbers, what the page says of them, and what the worker saw. */
    async function run(path, adapter) {
      const { page, seen, context } = await visit(browser, site.origin, path, {
        wait: false,
        permissions: ['clipboard-read', 'clipboard-write'],
        before: (context) => adapter && context.route('**/assets/worker-*.js', (route) => instead(route, adapter)),
      });
      await idle(page, TIMEOUT);
      const status = await page.locator('#device-status').textContent();
      assert.deepEqual(seen.problems, [], status);
      await takeSample(page);
      await score(page, TIMEOUT);
      const provenance = await page.locator('#provenance').textContent();
      await page.locator('#copy').click();
      await page.locator('#copy', { hasText: 'Copied' }).waitFor();
      const result = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
      const scorers = page.workers().filter((worker) => /\/worker-[^/]*\.js$/.test(worker.url()));
      assert.equal(scorers.length, 1);
      const there = await scorers[0].evaluate(() => self.seen);
      assert.deepEqual(seen.problems, []);
      await context.close();
      return { status, provenance, result, there };
    }

    async function instead(route, { subgroups, limits }) {
      const response = await route.fetch();
      const first = `(${pretend})(${JSON.stringify({ subgroups, limits })});\n`;
      await route.fulfill({ response, body: first + (await response.text()) });
    }

    for (const adapter of ADAPTERS)
      test(`an adapter ${adapter.name}`, { timeout: 2 * TIMEOUT }, async () => {
        const { status, provenance, result, there } = await run('/?software=1', adapter);
        assert.equal(status, 'Ready on the GPU.');
        assert.match(provenance, /Self-testpassed/);
        assert.notEqual(result.device, 'cpu');
        assert.ok(there.adapters > 1, 'the preflight asked for an adapter, and so did the module');
        // The module alone reads the sizes of subgroups; other code in between would keep it from that.
        const { subgroups, limits } = adapter;
        for (const name of Object.keys({ ...subgroups, ...limits })) assert.ok(there.reads[name] > 0, `${name} was read`);
        assert.equal(there.devices.length, 1);
        const [{ asked, granted }] = there.devices;
        assert.deepEqual(granted, limits, 'the browser holds the device to them');
        for (const [name, limit] of Object.entries(limits))
          assert.ok(asked[name] === undefined || asked[name] === limit, `the module asked for ${name} ${asked[name]}`);
        found.set(adapter.name, numbers(result));
      });

    test('all agree, and so does the CPU', { timeout: 2 * TIMEOUT }, async () => {
      const { status, result } = await run('/?device=cpu');
      assert.match(status, /^Ready on the CPU/);
      const want = numbers(result);
      assert.deepEqual([...found.keys()], ADAPTERS.map(({ name }) => name), 'every adapter scored');
      for (const [name, got] of found) {
        assert.ok(difference(got, want) <= CLOSE, `${name}: ${difference(got, want)} from the CPU`);
        for (const [other, numbers] of found)
          assert.ok(difference(got, numbers) <= SAME, `${name}: ${difference(got, numbers)} from one ${other}`);
      }
    });
  });

function numbers({ overall, elements }) {
  return [overall.score, ...overall.levels.map(({ probability }) => probability), ...elements.map(({ score }) => score)];
}

function difference(one, other) {
  assert.equal(one.length, other.length);
  assert.ok(one.length > 16 && one.every(Number.isFinite));
  return Math.max(...one.map((value, index) => Math.abs(value - other[index])));
}
