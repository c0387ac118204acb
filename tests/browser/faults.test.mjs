// What goes wrong, on the pretended wasm module, which fails when asked to (www/mock/imatch.ts).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { idle, launch, score, scored, serve, takeSample, visit } from './harness.mjs';

let browser, site;
before(async () => {
  site = await serve('mock');
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

const open = (path, options) => visit(browser, site.origin, path, options);
const model = (name) => `/?model=models/${name}/manifest.json`;
const text = (page, id) => page.locator(`#${id}:visible`).textContent();

async function ask(page, prompt) {
  await takeSample(page);
  await page.locator('#prompt').fill(prompt);
  await page.locator('#score').click();
}

test('Escape stops a score at once and the next one works', async () => {
  const { page, seen, context } = await open('/?device=cpu');
  await ask(page, 'a red circle !slow');
  await page.locator('#progress', { hasText: 'Answering the questions' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'cancel');
  await page.keyboard.press('Escape');
  await page.locator('#score:visible').waitFor({ timeout: 1000 });
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'score');
  assert.equal(await page.locator('#announcer').textContent(), 'Stopped');
  assert.equal(await page.locator('#result').isVisible(), false);
  await page.locator('#prompt').fill('a red circle');
  await score(page, 3000);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('what is scored is what stood in the form at the click, and later changes make the result an old one', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await context.route('**/models/shapes/model.gguf', (route) => held.then(() => route.continue()));
  await page.goto(`${site.origin}/?device=cpu`);
  await takeSample(page);
  await page.locator('#prompt').fill('a red circle');
  await page.locator('#score').click();
  await page.locator('#prompt').fill('a blue star');
  release();
  await scored(page);
  assert.equal(await page.locator('#stale').isVisible(), true, 'the form was changed while the model was loading');
  const got = await text(page, 'overall-value');
  await score(page);
  assert.notEqual(await text(page, 'overall-value'), got);
  await page.locator('#prompt').fill('a red circle');
  // At once, so that the result cannot come before the changes.
  const running = await page.evaluate(() => {
    document.querySelector('#score').click();
    const prompt = document.querySelector('#prompt');
    for (const text of ['', 'a red circle']) {
      prompt.value = text;
      prompt.dispatchEvent(new InputEvent('input', { bubbles: true }));
    }
    return !document.querySelector('#cancel').hidden;
  });
  assert.equal(running, true);
  await scored(page);
  assert.equal(await text(page, 'overall-value'), got);
  assert.equal(await page.locator('#stale').isVisible(), false, 'the form is again what was asked');
  await context.close();
});

test('Cancel stops loading, and scoring loads again', async () => {
  const { page, context } = await open(`${model('slow')}&device=cpu`, { wait: false });
  await page.locator('#cancel:visible').click();
  assert.match(await text(page, 'device-status'), /not loaded yet/);
  await takeSample(page);
  await page.locator('#score').click();
  await page.locator('#progress', { hasText: 'Moving the model' }).waitFor({ timeout: 20_000 });
  await context.close();
});

for (const [word, what] of [
  ['!trap', 'a trap in a call'],
  ['!crash', 'a panic in a future'],
]) {
  test(`${what} is an error of its own and the next score starts a new worker`, async () => {
    const { page, context } = await open('/?device=cpu');
    await ask(page, `a red circle ${word}`);
    assert.match(await text(page, 'problem'), /^Something broke inside imatch/);
    await page.locator('#prompt').fill('a red circle');
    await score(page);
    assert.equal(await page.locator('#problem').isVisible(), false);
    await context.close();
  });
}

test('a lost device is said, the CPU is offered and takes over', async () => {
  const { page, seen, context } = await open('/?device=gpu');
  assert.equal(await text(page, 'device-status'), 'Ready on the GPU.');
  await ask(page, 'a red circle !lost');
  assert.match(await text(page, 'problem'), /^The GPU stopped working/);
  await page.locator('#problem button').click();
  await page.locator('#device-status', { hasText: 'Ready on the CPU: the CPU was chosen.' }).waitFor();
  assert.equal(await page.locator('input[name=device]:checked').inputValue(), 'cpu');
  await page.locator('#prompt').fill('a red circle');
  await score(page);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

for (const name of ['gpu-fails', 'gpu-crashes']) {
  test(`automatic falls back to the CPU and says why (${name})`, async () => {
    const { page, seen, context } = await open(`${model(name)}&software=1`);
    assert.match(
      await text(page, 'device-status'),
      /^Ready on the CPU: the GPU was tried and failed \(pretended failure on gpu\)\.$/,
    );
    assert.deepEqual(seen.problems, []);
    await context.close();
  });
}

test('where the GPU and the CPU fail, the page is told of both', async () => {
  const { page, context } = await open('/?device=cpu');
  const failed = await page.evaluate(async () => {
    const { Evaluator } = await import('/imatch.js');
    const loading = Evaluator.load({ model: '/models/both-fail/manifest.json', software: true });
    return loading.catch(({ code, message, device }) => ({ code, message, device }));
  });
  const message = 'pretended failure on cpu; before that, the GPU was tried and failed (pretended failure on gpu)';
  assert.deepEqual(failed, { code: 'self_test', message, device: 'cpu' });
  await context.close();
});

test('a GPU chosen by hand that fails its self-test is not replaced behind the back', async () => {
  const { page, context } = await open(`${model('gpu-fails')}&device=gpu`);
  assert.match(await text(page, 'problem'), /^This device computes wrong results/);
  assert.equal(await page.locator('input[name=device]:checked').inputValue(), 'gpu');
  await takeSample(page);
  assert.equal(await page.locator('#problem').isVisible(), true, 'an edit does not mend a device');
  await context.close();
});

test('an emulated GPU is left alone by automatic, with the reason', async () => {
  const { page, context } = await open('/');
  assert.match(
    await text(page, 'device-status'),
    /^Ready on the CPU: the only graphics adapter is emulated on the CPU/,
  );
  await context.close();
});

test('without WebGPU the CPU runs and the page says why', async () => {
  const bare = await launch({ webgpu: false });
  const { page, context } = await visit(bare, site.origin, '/');
  assert.match(await text(page, 'device-status'), /^Ready on the CPU: this browser has /);
  await context.close();
  await bare.close();
});

for (const [name, pattern] of [
  ['damaged', /^The model’s files are not the promised ones.*model\.gguf: 4096 bytes, the manifest promises 4103/i],
  ['missing', /^The model could not be fetched.*model\.gguf: the server answered 404/i],
  ['nowhere', /^The model could not be fetched.*manifest\.json: the server answered 404/i],
]) {
  test(`a model that is ${name} is an error in plain words`, async () => {
    const { page, context } = await open(`${model(name)}&device=cpu`);
    assert.match(await text(page, 'problem'), pattern);
    await context.close();
  });
}

test('a manifest cannot lead outside its folder', async () => {
  const { page, context } = await open('/', { wait: false });
  const manifest = JSON.stringify({ files: [{ path: '../shapes/model.gguf', bytes: 4096 }] });
  await context.route('**/models/evil/manifest.json', (route) => route.fulfill({ body: manifest }));
  await page.goto(`${site.origin}${model('evil')}&device=cpu`);
  assert.match(await text(page, 'problem'), /leads outside the model's folder/);
  await context.close();
});

test('bad input found by the engine is shown as it says it', async () => {
  const { page, context } = await open('/?device=cpu');
  await ask(page, 'a red circle !fail');
  assert.match(await text(page, 'problem'), /The prompt is longer than the 1024 positions of the model\.$/);
  await context.close();
});

test('switching devices back and forth ends on the last choice', async () => {
  const { page, seen, context } = await open('/?device=cpu');
  for (const device of ['gpu', 'cpu', 'gpu', 'cpu'])
    await page.locator(`input[value=${device}]`).check({ force: true });
  await page.locator('#device-status', { hasText: 'Ready on the CPU: the CPU was chosen.' }).waitFor();
  await takeSample(page);
  await score(page);
  assert.match(await page.locator('#provenance').textContent(), /DeviceCPU/);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('an overall question of yes or no has a probability and no levels', async () => {
  const { page, context } = await open(`${model('yes-no')}&device=cpu`);
  await takeSample(page);
  await score(page);
  assert.match(await text(page, 'probability'), /%$/);
  assert.equal(await page.locator('#levels').isVisible(), false);
  assert.equal(await page.locator('#confidence-fact').isVisible(), false);
  await context.close();
});

test('a server that sends no policy is not credited with one', async () => {
  const { page, context } = await open('/', { wait: false });
  await context.route('**/assets/worker-*.js', async (route) => {
    const response = await route.fetch();
    const { 'content-security-policy': _, ...headers } = response.headers();
    await route.fulfill({ response, headers });
  });
  await page.goto(`${site.origin}/?device=cpu`);
  await idle(page);
  assert.match(await text(page, 'privacy'), /does not send the policy/);
  await context.close();
});
