// `import { probe, Evaluator } from 'imatch'` and <imatch-score>, used from a page of their own.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { KINDS, blank, launch, serve } from './harness.mjs';

const MODEL = 'models/shapes/manifest.json';

for (const kind of KINDS)
  describe(`${kind} library`, () => {
    let browser, site;
    before(async () => {
      site = await serve(kind);
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    const embedder = () => blank(browser, site);

    test('probe reports and downloads nothing but the worker', async () => {
      const { page, seen } = await embedder();
      const report = await page.evaluate(async () => (await import('/imatch.js')).probe());
      assert.ok(report.device === 'cpu' || report.device === 'gpu');
      if (report.device === 'cpu') assert.ok(report.reason.length > 10);
      const software = await page.evaluate(async () => (await import('/imatch.js')).probe({ software: true }));
      assert.equal(software.webgpu, true);
      assert.equal(software.device, 'gpu', software.reason);
      assert.deepEqual(
        seen.requests.filter((url) => /wasm|models/.test(url)),
        [],
      );
      await page.close();
    });

    test('a picture is opened once and asked several times at once', async () => {
      const { page, seen } = await embedder();
      const found = await page.evaluate(async (model) => {
        const { Evaluator } = await import('/imatch.js');
        const stages = [];
        const evaluator = await Evaluator.load({
          model,
          device: 'cpu',
          onProgress: ({ stage }) => stages.at(-1) !== stage && stages.push(stage),
        });
        const { samples } = await (await fetch('samples/samples.json')).json();
        const picture = await evaluator.open(await (await fetch(`samples/${samples[0].file}`)).blob());
        const ask = (prompt) =>
          picture.score({
            prompt,
            elements: ['red circle (color)', 'two squares (counting)'],
            promptType: 'synthetic',
          });
        const together = await Promise.all(['a red circle', 'two blue squares', 'a red circle'].map(ask));
        picture.close();
        const late = await ask('too late').catch(({ code }) => code);
        await evaluator.dispose();
        const later = await evaluator.open(new Blob([])).catch(({ code }) => code);
        return { stages, together, late, later, size: [picture.width, picture.height], sha256: picture.sha256 };
      }, MODEL);
      assert.ok(found.stages.includes('download') && found.stages.includes('selftest'), String(found.stages));
      assert.deepEqual(found.together[0].overall, found.together[2].overall);
      assert.notEqual(found.together[0].overall.score, found.together[1].overall.score);
      assert.match(found.sha256, /^[0-9a-f]{64}$/);
      assert.equal(found.late, 'invalid_input');
      assert.equal(found.later, 'internal');
      assert.ok(found.size.every((side) => side > 0));
      assert.deepEqual(seen.problems, []);
      await page.close();
    });

    test('an abort is an error with its code, and the evaluator goes on', async () => {
      const { page } = await embedder();
      const codes = await page.evaluate(async (model) => {
        const { Evaluator } = await import('/imatch.js');
        const code = (promise) =>
          promise.then(
            () => 'done',
            (error) => error.code,
          );
        const early = await code(Evaluator.load({ model, device: 'cpu', signal: AbortSignal.abort() }));
        const during = new AbortController();
        const loading = code(
          Evaluator.load({ model, device: 'cpu', signal: during.signal, onProgress: () => during.abort() }),
        );
        const evaluator = await Evaluator.load({ model, device: 'cpu' });
        const { samples } = await (await fetch('samples/samples.json')).json();
        const picture = await evaluator.open(await (await fetch(`samples/${samples[0].file}`)).blob());
        const stop = new AbortController();
        const scoring = code(
          picture.score({ prompt: 'a red circle', elements: [], signal: stop.signal, onProgress: () => stop.abort() }),
        );
        const other = code(picture.score({ prompt: 'a red circle', elements: [] }));
        const answers = [early, await loading, await scoring, await other];
        await evaluator.dispose();
        return answers;
      }, MODEL);
      assert.deepEqual(codes, ['aborted', 'aborted', 'aborted', 'done']);
      await page.close();
    });

    test('<imatch-score> scores, reports progress and says what is wrong', async () => {
      const { page, seen } = await embedder();
      const heard = await page.evaluate(async (model) => {
        await import('/imatch-score.js');
        const { samples } = await (await fetch('samples/samples.json')).json();
        const make = (src) => {
          const element = document.createElement('imatch-score');
          const attributes = {
            model,
            src,
            prompt: 'a red circle',
            elements: 'red circle (color); two squares (counting)',
          };
          for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
          return element;
        };
        const outcome = (element) =>
          new Promise((resolve) => {
            let steps = 0;
            element.addEventListener('progress', () => steps++);
            element.addEventListener('score', ({ detail }) =>
              resolve({ detail, steps, text: element.shadowRoot.textContent }),
            );
            element.addEventListener('error', ({ detail }) => resolve({ code: detail.code }));
            document.body.append(element);
          });
        return [await outcome(make(`samples/${samples[0].file}`)), await outcome(make('samples/samples.json'))];
      }, MODEL);
      assert.equal(heard[0].detail.elements.length, 2);
      assert.ok(heard[0].steps > 0);
      assert.match(heard[0].text, /of 5/);
      assert.equal(heard[1].code, 'invalid_image');
      assert.deepEqual(seen.problems, []);
      await page.close();
    });
  });
