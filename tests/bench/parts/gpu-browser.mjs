// Runs the wasm module in a page of Chromium with WebGPU and hooks, and gives what the hooks found.
import { execFileSync } from 'node:child_process';
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { installHooks } from './gpu-hooks.mjs';

const require = createRequire(new URL('../../../www/package.json', import.meta.url));

const FLAGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--enable-unsafe-webgpu',
  '--enable-features=Vulkan',
  // Timestamps are rounded to 0.1 ms without it.
  '--enable-webgpu-developer-features',
];
const SOFTWARE = '--use-webgpu-adapter=swiftshader';
/** Stubbed scores that are timed, after one that fills the caches. */
const STUBBED = 5;
const STUBBED_LIMIT_S = 300;
const LOAD_LIMIT_S = 900;

const HTML = '<!doctype html><meta charset="utf-8"><title>gpu</title><link rel="icon" href="data:,">';
const TYPES = { js: 'text/javascript', wasm: 'application/wasm' };

/** Serves the page, the module in the folder `pkg` and folders of files, each of them a path or bytes. */
async function serve(pkg, folders) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    // Isolated pages have finer clocks.
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    if (pathname === '/') return response.setHeader('Content-Type', 'text/html').end(HTML);
    const [, folder, name] = /^\/(\w+)\/([\w.-]+)$/.exec(pathname) ?? [];
    const source = folder === 'pkg' ? join(pkg, name) : folders[folder]?.[name];
    if (source === undefined) return response.writeHead(404).end();
    response.setHeader('Content-Type', TYPES[name.split('.').pop()] ?? 'application/octet-stream');
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const [start, end] = first === undefined ? [0, Infinity] : [Number(first), Number(last)];
    response.statusCode = first === undefined ? 200 : 206;
    if (Buffer.isBuffer(source)) return response.end(source.subarray(start, end + 1));
    const stream = createReadStream(source, { start, end, highWaterMark: 1 << 20 });
    return stream.on('error', () => response.destroy()).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, close };
}

