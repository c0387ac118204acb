// Models of every form through the real module: a GGUF pair from a local server, a dropped folder, the store; their
// scores against the command line. Needs IMATCH_BINARY; runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KINDS, idle, launch, score, serve, visit } from './harness.mjs';
import { embed, load, misbehave } from './misbehaving.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const PICTURE = `${ROOT}tests/golden/qwen3_vl_cases/wide.png`;
const PROMPT = 'a red cube left of two blue balls';
const ELEMENTS = ['red cube (color)', 'two blue balls (counting)'];
/** Files of a pair that gguf-py wrote, with the tower that the two decoders share. */
const PAIR = ['tied-Q4_K_M.gguf', 'mmproj-F16.gguf'];
/** Largest difference in probability from the command line. */
const TOLERANCE = 1e-3;

/** What the command line says about the picture. */
function native(model) {
  const args = ['score', '--json', '--model', model, '--image', PICTURE, '--prompt', PROMPT];
  for (const element of ELEMENTS) args.push('--element', element);
  return JSON.parse(execFileSync(process.env.IMATCH_BINARY, args, { encoding: 'utf8' }));
}

function same(got, want, where) {
  const [low, high] = want.overall.scale;
  assert.ok(Math.abs(got.overall.score - want.overall.score) / (high - low) <= TOLERANCE, `${where}: overall`);
  assert.equal(got.elements.length, ELEMENTS.length);
  for (const [index, { element, score }] of want.elements.entries()) {
    assert.equal(got.elements[index].element, element);
    assert.ok(Math.abs(got.elements[index].score - score) <= TOLERANCE, `${where}: ${element}`);
  }
  assert.ok(Math.abs(got.elements_geometric_mean - want.elements_geometric_mean) <= TOLERANCE, `${where}: together`);
  assert.deepEqual(got.scoring, want.scoring, where);
  assert.deepEqual({ ...got.model, name: '' }, { ...want.model, name: '' }, where);
}

