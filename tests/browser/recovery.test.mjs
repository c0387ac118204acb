// Devices that fail while scoring: one fresh start, and never a score from a device that has reported an error.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { blank, launch, serve } from './harness.mjs';

let browser, site;
before(async () => {
  site = await serve('mock');
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

/** Loads on `device`, opens a picture, and asks about it with each of the prompts together; then once more. */
async function ask(device, prompts) {
  const { page, seen } = await blank(browser, site);
  const outcomes = await page.evaluate(
    async ([device, prompts]) => {
      const { Evaluator } = await import('/imatch.js');
      const evaluator = await Evaluator.load({ model: '/models/shapes/manifest.json', device });
      const picture = await evaluator.open(await (await fetch('/samples/four-triangles.png')).blob());
      const outcome = (prompt) =>
        picture.score({ prompt, elements: [] }).then(
          ({ overall, device }) => ({ score: overall.score, device }),
          ({ code, message }) => ({ code, message }),
        );
      const together = await Promise.all(prompts.map(outcome));
      const { closed } = evaluator;
      const last = await outcome('a red circle');
      await evaluator.dispose();
      return { together, last, closed, after: evaluator.closed };
    },
    [device, prompts],
  );
  // Each scorer's script is asked for once, and its headers once more.
  const scorers = seen.requests.filter((url) => /\/worker-[^/]*\.js$/.test(url)).length;
  await page.close();
  return { ...outcomes, scorers, models: seen.requests.filter((url) => url.endsWith('.gguf')).length };
}

test('a device that is lost once is started again, with the same model and picture', async () => {
  const undisturbed = await ask('cpu', ['a blue star']);
  const { together, last, closed, scorers, models } = await ask('cpu', [
    'a blue star !lost-once',
    'a blue star',
    'two squares',
  ]);
  assert.ok(
    together.every(({ score }) => score >= 1 && score <= 5),
    JSON.stringify(together),
  );
  assert.equal(together[1].score, undisturbed.together[0].score);
  assert.ok(last.score >= 1);
  assert.equal(closed, false);
  assert.deepEqual([scorers - undisturbed.scorers, models], [1, 1], 'another scorer, with the files that were there');
});

for (const [word, code, message] of [
  ['!lost', 'device_lost', 'the device was lost: pretended'],
  ['!crash', 'internal', 'the scoring program stopped: unreachable'],
  ['!trap', 'internal', 'the scoring program stopped: unreachable'],
])
  test(`a request that fails a second time fails (${word}), and the next one is answered`, async () => {
    const { together, last, closed } = await ask('cpu', [`a red circle ${word}`]);
    assert.deepEqual(together, [{ code, message }]);
    assert.equal(closed, true);
    assert.ok(last.score >= 1, JSON.stringify(last));
  });

for (const [word, code, message] of [
  ['!destroyed', 'device_lost', /^the GPU device was lost/],
  ['!invalid', 'device', /^the GPU reported an error: /],
  ['!memory', 'out_of_memory', /^the GPU ran out of memory: pretended$/],
])
  test(`a result of a device that reported an error is not shown (${word})`, async () => {
    const { together, closed } = await ask('gpu', [`a red circle ${word}`, 'a blue star']);
    assert.equal(together[0].code, code, JSON.stringify(together));
    assert.match(together[0].message, message);
    assert.doesNotMatch(together[0].message, /\n/);
    // What was asked together with it fails with it, but for a loss, after which it has a second chance.
    if (code !== 'device_lost') assert.equal(together[1].code, code);
    assert.equal(closed, true);
  });

test('a fresh start ends with its evaluator', async () => {
  const { page } = await blank(browser, site);
  const { outcome, loading, ending } = await page.evaluate(async () => {
    const { Evaluator } = await import('/imatch.js');
    const started = performance.now();
    const evaluator = await Evaluator.load({ model: '/models/slow/manifest.json', device: 'cpu' });
    const loading = performance.now() - started;
    const picture = await evaluator.open(await (await fetch('/samples/four-triangles.png')).blob());
    const fresh = new Promise((resolve) => {
      window.Worker = class extends Worker {
        constructor(...args) {
          super(...args);
          resolve();
        }
      };
    });
    const lost = picture.score({ prompt: 'a blue star !lost-once', elements: [] }).catch(({ message }) => message);
    await fresh;
    const disposed = performance.now();
    await evaluator.dispose();
    return { outcome: await lost, loading, ending: performance.now() - disposed };
  });
  assert.match(outcome, /^the device was lost: .*; starting afresh failed: stopped on request$/);
  assert.ok(ending < loading / 2, `${ending} ms, loading took ${loading}`);
  await page.close();
});

test('what will fit is said plainly', async () => {
  const { page } = await blank(browser, site);
  const [small, wide, huge, none] = await page.evaluate(async () => {
    const { fit } = await import('/imatch.js');
    const MiB = 1024 ** 2;
    const limits = { maxStorageBufferBindingSize: 1024 * MiB, maxBufferSize: 256 * MiB };
    const gpu = { webgpu: true, adapter: { limits }, device: 'gpu', reason: null };
    const cpu = { webgpu: false, adapter: null, device: 'cpu', reason: 'this browser has no WebGPU' };
    const model = (binding, bytes) => ({
      name: 'qwen',
      quantization: 'q8_0',
      device_bytes: { gpu: bytes, cpu: bytes },
      largest_binding_bytes: binding,
      host_bytes: MiB,
    });
    return [
      fit(model(256 * MiB, 4e9), gpu),
      fit(model(256 * MiB + 1, 1e9), gpu),
      fit(model(600e6, 9e9), gpu),
      fit(model(1, 5e6), cpu),
    ];
  });
  assert.deepEqual(small, {
    device: 'gpu',
    sentence: 'qwen fits the GPU’s limits and takes about 4.0 GB of its memory.',
  });
  assert.equal(wide.device, 'cpu');
  assert.match(
    wide.sentence,
    /^qwen will run on the CPU with about 1\.0 GB of memory: its largest tensor takes 269 MB, and this GPU binds 269 MB at most\.$/,
  );
  assert.equal(huge.device, null);
  assert.match(
    huge.sentence,
    /^qwen does not fit: its largest tensor takes 600 MB, .* on the CPU it takes 9\.0 GB of the 3\.2 GB that a tab can hold\. A smaller quantisation, such as q4_0, may fit\.$/,
  );
  assert.equal(none.sentence, 'qwen will run on the CPU with about 7 MB of memory: this browser has no WebGPU.');
  await page.close();
});
