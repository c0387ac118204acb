// What scoring costs in Chromium: on the CPU, and on WebGPU, which is SwiftShader where there is no GPU.
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { launchProfile, serve } from '../../browser/harness.mjs';

const FILES = ['decoder.gguf', 'mmproj.gguf'];
/** Seconds that each phase may take. A software device needs an hour for what a GPU does in a second. */
const LIMITS_S = { load: 1800, open: 1800, one: 3600, more: 7200 };

/** Sends files of a folder, whole or by range. */
function ranged(folder) {
  return (request, response, next) => {
    const path = join(folder, basename(new URL(request.url, 'http://localhost').pathname));
    if (!existsSync(path)) return next();
    const { size, mtimeMs } = statSync(path);
    const etag = `"${size}-${mtimeMs}"`;
    const headers = { 'Content-Type': 'application/octet-stream', 'Accept-Ranges': 'bytes', ETag: etag };
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    const isPart = first !== undefined && [undefined, etag].includes(request.headers['if-range']);
    const start = isPart ? Number(first) : 0;
    const end = isPart && last !== '' ? Math.min(Number(last), size - 1) : size - 1;
    if (start > end) return response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end();
    headers['Content-Length'] = end - start + 1;
    if (isPart) headers['Content-Range'] = `bytes ${start}-${end}/${size}`;
    response.writeHead(isPart ? 206 : 200, headers);
    if (request.method === 'HEAD') return response.end();
    const file = createReadStream(path, { start, end, highWaterMark: 1 << 20 });
    response.on('close', () => file.destroy());
    return file.pipe(response);
  };
}

/** The value of a promise that may take so long. */
async function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} takes more than ${seconds} s, the limit here`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// What follows runs in the page, which keeps the evaluator and the picture between the phases.

async function load({ model, device }) {
  const { Evaluator } = await import('/imatch.js');
  window.longest = 0;
  const tasks = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
  });
  tasks.observe({ type: 'longtask' });
  const started = performance.now();
  let downloaded = started;
  const onProgress = ({ stage }) => {
    if (stage === 'download') downloaded = performance.now();
  };
  window.evaluator = await Evaluator.load({ model, device, software: true, onProgress });
  const ended = performance.now();
  // Tasks are reported later than they end.
  await new Promise((resolve) => setTimeout(resolve, 500));
  tasks.disconnect();
  const { info, device: used } = window.evaluator;
  return { download: downloaded - started, load: ended - downloaded, longest: window.longest, info, used };
}

async function open(picture) {
  window.picture = await window.evaluator.open(new Blob([new Uint8Array(picture)]));
}

async function score(request) {
  const result = await window.picture.score(request);
  return { result, info: window.evaluator.info };
}

/** The phases on one device; a phase that fails leaves what was found before it. */
async function measure(page, device, { model, picture, prompt, elements }) {
  const figures = {};
  const outcome = { device, figures };
  const phase = async (name, what, task, argument) => {
    const started = performance.now();
    const value = await within(LIMITS_S[name], `${device}: ${what}`, page.evaluate(task, argument));
    console.error(`${device}: ${what} took ${((performance.now() - started) / 1000).toFixed(0)} s`);
    return value;
  };
  const sizes = ({ heap_bytes: memory, device_bytes: bytes }) => Object.assign(figures, { memory, device: bytes });
  try {
    const { info, used, ...loaded } = await phase('load', 'loading', load, { model, device });
    Object.assign(figures, loaded);
    sizes(info);
    if (used !== device) throw new Error(`${device}: the model was loaded on ${used}`);
    await phase('open', 'the picture', open, picture);
    const one = await phase('one', 'the first score', score, { prompt, elements: elements.slice(0, 1) });
    const { image, questions } = one.result.timings_ms;
    Object.assign(figures, { image, one: questions });
    const more = await phase('more', 'the second score', score, { prompt, elements });
    figures.more = more.result.timings_ms.questions;
    sizes(more.info);
    outcome.result = more.result;
  } catch (error) {
    outcome.failure = error.message;
  }
  return outcome;
}

/** Loads the model in `folder` on each device and scores a picture with one element and with all; gives what it cost. */
export async function* measureInChromium({ folder, image, devices, prompt, elements }) {
  const site = await serve('real', { '/full-size': ranged(folder) });
  const profile = mkdtempSync(join(tmpdir(), 'imatch-profile-'));
  const browser = await launchProfile(profile, { webgpu: true });
  try {
    const body = '<!doctype html><title>full-size</title><link rel="icon" href="data:,">';
    await browser.route(`${site.origin}/bench`, (route) => route.fulfill({ contentType: 'text/html', body }));
    const model = FILES.map((name) => `${site.origin}/full-size/${name}`);
    const request = { model, picture: [...readFileSync(image)], prompt, elements };
    for (const device of devices) {
      const page = await browser.newPage();
      await page.goto(`${site.origin}/bench`);
      yield await measure(page, device, request);
      await page.close();
    }
  } finally {
    await browser.close();
    await site.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