if (KINDS.includes('real'))
  describe('models of every form', () => {
    let browser, site, server;
    before(async () => {
      assert.ok(process.env.IMATCH_BINARY, 'IMATCH_BINARY names the command line to compare with');
      site = await serve('real');
      server = await misbehave(site);
      browser = await launch();
      for (const name of PAIR) server.put(`pair/${name}`, readFileSync(`${ROOT}tests/golden/gguf/${name}`));
      server.put('picture.png', readFileSync(PICTURE));
    });
    after(async () => {
      await browser?.close();
      await server?.close();
      await site?.close();
    });

    for (const device of ['cpu', 'gpu'])
      test(`a pair of k-quants by its addresses on the ${device}, then from the store`, { timeout: 300_000 }, async () => {
        const { page } = await embed(browser, server);
        const run = async () =>
          page.evaluate(
            async ({ device, names, prompt, elements }) => {
              const { Evaluator, inspect } = await import('/imatch.js');
              const model = names.map((name) => `/wild/pair/${name}`);
              const needs = await inspect({ model });
              const evaluator = await Evaluator.load({ model, device, software: true });
              const picture = await evaluator.open(await (await fetch('/wild/picture.png')).blob());
              const result = await picture.score({ prompt, elements });
              const { info, kept } = evaluator;
              await evaluator.dispose();
              return { needs, result, info, kept };
            },
            { device, names: PAIR, prompt: PROMPT, elements: ELEMENTS },
          );
        const want = native(`${ROOT}tests/golden/gguf/${PAIR[0]}`);
        const before = server.log.length;
        const first = await run();
        same(first.result, want, device);
        assert.equal(first.kept.kind, 'opfs');
        assert.equal(first.needs.form, 'gguf');
        const sizes = PAIR.map((name) => statSync(`${ROOT}tests/golden/gguf/${name}`).size);
        assert.equal(first.needs.download_bytes, sizes[0] + sizes[1]);
        assert.ok(first.needs.device_bytes[device] >= first.info.device_bytes);
        const fetched = server.log.slice(before).filter(({ path }) => path.endsWith('.gguf')).length;
        assert.ok(fetched >= 2, 'the pair was downloaded');
        const stored = server.log.length;
        const second = await run();
        assert.deepEqual(second.result.elements, first.result.elements);
        const again = server.log.slice(stored).filter(({ path, method }) => path.endsWith('.gguf') && method === 'GET');
        assert.deepEqual(again, [], 'the pair came from the store');
        await page.close();
      });

    for (const [what, position] of [
      ['header, which the engine stumbles over', 40],
      ['weights, which look like any others', 60_000],
    ])
      test(`a stored pair that rotted in its ${what}, is told by its digest`, { timeout: 300_000 }, async () => {
        const { page, context } = await embed(browser, server);
        const model = PAIR.map((name) => `/wild/pair/${name}`);
        assert.equal((await load(page, model)).code, undefined);
        const rotted = await page.evaluate(async (position) => {
          const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('imatch');
          let found = 0;
          for await (const [name, handle] of folder.entries()) {
            const record = name.includes('.') ? null : await folder.getFileHandle(`${name}.json`);
            if (record === null || /mmproj/.test(await (await record.getFile()).text())) continue;
            const writable = await handle.createWritable({ keepExistingData: true });
            await writable.write({ type: 'write', position, data: new Uint8Array([0x0f, 0x1e, 0x2d]) });
            await writable.close();
            found += 1;
          }
          return found;
        }, position);
        assert.equal(rotted, 1);
        const { code, message } = await load(page, model);
        const removed = 'the stored copy was damaged and has been removed; loading again fetches it anew';
        assert.deepEqual([code, message], ['integrity', `${PAIR[0]}: ${removed}`]);
        assert.equal((await load(page, model)).code, undefined);
        await context.close();
      });

    for (const name of ['qwen3_vl_untied', 'internvl_qwen2_original', 'internvl_qwen3'])
      test(`a Hugging Face folder that is chosen on the page: ${name}`, { timeout: 300_000 }, async () => {
        const folder = `${ROOT}tests/golden/${name}`;
        const { page, seen, context } = await visit(browser, site.origin, '/?device=cpu');
        await page.locator('#model-change').click();
        const files = readdirSync(folder).map((name) => join(folder, name));
        await page.locator('#model-files').setInputFiles(files);
        await page.locator('#model-card .button').click();
        await page.locator('#model-status', { hasText: 'read from your files' }).waitFor();
        await page.locator('#file').setInputFiles(PICTURE);
        await page.locator('#prompt').fill(PROMPT);
        await score(page);
        const want = native(folder);
        const got = Number(await page.locator('#overall-value').textContent());
        assert.ok(Math.abs(got - want.overall.score) < 0.006, `${got}, the command line says ${want.overall.score}`);
        assert.deepEqual(seen.problems, []);
        await context.close();
      });

    test('a pair by its address on the page: what it needs is shown before it is fetched', { timeout: 300_000 }, async () => {
      const { page, seen, context } = await visit(browser, server.origin, '/?device=cpu');
      await page.locator('#model-change').click();
      const before = server.log.length;
      await page.locator('#model-address').fill(PAIR.map((name) => `wild/pair/${name}`).join(' '));
      await page.keyboard.press('Enter');
      await page.locator('#model-card .button').waitFor();
      const asked = server.log.slice(before).filter(({ method }) => method === 'GET');
      const all = PAIR.reduce((sum, name) => sum + statSync(`${ROOT}tests/golden/gguf/${name}`).size, 0);
      assert.ok(asked.reduce((sum, { sent }) => sum + sent, 0) < all / 2, 'only headers were fetched');
      assert.match(await page.locator('#model-card').textContent(), /qwen3_vl, q4_k/);
      const status = () => page.locator('#model-status').textContent();
      const demo = await status();
      await page.locator('#model-card .button').click();
      await idle(page);
      assert.match(await status(), /kept in this browser/);
      assert.notEqual(await status(), demo);
      assert.deepEqual(seen.problems, []);
      await context.close();
    });
  });
