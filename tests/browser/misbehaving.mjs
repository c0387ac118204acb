// A server in front of a built page that also serves files of its own, and misbehaves with them when told to.
import { createHash } from 'node:crypto';
import { createServer, request as forward } from 'node:http';
import { after, beforeEach } from 'node:test';
import { gzipSync } from 'node:zlib';
import { launch, serve, until } from './harness.mjs';

/** Patience for tests: three tries within a second, and none given up for a machine that is slow. */
export const HASTY = { attempts: 3, backoffMs: 10, longestBackoffMs: 40, stallMs: 20_000 };
/** The same, for connections that are to stall. */
export const STALLING = { ...HASTY, stallMs: 1000 };

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Bytes that look like weights: the same for the same seed, and not to be compressed. */
export function weights(length, seed = 1) {
  const bytes = Buffer.alloc(length);
  for (let at = 0, state = seed * 2654435761; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

/** How much of a model the page that loads has, files before this one included. */
const reader = { loaded: 0 };

/** Sends so many bytes and ends the connection; `before` are the bytes of the model's files before this one. */
export const cut =
  (after, before = 0) =>
  (answer) =>
    answer.send(after, () => answer.end(before));
/** Sends so many bytes and then nothing more. */
export const stall = (after) => (answer) => answer.send(after, () => undefined);
/** Sends so many bytes, and the others once `released` is. */
export const hold = (after, released) => (answer) => answer.hold(after, released);
/** Ends in order after so many bytes without having said how many there are. */
export const silently = (after) => (answer) => {
  delete answer.headers['Content-Length'];
  answer.send(after, () => answer.response.end());
};
/** Sends everything without having said how much it is, and does not end. */
export const endlessly = (answer) => {
  delete answer.headers['Content-Length'];
  answer.send(Infinity, () => undefined);
};
/** Answers with a page, as if that was what was asked for. */
export const webPage = ({ response }) =>
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', ETag: '"page"' }).end(BLANK);
/** Answers for another version. */
export const as = (etag) => (answer) => {
  answer.headers.ETag = etag;
  answer.whole();
};
/** Promises so many bytes more than it sends. */
export const promise = (more) => (answer) => {
  answer.headers['Content-Length'] += more;
  answer.send(Infinity, () => answer.end());
};
/** Sends a piece every few milliseconds. */
export const drip = (piece, ms) => (answer) => answer.drip(piece, ms);
export const status =
  (code, headers = {}) =>
  (answer) =>
    answer.response.writeHead(code, headers).end();

const BLANK = '<!doctype html><meta charset="utf-8"><title>blank</title><link rel="icon" href="data:,"><body></body>';

/** Serves what `site` serves, an empty page at /blank, and what is put into it. */
export async function misbehave(site) {
  const files = new Map();
  const log = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    if (pathname === '/blank') return response.writeHead(200, { 'Content-Type': 'text/html' }).end(BLANK);
    if (pathname.startsWith('/wild/')) return serveFile(files.get(pathname), pathname, request, response, log);
    const passed = forward(
      site.origin + request.url,
      { method: request.method, headers: request.headers },
      (answer) => {
        // As hosts do with names that carry a hash: it lets the workers start without the network.
        const kept = pathname.startsWith('/assets/') ? { 'cache-control': 'max-age=3600' } : {};
        response.writeHead(answer.statusCode, { ...answer.headers, ...kept });
        answer.pipe(response);
      },
    );
    passed.on('error', () => response.destroy());
    request.pipe(passed);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    origin,
    log,
    /**
     * Serves `body` at /wild/PATH; `next` and `nextHead` are the manners of the requests to come, one each, then good
     * ones; `gzip` compresses all but parts, `more` promises so many bytes more than there are in every whole answer.
     */
    put(
      path,
      body,
      { etag = `"${sha256(body).slice(0, 12)}"`, ranges = true, ifRange = true, head = true, ...rest } = {},
    ) {
      const { gzip = false, more = 0, next = [], nextHead = [] } = rest;
      const options = { etag, ranges, ifRange, head, gzip, more, next: [...next], nextHead: [...nextHead] };
      files.set(`/wild/${path}`, { body: Buffer.from(body), ...options });
    },
    drop: (path) => files.delete(`/wild/${path}`),
    /** Ends every connection to files below /wild/ at once, or no more. */
    down(is) {
      files.down = is;
    },
    /** The requests for a file so far, and what was sent in answer. */
    asked: (path, method = 'GET') => log.filter((entry) => entry.path === `/wild/${path}` && entry.method === method),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };

  function serveFile(file, path, request, response, log) {
    const { method, headers } = request;
    const entry = {
      path,
      method,
      range: headers.range ?? null,
      condition: headers['if-range'] ?? null,
      at: performance.now(),
      status: 0,
      sent: 0,
      closed: false,
    };
    log.push(entry);
    if (files.down) return response.destroy();
    response.on('finish', () => (entry.status = response.statusCode));
    response.on('close', () => (entry.closed = true));
    if (file === undefined) return response.writeHead(404).end();
    if (method === 'HEAD' && !file.head) return response.writeHead(405).end();
    if (file.gzip && entry.range === null) {
      response.writeHead(200, { 'Content-Encoding': 'gzip', ETag: file.etag.replace(/"$/, '-gzip"') });
      return response.end(gzipSync(file.body));
    }
    const answer = new Answer(file, entry, response);
    const manner = (method === 'GET' ? file.next : file.nextHead).shift();
    return manner === undefined ? answer.whole() : manner(answer);
  }
}

/** A right answer to a request, which may be sent wrongly. */
class Answer {
  constructor(file, entry, response) {
    const { body, etag, ranges, ifRange } = file;
    Object.assign(this, { entry, response });
    reader.loaded = 0;
    const [, first] = /^bytes=(\d+)-/.exec(entry.range ?? '') ?? [];
    const [, last = body.length - 1] = /-(\d+)$/.exec(entry.range ?? '') ?? [];
    const partial = first !== undefined && ranges && (!ifRange || entry.condition === null || entry.condition === etag);
    this.code = partial ? 206 : 200;
    this.first = partial ? Number(first) : 0;
    this.bytes = partial ? body.subarray(Number(first), Number(last) + 1) : body;
    const length = this.bytes.length + (partial ? 0 : file.more);
    this.headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': length };
    if (etag !== null) this.headers.ETag = etag;
    if (partial)
      this.headers['Content-Range'] = `bytes ${first}-${Math.min(Number(last), body.length - 1)}/${body.length}`;
    if (partial && Number(first) >= body.length) {
      [this.code, this.bytes] = [416, Buffer.alloc(0)];
      Object.assign(this.headers, { 'Content-Length': 0, 'Content-Range': `bytes */${body.length}` });
    }
  }

  whole() {
    this.#head();
    this.entry.sent += this.bytes.length;
    if (Number(this.headers['Content-Length']) === this.bytes.length || this.entry.method === 'HEAD')
      this.response.end(this.bytes);
    else this.response.write(this.bytes, () => this.end());
  }

  send(most, then) {
    this.#head();
    const sent = this.bytes.subarray(0, most);
    this.entry.sent += sent.length;
    this.response.write(sent, then);
  }

  /** Ends the connection once everything sent has been read: a stream that fails drops the rest. */
  async end(before = 0) {
    const all = before + this.first + this.entry.sent;
    if (this.entry.sent > 0) await until(() => reader.loaded >= all);
    this.response.socket.end();
  }

  async hold(after, released) {
    this.#head();
    this.entry.sent += this.bytes.length;
    this.response.write(this.bytes.subarray(0, after));
    await released;
    this.response.end(this.bytes.subarray(after));
  }

  async drip(piece, ms) {
    this.#head();
    for (let at = 0; at < this.bytes.length && !this.response.destroyed; at += piece) {
      const sent = this.bytes.subarray(at, at + piece);
      this.entry.sent += sent.length;
      await new Promise((resolve) => this.response.write(sent, resolve));
      await new Promise((resolve) => setTimeout(resolve, ms));
    }
    this.response.end();
  }

  #head() {
    this.response.writeHead(this.code, this.headers);
    if (this.entry.method === 'HEAD') this.bytes = Buffer.alloc(0);
  }
}

/** Puts a converted model into the server: a manifest and one file of weights. */
export function putModel(server, name, { bytes = weights(2_000_000), manifest = {}, ...options } = {}) {
  const files = [{ path: 'model.gguf', bytes: bytes.length, sha256: sha256(bytes) }];
  server.put(`${name}/manifest.json`, JSON.stringify({ name, files, ...manifest }));
  server.put(`${name}/model.gguf`, bytes, options);
  return { address: `/wild/${name}/manifest.json`, path: `${name}/model.gguf`, bytes };
}

/** A misbehaving server and a page of it for the tests of one file, each of which starts with an empty store. */
export async function wild() {
  const site = await serve('mock');
  const server = await misbehave(site);
  const browser = await launch({ webgpu: false });
  const { page } = await embed(browser, server);
  beforeEach(() => forget(page));
  after(async () => {
    await browser.close();
    await server.close();
    await site.close();
  });
  return { browser, server, page };
}

/** A page of a new context that imports from the server what embedders import. */
export async function embed(browser, server) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${server.origin}/blank`);
  return { context, page };
}

/** Removes every stored model: what is as good as a new context, in a tenth of the time. */
export function forget(page) {
  return page.evaluate(async () => {
    const { models } = await import('/imatch.js');
    for (const { key } of await models.list()) await models.remove(key);
  });
}

const listening = new WeakSet();

/** Loads a model on the CPU and gives what became of it. */
export async function load(page, model, options = {}) {
  if (!listening.has(page)) await page.exposeFunction('report', (loaded) => void (reader.loaded = loaded));
  listening.add(page);
  return page.evaluate(
    async ([model, options]) => {
      window.downloaded = 0;
      const { Evaluator } = await import('/imatch.js');
      const { given, ...rest } = options;
      const source = given === undefined ? model : (window.files ?? []);
      const started = performance.now();
      const onProgress = ({ stage, loaded }) => {
        if (stage !== 'download') return;
        window.downloaded = loaded;
        window.report(loaded);
      };
      const outcome = await Evaluator.load({ model: source, device: 'cpu', onProgress, ...rest }).then(
        async (evaluator) => {
          const { bytes, kept, info } = evaluator;
          await evaluator.dispose();
          return { bytes, kept, name: info.model.name, sha256: info.model.sha256 };
        },
        ({ code, message }) => ({ code, message }),
      );
      return { ...outcome, ms: performance.now() - started };
    },
    [model, { patience: HASTY, ...options }],
  );
}

/** A promise and what fulfils it. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

/** What lies in the origin private file system: names with SHA-256 of files and parts, without records. */
export function stored(page) {
  return page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const found = {};
    const folder = await root.getDirectoryHandle('imatch', { create: true });
    for await (const [name, handle] of folder.entries()) {
      if (name.endsWith('.json')) continue;
      const digest = await crypto.subtle.digest('SHA-256', await (await handle.getFile()).arrayBuffer());
      found[name] = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    }
    return found;
  });
}
