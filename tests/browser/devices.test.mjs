// The same picture and prompt natively, in Chromium on the CPU and in Chromium on WebGPU.
// Needs the real module and the command line (IMATCH_BINARY); runs when `real` is among the pages.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KINDS, blank, launch, serve } from './harness.mjs';

const WWW = fileURLToPath(new URL('../../www/', import.meta.url));
const { samples } = JSON.parse(readFileSync(`${WWW}samples/samples.json`, 'utf8'));
/** Rounding differs between devices; anything beyond this is a wrong kernel. */
const SAME = 1e-3;

function native(sample) {
  assert.ok(process.env.IMATCH_BINARY, 'IMATCH_BINARY names the command line to compare with');
  const elements = sample.elements.flatMap((element) => ['--element', element]);
  const picture = `${WWW}samples/${sample.file}`;
  const args = ['score', '--model', `${WWW}models/shapes`, '--image', picture, '--prompt', sample.prompt];
  const type = ['--prompt-type', sample.prompt_type];
  return JSON.parse(execFileSync(process.env.IMATCH_BINARY, [...args, ...type, ...elements, '--json'], { encoding: 'utf8' }));
}

function close(got, want, where) {
  assert.ok(Math.abs(got - want) <= SAME, `${where}: ${got} is not ${want}`);
}

if (KINDS.includes('real'))
  describe('scores of the real module', () => {
    let browser, site;
    before(async () => {
      site = await serve('real');
      browser = await launch();
    });
    after(async () => {
      await browser?.close();
      await site?.close();
    });

    for (const device of ['cpu', 'gpu'])
      test(`on ${device} are those of the command line`, { timeout: 600_000 }, async () => {
        const { page, seen } = await blank(browser, site);
        const asked = samples.slice(0, device === 'gpu' ? 2 : samples.length);
        const got = await page.evaluate(
          async ({ device, asked }) => {
            const { Evaluator } = await import('/imatch.js');
            const evaluator = await Evaluator.load({ model: '/models/shapes/manifest.json', device, software: true });
            const results = [];
            for (const sample of asked) {
              const blob = await (await fetch(`/samples/${sample.file}`)).blob();
              const picture = await evaluator.open(blob);
              const { prompt, elements, prompt_type: promptType } = sample;
              results.push(await picture.score({ prompt, elements, promptType }));
              picture.close();
            }
            const info = evaluator.info;
            await evaluator.dispose();
            return { results, info };
          },
          { device, asked },
        );
        assert.equal(got.info.selftest.passed, true);
        assert.equal(got.info.device === 'cpu', device === 'cpu', `it ran on ${got.info.device}`);
        for (const [index, sample] of asked.entries()) {
          const [want, result] = [native(sample), got.results[index]];
          assert.equal(result.model.sha256, want.model.sha256);
          close(result.overall.score, want.overall.score, `${sample.file} overall`);
          for (const [level, { probability }] of want.overall.levels.entries())
            close(result.overall.levels[level].probability, probability, `${sample.file} level ${level}`);
          for (const [element, { score }] of want.elements.entries())
            close(result.elements[element].score, score, `${sample.file} ${sample.elements[element]}`);
        }
        assert.deepEqual(seen.problems, []);
        await page.close();
      });
  });
