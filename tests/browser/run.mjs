// Builds the pages named on the command line (`mock`, `real` or both; `mock` without any) and runs every
// browser test on them, one file after the other because they share two cores.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SHOTS, build } from './harness.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const kinds = process.argv.length > 2 ? process.argv.slice(2) : ['mock'];
// The tests of faults need the pretended module whatever else is tested.
for (const kind of new Set(['mock', ...kinds])) await build(kind);
const tests = readdirSync(here)
  .filter((name) => name.endsWith('.test.mjs'))
  .map((name) => here + name);
const env = { ...process.env, IMATCH_PAGES: kinds.join(','), IMATCH_BUILT: '1', IMATCH_SHOTS: SHOTS };
const { status } = spawnSync(process.execPath, ['--test', '--test-concurrency=1', ...tests], { stdio: 'inherit', env });
console.log(`screenshots: ${SHOTS}`);
process.exit(status ?? 1);
