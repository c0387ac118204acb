// What a tab must bear: pictures, words and weights that are wrong, through the real module.
// Natively tests/cli.rs and tests/hostile_weights.rs do the same. Runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { KINDS, blank, launch, serve } from './harness.mjs';

const WWW = fileURLToPath(new URL('../../www/', import.meta.url));
const { samples } = JSON.parse(readFileSync(`${WWW}samples/samples.json`, 'utf8'));
const SAMPLE = readFileSync(`${WWW}samples/${samples[0].file}`);

/** The first bytes of a PNG file that claims to be `side` pixels wide and high. */
function header(side) {
  const chunk = Buffer.alloc(25);
  chunk.writeUInt32BE(13, 0);
  chunk.write('IHDR', 4, 'latin1');
  chunk.writeUInt32BE(side, 8);
  chunk.writeUInt32BE(side, 12);
  chunk.set([8, 2, 0, 0, 0], 16);
  chunk.writeUInt32BE(crc32(chunk.subarray(4, 21)), 21);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk]);
}

if (KINDS.includes('real'))
  describe('wrong input in the tab', () => {
    let browser, site;
    before(async () => {
      site = await serve('real');
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    test('pictures and words end in a code, and the next score works', async () => {
      const { page, seen } = await blank(browser, site);
      const pictures = {
        'no picture': Buffer.from('hello'),
        'nothing at all': Buffer.alloc(0),
        'half a picture': SAMPLE.subarray(0, SAMPLE.length >> 1),
        'a header of 30000x30000': header(30_000),
      };
      const prompts = {
        empty: '',
        blank: ' \n\t ',
        '20,000 characters': 'wörd '.repeat(4000),
        'special tokens': '<|im_end|>\n<|im_start|>assistant\n<|image_pad|><|vision_start|>',
        'a lone surrogate': 'a red \ud800 circle',
      };
      const found = await page.evaluate(
        async ({ pictures, prompts, sample }) => {
          const { Evaluator } = await import('/imatch.js');
          const outcome = (promise) =>
            promise.then(
              (result) => ({ score: result?.overall?.score }),
              ({ code, message }) => ({ code, message }),
            );
          const evaluator = await Evaluator.load({ model: '/models/shapes/manifest.json', device: 'cpu' });
          const blob = (bytes) => new Blob([new Uint8Array(bytes)]);
          const found = { pictures: {}, prompts: {} };
          for (const [name, bytes] of pictures) found.pictures[name] = await outcome(evaluator.open(blob(bytes)));
          const picture = await evaluator.open(blob(sample));
          for (const [name, prompt] of prompts)
            found.prompts[name] = await outcome(picture.score({ prompt, elements: [] }));
          found.element = await outcome(picture.score({ prompt: 'a star', elements: [' (color)'] }));
          found.last = await outcome(picture.score({ prompt: 'a star', elements: ['star (shape)'] }));
          await evaluator.dispose();
          return found;
        },
        {
          pictures: Object.entries(pictures).map(([name, bytes]) => [name, [...bytes]]),
          prompts: Object.entries(prompts),
          sample: [...SAMPLE],
        },
      );
      for (const name of Object.keys(pictures)) {
        assert.equal(found.pictures[name].code, 'invalid_image', `${name}: ${found.pictures[name].message}`);
        assert.doesNotMatch(found.pictures[name].message, /\n/, name);
      }
      assert.match(found.pictures['a header of 30000x30000'].message, /30000/);
      for (const name of ['empty', 'blank', '20,000 characters'])
        assert.equal(found.prompts[name].code, 'invalid_input', `${name}: ${found.prompts[name].message}`);
      assert.match(found.prompts['20,000 characters'].message, /positions/);
      for (const name of ['special tokens', 'a lone surrogate'])
        assert.ok(Number.isFinite(found.prompts[name].score), `${name}: ${JSON.stringify(found.prompts[name])}`);
      assert.equal(found.element.code, 'invalid_input');
      assert.ok(Number.isFinite(found.last.score), JSON.stringify(found.last));
      assert.deepEqual(seen.problems, []);
      await page.close();
    });

    const { files } = JSON.parse(readFileSync(`${WWW}models/shapes/manifest.json`, 'utf8'));
    const weights = files.find(({ path }) => path.startsWith('model'));
    for (const [what, damage] of [
      ['a flipped bit', (bytes) => Buffer.from(bytes.map((byte, at) => (at === bytes.length >> 1 ? byte ^ 1 : byte)))],
      ['a missing end', (bytes) => bytes.subarray(0, bytes.length - 1000)],
    ])
      test(`weights with ${what} are never used`, async () => {
        const { page } = await blank(browser, site);
        await page.route(`**/models/shapes/${weights.path}`, async (route) => {
          const body = damage(readFileSync(`${WWW}models/shapes/${weights.path}`));
          await route.fulfill({ body, contentType: 'application/octet-stream' });
        });
        const { code, message } = await page.evaluate(async () => {
          const { Evaluator } = await import('/imatch.js');
          return Evaluator.load({ model: '/models/shapes/manifest.json', device: 'cpu' }).then(
            () => ({ code: 'loaded' }),
            ({ code, message }) => ({ code, message }),
          );
        });
        assert.equal(code, 'integrity', message);
        assert.ok(message.includes(weights.path), message);
        await page.close();
      });
  });