/** The value of a promise that may take so many seconds. */
async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`did not end within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function launch({ hardware }) {
  const module = await import(pathToFileURL(require.resolve('playwright-core')).href);
  const { chromium } = module.default ?? module;
  const executablePath =
    process.env.CHROMIUM ?? execFileSync('/bin/sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
  // The browser ends with this program, also where a signal ends it.
  const signals = { handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false };
  return chromium.launch({ executablePath, args: hardware ? FLAGS : [...FLAGS, SOFTWARE], ...signals });
}

// The functions below run in the page.

async function load({ folder, files, hardware }) {
  const hooks = window.gpuHooks;
  if (hooks === undefined) throw new Error('this browser has no WebGPU');
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) throw new Error('this browser has no graphics adapter');
  const { vendor, architecture, description, isFallbackAdapter } = adapter.info;
  if (hardware && (isFallbackAdapter || /swiftshader/i.test(architecture)))
    throw new Error('this browser offers no GPU but SwiftShader');
  const { default: init, Engine, AbortFlag } = await import('/pkg/imatch.js');
  await init();
  window.flag = new AbortFlag();
  const read = async (name, offset, length) => {
    const headers = { Range: `bytes=${offset}-${offset + length - 1}` };
    return new Uint8Array(await (await fetch(`/${folder}/${name}`, { headers })).arrayBuffer());
  };
  const onProgress = ({ stage }) => hooks.enter(stage === 'selftest' ? 'load/self-test' : 'load/load');
  hooks.enter('load/load');
  window.engine = await Engine.load({ files, name: 'model', device: 'gpu', read, onProgress }, window.flag);
  hooks.enter('idle/idle');
  return { adapter: [vendor, architecture, description].filter(Boolean).join(' '), info: window.engine.info() };
}

/** Opens a picture and scores each request about it, as runs `first`, `second` and so on. Gives the results. */
async function score({ picture, requests, mode, prefix, recording }) {
  const hooks = window.gpuHooks;
  Object.assign(hooks, { mode, recording });
  const results = [];
  let opened;
  try {
    for (const [name, request] of Object.entries(requests)) {
      const run = `${prefix}${name}`;
      if (opened === undefined) {
        hooks.enter(`${run}/picture`);
        opened = await window.engine.open(new Uint8Array(picture), window.flag);
      }
      hooks.enter(`${run}/questions`);
      results.push(await opened.score(request, window.flag, ({ stage }) => hooks.enter(`${run}/${stage}`)));
      hooks.enter('idle/idle');
    }
  } finally {
    hooks.enter('idle/idle');
  }
  if (mode === 'timed') {
    hooks.mode = 'real';
    await hooks.readTimes();
  }
  return results;
}

const report = () => window.gpuHooks.report();

/** A page with the model of a folder loaded. */
async function open(site, folder, files, options) {
  const browser = await launch(options);
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(0);
    const problems = [];
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && problems.push(message.text()));
    // What a call from the module throws is not passed on to the module's caller, who would wait for ever.
    const thrown = new Promise((_, reject) => page.on('pageerror', reject));
    thrown.catch((error) => problems.push(String(error)));
    await page.addInitScript(installHooks);
    await page.goto(site.origin);
    const sizes = Object.entries(files).map(([name, source]) => ({
      name,
      bytes: Buffer.isBuffer(source) ? source.length : statSync(source).size,
      sha256: options.digests[name],
    }));
    /** Runs a function in the page for so many seconds at most. */
    const run = (seconds, task, argument) => within(seconds, Promise.race([page.evaluate(task, argument), thrown]));
    const loaded = await run(options.limit, load, { folder, files: sizes, hardware: options.hardware });
    return { browser, run, problems, loaded };
  } catch (error) {
    await browser.close();
    throw error;
  }
}

/**
 * Loads a model, scores `requests` about `picture` as they are, once more with every dispatch timed, and then with the
 * GPU stubbed out. Gives what the hooks report after each of the three, in `reports`. What takes longer than `limit`
 * seconds is given up and named in `failures`; stubbed scores are then taken in a new browser, where the model is
 * loaded from `untested`, its files without golden answers. With a limit of 0 all scores are stubbed.
 */
export async function measure({ pkg, files, untested, picture, requests, ...options }) {
  const site = await serve(pkg, { tested: files, untested });
  const outcome = { failures: [], reports: {}, stubbedRuns: [] };
  let session;
  /** Runs a step and says how long it took; whether it ended. */
  const step = async (name, work) => {
    const started = performance.now();
    try {
      await work();
      return true;
    } catch (error) {
      const last = session?.problems.at(-1);
      outcome.failures.push([`${name}: ${error.message.split('\n')[0]}`, last?.slice(0, 300)].filter(Boolean).join('; '));
      return false;
    } finally {
      console.error(`${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
    }
  };
  const load = (folder, files, limit) => async () => {
    session = await open(site, folder, files, { ...options, limit });
    outcome.loaded = session.loaded;
  };
  const scores = (limit, prefix, mode, recording = true) => async () => {
    const argument = { picture: [...picture], requests, prefix, mode, recording };
    const results = await session.run(limit, score, argument);
    if (mode === 'real') outcome.results = results;
    outcome.reports[mode] = await session.run(limit, report);
  };
  try {
    const ran =
      options.limit > 0 &&
      (await step('load', load('tested', files, options.limit))) &&
      (await step('scores', scores(options.limit, '', 'real'))) &&
      (await step('timed scores', scores(options.limit, 'timed ', 'timed')));
    if (!ran) {
      await session?.browser.close();
      session = undefined;
      if (!(await step('load without golden answers', load('untested', untested, LOAD_LIMIT_S)))) return outcome;
    }
    // The first fills the engine's caches.
    await step('stubbed scores', scores(STUBBED_LIMIT_S, 'filling ', 'stubbed'));
    for (let i = 0; i < STUBBED; i += 1) {
      const run = `stubbed ${i} `;
      if (await step('stubbed scores', scores(STUBBED_LIMIT_S, run, 'stubbed', false))) outcome.stubbedRuns.push(run);
    }
    outcome.problems = session.problems;
  } finally {
    await session?.browser.close();
    site.close();
  }
  return outcome;
}
