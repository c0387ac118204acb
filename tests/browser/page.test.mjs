// The page as a visitor meets it: with a mouse, with the keyboard, in light and dark, wide and narrow.
// Runs on every page in IMATCH_PAGES (`mock`, `real` or both).
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import { KINDS, SHOTS, launch, score, scored, serve, takeSample, visit } from './harness.mjs';
import { contrast, overflow, structure } from './inspect.mjs';

for (const kind of KINDS)
  describe(`${kind} page`, () => {
    let browser, site;
    const open = (path, options) => visit(browser, site.origin, path, options);
    before(async () => {
      site = await serve(kind);
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    test('a sample is scored, and nothing is requested once the model is there', async () => {
      const { page, seen, context } = await open('/?device=cpu');
      const loaded = seen.requests.length;
      await takeSample(page);
      await score(page);
      const value = Number(await page.locator('#overall-value').textContent());
      assert.ok(value >= 1 && value <= 5, `overall score ${value}`);
      const asked = await page.locator('.chip-text').allTextContents();
      const rows = await page.locator('.elements tbody tr').all();
      assert.equal(rows.length, asked.length);
      for (const [index, row] of rows.entries()) {
        assert.match(await row.textContent(), new RegExp(`^${asked[index]} .*%.*(present|absent)$`));
      }
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'result-title');
      await score(page);
      assert.deepEqual(seen.requests.slice(loaded), []);
      assert.ok(
        seen.requests.every((url) => url.startsWith(site.origin)),
        'another server was asked',
      );
      assert.deepEqual(seen.problems, []);
      await context.close();
    });

    test('the fifteen levels are drawn and can be read as numbers that sum to one', async () => {
      const { page, context } = await open('/?device=cpu');
      await takeSample(page);
      await score(page);
      assert.equal(await page.locator('.level').count(), 15);
      assert.match(
        await page.locator('.plot').getAttribute('aria-label'),
        /15 levels from 1 to 5\. Most likely: .* Mean: /,
      );
      await page.locator('level-chart summary').click();
      const cells = await page.locator('.numbers tbody td:last-child').allTextContents();
      const sum = cells.reduce((total, cell) => total + parseFloat(cell), 0);
      assert.ok(Math.abs(sum - 100) < 0.1, `the levels sum to ${sum} %`);
      await context.close();
    });

    test('everything can be done with the keyboard', async () => {
      const { page, seen, context } = await open('/?device=cpu');
      const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.className);
      await page.keyboard.press('Tab');
      assert.equal(await focused(), 'skip');
      await page.locator('.sample').first().focus();
      await page.keyboard.press('Enter');
      await page.locator('#prompt').fill('a red circle');
      await page.keyboard.press('Tab');
      for (let chips = await page.locator('.chip').count(); chips > 0; chips--) {
        assert.equal(await focused(), 'remove');
        await page.keyboard.press('Enter');
      }
      assert.equal(await focused(), 'element-text');
      await page.keyboard.type('red circle');
      await page.keyboard.press('Tab');
      await page.keyboard.type('co');
      await page.keyboard.press('Enter');
      await page.keyboard.type('a wish (spatial)');
      await page.keyboard.press('Enter');
      assert.deepEqual(await page.locator('.chip').allTextContents(), ['red circlecolor', 'a wishspatial']);
      await page.keyboard.press('Backspace');
      assert.deepEqual(await page.locator('.chip').allTextContents(), ['red circlecolor']);
      assert.equal(await page.locator('#announcer').textContent(), 'Removed a wish');
      await page.keyboard.press('Control+Enter');
      await scored(page);
      assert.equal(await focused(), 'result-title');
      assert.deepEqual(seen.problems, []);
      await context.close();
    });

    test('a file is taken by choosing, dropping and pasting', async () => {
      const { page, seen, context } = await open('/?device=cpu');
      const named = () => page.locator('.picture-name').textContent();
      const png = await page.evaluate(async () => {
        const { samples } = await (await fetch('samples/samples.json')).json();
        return [...new Uint8Array(await (await fetch(`samples/${samples[0].file}`)).arrayBuffer())];
      });
      await page
        .locator('#file')
        .setInputFiles({ name: 'chosen.png', mimeType: 'image/png', buffer: Buffer.from(png) });
      assert.equal(await named(), 'chosen.png');
      const give = (type, name) =>
        page.evaluate(
          ([type, name, png]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(png)], name, { type: 'image/png' }));
            const event =
              type === 'paste'
                ? new ClipboardEvent(type, { clipboardData: data, bubbles: true })
                : new DragEvent(type, { dataTransfer: data, bubbles: true });
            (type === 'paste' ? document : document.body).dispatchEvent(event);
          },
          [type, name, png],
        );
      await give('drop', 'dropped.png');
      assert.equal(await named(), 'dropped.png');
      await give('paste', 'pasted.png');
      assert.equal(await named(), 'pasted.png');
      await page.locator('#prompt').fill('a red circle');
      await score(page);
      assert.deepEqual(seen.problems, []);
      await context.close();
    });

    test('what is missing is said at the field that lacks it', async () => {
      const { page, context } = await open('/?device=cpu');
      await page.locator('#score').click();
      assert.equal(await page.locator('#picture-problem:visible').textContent(), 'Choose a picture first.');
      await takeSample(page);
      await page.locator('#prompt').fill('  ');
      await page.locator('#score').click();
      assert.equal(await page.locator('#prompt').getAttribute('aria-invalid'), 'true');
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'prompt');
      await page.locator('#prompt').fill('a red circle');
      assert.equal(await page.locator('#prompt').getAttribute('aria-invalid'), null);
      await context.close();
    });

    test('a result says that it is old once the form has changed', async () => {
      const { page, context } = await open('/?device=cpu');
      await takeSample(page);
      await score(page);
      assert.equal(await page.locator('#stale').isVisible(), false);
      await page.locator('#prompt').fill('something else');
      assert.equal(await page.locator('#stale').isVisible(), true);
      await context.close();
    });

    test('a file that is no picture is refused in plain words', async () => {
      const { page, context } = await open('/?device=cpu');
      await page
        .locator('#file')
        .setInputFiles({ name: 'notes.png', mimeType: 'image/png', buffer: Buffer.from('not a picture at all') });
      await page.locator('#prompt').fill('a red circle');
      await page.locator('#score').click();
      await page.locator('#problem:visible').waitFor();
      assert.match(await page.locator('#problem').textContent(), /^This picture cannot be read/);
      await context.close();
    });

    test('the result can be copied as the object of the command line', async () => {
      const { page, context } = await open('/?device=cpu', { permissions: ['clipboard-read', 'clipboard-write'] });
      await takeSample(page);
      await score(page);
      await page.locator('#copy').click();
      await page.locator('#copy', { hasText: 'Copied' }).waitFor();
      const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
      assert.deepEqual(Object.keys(copied), [
          'model',
          'overall',
          'elements',
          'device',
          'timings_ms',
          'elements_geometric_mean',
          'scoring',
        ]);
      assert.equal(copied.overall.levels.length, 15);
      await context.close();
    });

    test('the policy is sent with the page and with both workers, and stands in the page', async () => {
      const { page, seen, context } = await open('/?device=cpu');
      const written = await page.locator('meta[http-equiv=Content-Security-Policy]').getAttribute('content');
      const workers = ['worker', 'downloader'].map((name) =>
        seen.requests.find((url) => new RegExp(`/${name}-[^/]*\\.js$`).test(url)),
      );
      for (const url of [site.origin, ...workers]) {
        const response = await page.request.get(url);
        assert.equal(response.headers()['content-security-policy'], written, url);
      }
      const blocked = await page.evaluate(() =>
        fetch('http://127.0.0.1:9/').then(
          () => false,
          () => true,
        ),
      );
      assert.ok(blocked, 'a request to another origin went out');
      assert.match(await page.locator('#privacy').textContent(), /policy forbids/);
      await context.close();
    });

    for (const colorScheme of ['light', 'dark'])
      for (const [width, height] of [
        [1280, 900],
        [390, 844],
      ]) {
        test(`${colorScheme} at ${width} pixels: contrast, names, headings, nothing sticks out`, async () => {
          const { page, context } = await open('/?device=cpu', { colorScheme, viewport: { width, height } });
          for (const moment of ['empty', 'scored']) {
            if (moment === 'scored') {
              await takeSample(page);
              await score(page);
            }
            for (const check of [contrast, structure, overflow])
              assert.deepEqual(await page.evaluate(check), [], `${moment}: ${check.name}`);
            await page.evaluate(() => scrollTo(0, 0));
            await page.screenshot({
              path: join(SHOTS, `${kind}-${colorScheme}-${width}-${moment}.png`),
              fullPage: true,
            });
          }
          await context.close();
        });
      }

    test('the page holds together at 320 pixels', async () => {
      const { page, context } = await open('/?device=cpu', { viewport: { width: 320, height: 640 } });
      await takeSample(page);
      await score(page);
      assert.deepEqual(await page.evaluate(overflow), []);
      await context.close();
    });

    test('without JavaScript the page says what it needs', async () => {
      const { page, context } = await open('/', { wait: false, javaScriptEnabled: false });
      assert.match(await page.locator('main').innerText(), /needs JavaScript and WebAssembly/);
      await context.close();
    });
  });
