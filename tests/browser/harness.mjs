// Serves a built page and drives it with the Chromium that is installed. There are two pages: `mock` has a
// pretended wasm module, `real` the one in www/pkg, which must have been built.
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const WWW = fileURLToPath(new URL('../../www/', import.meta.url));
const require = createRequire(join(WWW, 'package.json'));

/** Nothing that goes to the network by itself. */
const QUIET = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** WebGPU on SwiftShader, as no GPU can be counted on. */
const WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'];

/** The pages to test. */
export const KINDS = (process.env.IMATCH_PAGES ?? 'mock').split(',');

/** Where screenshots go; printed once so that a person can look at them. */
export const SHOTS = process.env.IMATCH_SHOTS ?? mkdtempSync(join(tmpdir(), 'imatch-shots-'));

function chromiumPath() {
  return process.env.CHROMIUM ?? execFileSync('/bin/sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
}

async function load(name) {
  return import(pathToFileURL(require.resolve(name)).href);
}

async function site(kind) {
  if (kind !== 'mock' && kind !== 'real') throw new Error(`no page is called ${kind}: mock or real`);
  const options = {
    root: WWW,
    configFile: join(WWW, 'vite.config.ts'),
    mode: kind === 'mock' ? 'mock' : 'production',
    logLevel: 'error',
  };
  return { vite: await load('vite'), options };
}

export async function build(kind) {
  const { vite, options } = await site(kind);
  await vite.build(options);
}

/**
 * Serves a page with the headers of vite.config.ts, building it first unless run.mjs has; beside it whatever `routes`
 * answer, handlers by the beginning of the path.
 */
export async function serve(kind, routes = {}) {
  if (process.env.IMATCH_BUILT !== '1') await build(kind);
  const { vite, options } = await site(kind);
  const beside = {
    name: 'beside',
    configurePreviewServer({ middlewares }) {
      for (const [path, handler] of Object.entries(routes)) middlewares.use(path, handler);
    },
  };
  const server = await vite.preview({ ...options, plugins: [beside], preview: { port: 0, strictPort: false } });
  const { port } = server.httpServer.address();
  return { origin: `http://127.0.0.1:${port}`, close: () => close(server) };
}

/** Ends a server without waiting for connections that a browser kept open. */
async function close(server) {
  server.httpServer.closeAllConnections();
  await server.close();
}

export async function launch({ webgpu = true } = {}) {
  const { chromium } = await load('playwright-core').then((module) => module.default ?? module);
  return chromium.launch({ executablePath: chromiumPath(), args: webgpu ? [...QUIET, ...WEBGPU] : QUIET });
}

/** A browser with a profile on disk, as visitors have: contexts of `launch` are private windows. */
export async function launchProfile(folder, { webgpu = false } = {}) {
  const { chromium } = await load('playwright-core').then((module) => module.default ?? module);
  const args = webgpu ? [...QUIET, ...WEBGPU] : QUIET;
  return chromium.launchPersistentContext(folder, { executablePath: chromiumPath(), args });
}

/** What went wrong or over the wire while a page was open. */
export function watch(page) {
  const seen = { problems: [], requests: [] };
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && seen.problems.push(message.text()));
  page.on('pageerror', (error) => seen.problems.push(String(error)));
  page.context().on('request', (request) => request.url().startsWith('http') && seen.requests.push(request.url()));
  return seen;
}

/** An empty page of the site, from which tests import what the site serves. */
export async function blank(browser, site) {
  const page = await browser.newPage();
  const seen = watch(page);
  const body = '<!doctype html><meta charset="utf-8"><title>blank</title><link rel="icon" href="data:,"><body></body>';
  await page.route(`${site.origin}/blank`, (route) => route.fulfill({ contentType: 'text/html', body }));
  await page.goto(`${site.origin}/blank`);
  return { page, seen };
}

/**
 * A page of its own context, opened at `path` once the samples are there and the model is (or has failed to come);
 * `before` may do something to the context first.
 */
export async function visit(browser, origin, path = '/', { wait = true, before, ...options } = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    reducedMotion: 'reduce',
    ...options,
  });
  await before?.(context);
  const page = await context.newPage();
  const seen = watch(page);
  await page.goto(origin + path);
  if (wait) {
    await page.locator('.sample').first().waitFor();
    await idle(page);
  }
  return { page, seen, context };
}

/**
 * Waits until nothing is being loaded or scored. Whatever loads or scores hides the line before the click or key that
 * asked for it is answered, so that the line is never one from before.
 */
export function idle(page, timeout = 30_000) {
  return page.locator('#device-status:visible').waitFor({ timeout });
}

/** Takes a sample by its number. */
export async function takeSample(page, index = 0) {
  await page.locator('.sample').nth(index).click();
}

export async function score(page, timeout = 30_000) {
  await page.locator('#score').click();
  await scored(page, timeout);
}

/** Waits for the next result: it takes the focus, which whatever asked for it took from the result before. */
export function scored(page, timeout = 30_000) {
  return page.locator('#result-title:focus').waitFor({ timeout });
}

/** Waits until `condition` holds here, in the test: for what a server has seen. */
export async function until(condition) {
  for (const end = Date.now() + 30_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`not within 30 s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
