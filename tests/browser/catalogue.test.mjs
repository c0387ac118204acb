// Known models: in the dialog, and compared with what was loaded under their names.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { SHOTS, idle, launch, score, serve, takeSample, visit } from './harness.mjs';
import { contrast, overflow, structure } from './inspect.mjs';

const MODELS = fileURLToPath(new URL('../../www/mock/models/', import.meta.url));
const COPIED = ['copied-Q8_0.gguf', 'mmproj-copied-Q8_0.gguf'];
const ELSEWHERE = ['elsewhere-Q8_0.gguf', 'mmproj-elsewhere-Q8_0.gguf'];
const CATALOGUE = '**/models/catalogue.json';
const UNTOLD = 'nobody told us what it should be';

let browser, site;
before(async () => {
  site = await serve('mock');
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

const open = (path = '/?device=cpu', options) => visit(browser, site.origin, path, options);
const text = (page, id) => page.locator(`#${id}`).textContent();

/** The dialog with one known model unfolded. */
async function unfold(page, name) {
  await page.locator('#model-change').click();
  await page.locator('#model-stored li').first().waitFor();
  if (!(await page.locator('#known-models').isVisible())) await page.locator('#known > summary').click();
  const model = page.locator('.known-model', { has: page.locator('summary', { hasText: name }) });
  await model.locator('summary').click();
  await model.locator('button').waitFor();
  return model;
}

/** Gives files to the dialog, takes the model they are, and waits until it is loaded or has failed to. */
async function give(page, files) {
  await page.locator('#model-change').click();
  await page.locator('#model-card').waitFor({ state: 'hidden' });
  await page.locator('#model-files').setInputFiles(
    files.map(([name, bytes]) => ({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(bytes) })),
  );
  await page.locator('#model-card .button').click();
  await idle(page);
}

/** Another catalogue than the one that the server has. */
async function change(context, edit) {
  const catalogue = JSON.parse(readFileSync(`${MODELS}catalogue.json`, 'utf8'));
  edit(catalogue);
  await context.route(CATALOGUE, (route) => route.fulfill({ json: catalogue }));
}

async function provenance(page) {
  await takeSample(page);
  await score(page);
  return text(page, 'provenance');
}

test('a model that lies here is looked at with one click, and nothing is asked before it is unfolded', async () => {
  const { page, seen, context } = await open();
  assert.match(await provenance(page), /Known asPretended shapes\. SHA-256 as listed; these very weights were checked\./);
  assert.equal(await text(page, 'model-status'), 'pretended shapes, 5 kB, kept in this browser');
  const loaded = seen.requests.length;
  const model = await unfold(page, 'Pretended shapes');
  const facts = 'Pretended shapes5 kB to downloadPretending.Memoryabout 9 kB on a GPULicenceMIT OR Apache-2.0';
  assert.ok((await model.textContent()).includes(`${facts}Checkedthese very weights, against the reference`));
  assert.deepEqual(seen.requests.slice(loaded), []);
  await model.locator('button').click();
  await page.locator('#model-card .button').waitFor();
  assert.match(await text(page, 'model-card'), /^pretended shapesKindqwen3_vl/);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('a model that lies elsewhere says where, and its names can be copied', async () => {
  const { page, seen, context } = await open('/?device=cpu', { permissions: ['clipboard-read', 'clipboard-write'] });
  const model = await unfold(page, 'Elsewhere');
  const said = await model.textContent();
  assert.match(said, /only the architecture; these published weights were not tried/);
  assert.match(said, /Its publisher has it as pretenders\/elsewhere-GGUF:elsewhere-Q8_0\.ggufmmproj-elsewhere-Q8_0\.gguf/);
  assert.match(said, /choose them or drop them here: the page’s policy lets it fetch from its own server only/);
  await model.locator('button').click();
  await model.locator('button', { hasText: 'Copied' }).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, ['pretenders/elsewhere-GGUF', ...ELSEWHERE].join('\n'));
  assert.deepEqual(
    seen.requests.filter((url) => url.includes('models/elsewhere')),
    [`${site.origin}/models/elsewhere/${ELSEWHERE[0]}`],
  );
  await context.close();
});

test('known models are unfolded and looked at with the keyboard', async () => {
  const { page, context } = await open();
  await page.locator('#model-change').focus();
  await page.keyboard.press('Enter');
  await page.locator('#known > summary').focus();
  const focused = () => page.evaluate(() => document.activeElement?.textContent);
  for (const [shown, expected] of [
    ['summary', 'Pretended shapes5 kB to download'],
    ['button', 'Look at it'],
  ]) {
    await page.keyboard.press('Enter');
    await page.locator(`#known-models li:first-child ${shown}`).waitFor();
    await page.keyboard.press('Tab');
    assert.equal(await focused(), expected);
  }
  await page.keyboard.press('Enter');
  await page.locator('#model-card .button').waitFor();
  assert.equal(await focused(), 'Use this model');
  await page.keyboard.press('Escape');
  await page.locator('#model-chooser').waitFor({ state: 'hidden' });
  assert.equal(await focused(), 'Change the model');
  await context.close();
});

test('a model that does not fit says so and is not recommended', async () => {
  const { page, context } = await open();
  await page.locator('#model-change').click();
  await page.evaluate(() => {
    // Blobs refer to the blobs that they are made of, so that these two take 1 MiB.
    const piece = new Blob([new Uint8Array(2 ** 20)]);
    const body = new Blob(Array.from({ length: 1024 }, () => piece));
    const data = new DataTransfer();
    for (const name of ['huge.gguf', 'mmproj-huge.gguf']) data.items.add(new File([body], name));
    const event = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector('#model-card').parentElement.dispatchEvent(event);
  });
  await page.locator('#model-card .button').waitFor();
  assert.match(
    await text(page, 'model-card'),
    /does not fit: .* the CPU it takes 8\.6 GB of the 3\.2 GB .*Try it all the same$/,
  );
  await context.close();
});

test('an unknown digest is recorded at first sight, recognised later, and a difference is said', async () => {
  const { page, seen, context } = await open();
  const model = await unfold(page, 'Copied');
  assert.match(await model.textContent(), /This server has a copy\./);
  await model.locator('button').click();
  await page.locator('#model-card .button').click();
  await page.locator('#model-status', { hasText: 'recorded' }).waitFor();
  const first = `SHA-256 recorded today at first sight; ${UNTOLD}.`;
  assert.equal(await text(page, 'model-status'), `copied-Q8_0, 5 kB, kept in this browser. ${first}`);
  assert.ok((await provenance(page)).includes(`Known asCopied. ${first}`));

  const same = COPIED.map((name) => [name, readFileSync(`${MODELS}copied/${name}`)]);
  await give(page, same);
  assert.equal(await text(page, 'model-status'), 'copied-Q8_0, 5 kB, read from your files');
  const again = new RegExp(`Known asCopied\\. SHA-256 as recorded at first sight on \\d{4}-\\d\\d-\\d\\d; ${UNTOLD}\\.`);
  assert.match(await provenance(page), again);

  for (const time of ['first', 'second']) {
    await give(page, [same[0], [COPIED[1], Buffer.alloc(2000, 7)]]);
    const differs = /SHA-256 is not the one recorded at first sight on [\d-]{10} \([0-9a-f]{12}…\): these are other weights/;
    assert.match(await text(page, 'model-status'), differs, time);
  }
  await give(page, same);
  assert.match(await provenance(page), again, 'the record stays');
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('given files with the listed digest are said to be listed; others are an error, and nothing is scored', async () => {
  const { page, context } = await open();
  await give(page, ELSEWHERE.map((name) => [name, Buffer.alloc(2000)]));
  assert.match(await provenance(page), /Known asElsewhere\. SHA-256 as listed; only their architecture was checked\./);
  await give(page, [[ELSEWHERE[0], Buffer.alloc(2000)], [ELSEWHERE[1], Buffer.alloc(2000, 1)]]);
  const problem = await text(page, 'problem');
  assert.match(problem, /^The model’s files are not the promised ones/);
  assert.match(problem, /The weights of Elsewhere have SHA-256 [0-9a-f]{64}, and catalogue\.json expects [0-9a-f]{64}\.$/);
  assert.equal(await text(page, 'model-status'), 'not loaded');
  await page.locator('#score').click();
  await idle(page);
  assert.equal(await text(page, 'problem'), problem, 'it is not scored with at the second try either');
  await context.close();
});

for (const [what, edit, expected] of [
  ['digest', (file) => (file.sha256 = '0'.repeat(64)), /mmproj-copied-Q8_0\.gguf of Copied has SHA-256 [0-9a-f]{64}, and catalogue\.json expects 0{64}\.$/],
  ['size', (file) => (file.bytes = 2001), /mmproj-copied-Q8_0\.gguf of Copied has 2000 bytes, and catalogue\.json expects 2001\.$/],
  ['name', (file) => (file.name = 'tokenizer.json'), /tokenizer\.json of Copied is not among the model's files, and catalogue\.json expects it there\.$/],
])
  test(`a downloaded file with another ${what} than the listed one is an error`, async () => {
    const { page, context } = await open('/', { wait: false });
    await change(context, ({ models }) => {
      const [first, second] = models[1].files;
      if (what === 'name') models[1].files.push({ ...second });
      edit(models[1].files.at(-1));
      first.sha256 = null;
    });
    const addresses = COPIED.map((name) => `models/copied/${name}`);
    await page.goto(`${site.origin}/?device=cpu`);
    await idle(page);
    await page.locator('#model-change').click();
    await page.locator('#model-address').fill(addresses.reverse().join(' '));
    await page.keyboard.press('Enter');
    await page.locator('#model-card .button').click();
    await page.locator('#problem:visible').waitFor();
    assert.match(await text(page, 'problem'), expected);
    assert.equal(await text(page, 'model-status'), 'not loaded');
    await context.close();
  });

test('files of other sizes or another architecture are no known model', async () => {
  const { page, context } = await open();
  await give(page, ELSEWHERE.map((name) => [name, Buffer.alloc(2010)]));
  assert.doesNotMatch(await provenance(page), /Known as/);
  await give(page, COPIED.map((name) => [name, Buffer.alloc(9000)]));
  assert.doesNotMatch(await provenance(page), /Known as/);
  await change(context, ({ models }) => (models[2].family = 'internvl'));
  await page.reload();
  await idle(page);
  await give(page, ELSEWHERE.map((name) => [name, Buffer.alloc(2000)]));
  assert.doesNotMatch(await provenance(page), /Known as/);
  await context.close();
});

for (const [what, answer, expected] of [
  ['missing', { status: 404 }, 'They could not be listed. catalogue.json: the server answered 404.'],
  ['not JSON', { body: '<!doctype html>' }, 'They could not be listed. catalogue.json: not an imatch-catalogue of version 1 with a list of models.'],
  [
    'of another version',
    { json: { format: 'imatch-catalogue', version: 2, models: [] } },
    'They could not be listed. catalogue.json: not an imatch-catalogue of version 1 with a list of models.',
  ],
  [
    'malformed',
    { json: { format: 'imatch-catalogue', version: 1, models: [{ id: 'a' }] } },
    'They could not be listed. catalogue.json: models[0] lacks a field, or has one of another type.',
  ],
])
  test(`a catalogue that is ${what} is said where it is wanted, and models load without it`, async () => {
    const { page, context } = await open('/', { wait: false });
    await context.route(CATALOGUE, (route) => route.fulfill(answer));
    await page.goto(`${site.origin}/?device=cpu`);
    await idle(page);
    assert.doesNotMatch(await provenance(page), /Known as/);
    await page.locator('#model-change').click();
    await page.locator('#known > summary').click();
    await page.locator('#known-note:visible').waitFor();
    assert.equal(await text(page, 'known-note'), expected);
    await context.close();
  });

for (const colorScheme of ['light', 'dark'])
  for (const [width, height] of [
    [1280, 900],
    [390, 844],
    [320, 640],
  ])
    test(`known models in ${colorScheme} at ${width} pixels: contrast, names, nothing sticks out`, async () => {
      const { page, context } = await open('/?device=cpu', { colorScheme, viewport: { width, height } });
      const model = await unfold(page, 'Elsewhere');
      await model.locator('summary').scrollIntoViewIfNeeded();
      for (const check of [contrast, structure, overflow]) assert.deepEqual(await page.evaluate(check), [], check.name);
      const inside = await page.evaluate(() => {
        const { scrollWidth, clientWidth } = document.querySelector('#model-chooser');
        return scrollWidth <= clientWidth;
      });
      assert.ok(inside, 'something sticks out of the dialog');
      await page.screenshot({ path: join(SHOTS, `mock-${colorScheme}-${width}-known.png`) });
      await context.close();
    });
