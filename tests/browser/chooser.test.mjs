// The dialog that changes the model: with a mouse, with the keyboard, in light and dark, wide and narrow.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { join } from 'node:path';
import { SHOTS, idle, launch, score, serve, takeSample, visit } from './harness.mjs';
import { contrast, overflow, structure } from './inspect.mjs';

let browser, site;
before(async () => {
  site = await serve('mock');
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

const text = (page, id) => page.locator(`#${id}`).textContent();

async function choose(page) {
  await page.locator('#model-change').click();
  await page.locator('#model-stored li').first().waitFor();
}

/** Gives an address and waits for what is found there. */
async function look(page, address) {
  await page.locator('#model-address').fill(address);
  await page.keyboard.press('Enter');
  await page.locator('#model-card .button, #model-card .problem-title').waitFor();
}

test('another model is looked at, used, stored beside the first, and taken back', async () => {
  const { page, seen, context } = await visit(browser, site.origin, '/?device=cpu');
  assert.equal(await text(page, 'model-status'), 'pretended shapes, 5 kB, kept in this browser');
  await takeSample(page);
  await score(page);
  await choose(page);
  assert.equal(await page.locator('#model-stored li').count(), 1);
  assert.equal(await page.locator('#model-stored button').first().isDisabled(), true);
  await look(page, 'models/yes-no/manifest.json');
  assert.match(await text(page, 'model-card'), /^pretended shapesKindqwen3_vl, q8_0, converted.*will run on the CPU/);
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Use this model');
  await page.keyboard.press('Enter');
  await idle(page);
  assert.equal(await page.locator('#stale').isVisible(), true, 'the result is of the model before');
  assert.equal(await page.locator('#badge').isVisible(), false);
  await score(page);
  assert.match(await text(page, 'probability'), /%$/);

  await choose(page);
  assert.equal(await page.locator('#model-stored li').count(), 2);
  const loaded = seen.requests.length;
  await page.locator('#model-stored button:enabled', { hasText: 'Use' }).click();
  await idle(page);
  assert.deepEqual(
    seen.requests.slice(loaded).filter((url) => url.endsWith('.gguf')),
    [],
    'it was stored',
  );
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('a model that takes the place of another is being loaded from the click on, and can be stopped', async () => {
  const { page, context } = await visit(browser, site.origin, '/?device=cpu');
  await choose(page);
  await look(page, 'models/yes-no/manifest.json');
  const said = await page.locator('#model-card .button').evaluate((button) => {
    button.click();
    const [model, device, cancel] = ['model-status', 'device-status', 'cancel'].map((id) => document.getElementById(id));
    const said = [model.textContent, device.hidden, cancel.hidden];
    // Before the next task, so that the model before is still there.
    cancel.click();
    return said;
  });
  assert.deepEqual(said, ['being loaded', true, false]);
  await idle(page);
  assert.equal(await text(page, 'model-status'), 'not loaded');
  await takeSample(page);
  await score(page);
  assert.match(await text(page, 'probability'), /%$/);
  await context.close();
});

test('a model is removed with the keyboard, and the dialog closes with Escape', async () => {
  const { page, seen, context } = await visit(browser, site.origin, '/?device=cpu');
  await page.locator('#model-change').focus();
  await page.keyboard.press('Enter');
  const remove = page.locator('#model-stored button', { hasText: 'Remove' });
  await remove.focus();
  await page.keyboard.press('Enter');
  await page.locator('#model-usage', { hasText: 'None yet.' }).waitFor();
  assert.equal(await text(page, 'announcer'), 'Removed pretended shapes');
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'model-close');
  await page.keyboard.press('Escape');
  await page.locator('#model-chooser').waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'model-change');
  await takeSample(page);
  await score(page);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('files dropped on the dialog are a model, and a wrong set is named', async () => {
  const { page, seen, context } = await visit(browser, site.origin, '/?device=cpu');
  await choose(page);
  const drop = (names) =>
    page.evaluate((names) => {
      const data = new DataTransfer();
      for (const name of names) data.items.add(new File([new Uint8Array(2000)], name));
      const event = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
      document.querySelector('#model-card').parentElement.dispatchEvent(event);
    }, names);
  await drop(['a.gguf']);
  await page.locator('#model-card .problem-detail').waitFor();
  assert.equal(
    await text(page, 'model-card'),
    'The model’s files do not fit togethera.gguf came alone: a GGUF model has two files, the decoder and the mmproj file.',
  );
  await drop(['a.gguf', 'mmproj-a.gguf']);
  await page.locator('#model-card .button').click();
  await page.locator('#model-status', { hasText: 'read from your files' }).waitFor();
  assert.equal(await page.locator('.picture-name').textContent(), '', 'no picture was taken from them');
  await takeSample(page);
  await score(page);
  assert.deepEqual(seen.problems, []);
  await context.close();
});

test('what cannot be read of a dropped folder, or is far too much, is said; so is a list that fails', async () => {
  const { page, seen, context } = await visit(browser, site.origin, '/?device=cpu');
  await choose(page);
  const drop = (kind) =>
    page.evaluate((kind) => {
      const file = (name) => ({
        isFile: true,
        isDirectory: false,
        fullPath: `/model/${name}`,
        file: (done, fail) => (kind === 'many' ? done(new File([], name)) : fail(new DOMException('no right to it'))),
      });
      const inner = Array.from({ length: kind === 'many' ? 5001 : 1 }, (_, index) => file(`f${index}.gguf`));
      const readEntries = (done, fail) =>
        kind === 'closed' ? fail(new DOMException('no right to it')) : done(inner.splice(0, 1000));
      const folder = { isFile: false, isDirectory: true, fullPath: '/model', createReader: () => ({ readEntries }) };
      const event = new DragEvent('drop', { bubbles: true, cancelable: true });
      const items = [{ webkitGetAsEntry: () => folder }];
      Object.defineProperty(event, 'dataTransfer', { value: { items, files: [] } });
      document.querySelector('#model-card').replaceChildren();
      document.querySelector('#model-card').parentElement.dispatchEvent(event);
    }, kind);
  for (const [kind, said] of [
    ['file', 'Could not read model/f0.gguf: no right to it.'],
    ['closed', 'Could not read model: no right to it.'],
    ['many', 'More than 5000 files were given, and a model has a few dozen.'],
  ]) {
    await drop(kind);
    await page.locator('#model-card .problem-detail').waitFor();
    assert.equal(await page.locator('#model-card .problem-detail').textContent(), said);
  }
  assert.deepEqual(seen.problems, []);
  await page.keyboard.press('Escape');
  await page.evaluate(() => {
    Worker.prototype.postMessage = () => {
      throw new Error('pretended');
    };
  });
  await page.locator('#model-change').click();
  await page.locator('#model-usage', { hasText: 'They could not be listed. Pretended.' }).waitFor();
  assert.deepEqual(seen.problems, []);
  await context.close();
});

for (const colorScheme of ['light', 'dark'])
  for (const [width, height] of [
    [1280, 900],
    [390, 844],
    [320, 640],
  ])
    test(`the dialog in ${colorScheme} at ${width} pixels: contrast, names, nothing sticks out`, async () => {
      const { page, context } = await visit(browser, site.origin, '/?device=cpu', {
        colorScheme,
        viewport: { width, height },
      });
      await choose(page);
      await look(page, 'models/yes-no/manifest.json');
      for (const check of [contrast, structure, overflow]) assert.deepEqual(await page.evaluate(check), [], check.name);
      const inside = await page.evaluate(() => {
        const { scrollWidth, clientWidth } = document.querySelector('#model-chooser');
        return scrollWidth <= clientWidth;
      });
      assert.ok(inside, 'something sticks out of the dialog');
      await page.screenshot({ path: join(SHOTS, `mock-${colorScheme}-${width}-chooser.png`) });
      await context.close();
    });
