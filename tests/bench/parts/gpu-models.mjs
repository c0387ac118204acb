// The models that `scripts/bench gpu` runs: files, picture and requests of each.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeCheckpoint } from './gpu-mid.mjs';
import { picture } from './picture.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const BINARY = process.env.IMATCH_BINARY ?? join(ROOT, 'target/release/imatch');
const DEMO = join(ROOT, 'www/models/shapes');

/** About 300 tokens with the demo model's vocabulary. */
const SHAPES = {
  first: 'a large red circle to the left of two small blue squares',
  second: 'two small blue squares below a green star',
  elements: [
    'circle (shape)',
    'red circle (color)',
    'blue square (color)',
    'two blue squares (counting)',
    'large red circle (attribute)',
    'small blue square (attribute)',
    'red circle left of blue square (spatial)',
    'green star (object)',
  ],
};

/** Two requests about one picture: the overall question with eight elements, then with another prompt. */
const requests = ({ first, second, elements }) => ({
  first: { prompt: first, elements },
  second: { prompt: second, elements },
});

/** The files of a folder, by name. */
function files(folder) {
  const paths = readdirSync(folder).map((name) => [name, join(folder, name)]);
  return Object.fromEntries(paths.filter(([, path]) => statSync(path).isFile()));
}

function demo() {
  const { samples } = JSON.parse(readFileSync(join(ROOT, 'www/samples/samples.json'), 'utf8'));
  const image = readFileSync(join(ROOT, 'www/samples', samples[0].file));
  return { name: 'demo', files: files(DEMO), picture: image, requests: requests(SHAPES) };
}

function mid(folder) {
  const converted = folder ?? join(ROOT, 'target/mid/q8_0');
  if (!existsSync(converted)) {
    const checkpoint = join(ROOT, 'target/mid/checkpoint');
    const partial = `${converted}.part`;
    rmSync(partial, { recursive: true, force: true });
    writeCheckpoint(checkpoint, DEMO);
    execFileSync(BINARY, ['convert', '--model', checkpoint, '--quant', 'q8_0', '--out', partial], { stdio: 'inherit' });
    renameSync(partial, converted);
    rmSync(checkpoint, { recursive: true });
  }
  return { name: 'mid', files: files(converted), picture: picture(256), requests: requests(SHAPES) };
}

/** Layers of the model that is published. */
const LAYERS = 28;

function full(folder, layers) {
  const isWhole = layers === LAYERS;
  const name = isWhole ? 'full-size' : `full-size-${layers}`;
  const written = folder ?? join(ROOT, 'target', name);
  const names = ['decoder.gguf', 'mmproj.gguf', 'picture.png', 'request.json'];
  if (names.some((file) => !existsSync(join(written, file)))) {
    const bench = join(ROOT, 'tests/bench/full-size.mjs');
    const flags = isWhole ? [] : ['--layers', String(layers)];
    execFileSync(process.execPath, [bench, written, '--native-only', ...flags], { stdio: ['ignore', 2, 2] });
  }
  const { elements } = JSON.parse(readFileSync(join(written, 'request.json'), 'utf8'));
  const { 'decoder.gguf': decoder, 'mmproj.gguf': mmproj, 'picture.png': image } = files(written);
  // The vocabulary has the words of these elements only.
  const words = { first: elements[1], second: elements[0], elements: elements.slice(0, 8) };
  return {
    name,
    files: { 'decoder.gguf': decoder, 'mmproj.gguf': mmproj },
    picture: readFileSync(image),
    requests: requests(words),
  };
}

export const MODELS = { demo, mid, full };

/** The files without golden answers, so that a self-test has products only. */
export function withoutGolden(named) {
  const { 'manifest.json': manifest } = named;
  if (manifest === undefined) return named;
  const bytes = Buffer.from(JSON.stringify({ ...JSON.parse(readFileSync(manifest, 'utf8')), golden: [] }));
  return { ...named, 'manifest.json': bytes };
}
