// Serves a built page and drives it with the Chromium that is installed. `IMATCH_PAGE` says which page:
// `mock` (pretended wasm module, the default of the tests of the page itself) or `real` (www/pkg).
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const WWW = fileURLToPath(new URL('../../www/', import.meta.url));
const require = createRequire(join(WWW, 'package.json'));

/** WebGPU on SwiftShader, and nothing that goes to the network by itself. */
const FLAGS = [
  '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan',
];

/** Where screenshots go; printed once so that a person can look at them. */
export const SHOTS = process.env.IMATCH_SHOTS ?? mkdtempSync(join(tmpdir(), 'imatch-shots-'));

function chromiumPath() {
  return process.env.CHROMIUM ?? execFileSync('/bin/sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
}

async function load(name) {
  return import(pathToFileURL(require.resolve(name)).href);
}

/** Builds the page where `build` says so and serves it with the headers of vite.config.ts. */
export async function serve(kind, { build = process.env.IMATCH_BUILT !== '1' } = {}) {
  const vite = await load('vite');
  const options = { root: WWW, configFile: join(WWW, 'vite.config.ts'), mode: kind === 'mock' ? 'mock' : 'production', logLevel: 'error' };
  if (build) await vite.build(options);
  const server = await vite.preview({ ...options, preview: { port: 0, strictPort: false } });
  const { port } = server.httpServer.address();
  return { origin: `http://127.0.0.1:${port}`, close: () => server.close() };
}

export async function launch() {
  const { chromium } = await load('playwright-core').then((module) => module.default ?? module);
  return chromium.launch({ executablePath: chromiumPath(), args: FLAGS });
}

/** What went wrong or over the wire while a page was open. */
export function watch(page) {
  const seen = { problems: [], requests: [] };
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && seen.problems.push(message.text()));
  page.on('pageerror', (error) => seen.problems.push(String(error)));
  page.context().on('request', (request) => request.url().startsWith('http') && seen.requests.push(request.url()));
  return seen;
}

/** A page of its own context, opened at `path` once the model is there (or has failed to come). */
export async function visit(browser, origin, path = '/', { wait = true, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  const seen = watch(page);
  await page.goto(origin + path);
  if (wait) await page.locator('#device-status:visible').waitFor();
  return { page, seen, context };
}

/** Takes a sample by its number. */
export async function takeSample(page, index = 0) {
  await page.locator('.sample').nth(index).click();
}

export async function score(page, timeout = 30_000) {
  await page.locator('#score').click();
  await page.locator('#result:visible').waitFor({ timeout });
  await page.locator('#score:visible').waitFor({ timeout });
}
