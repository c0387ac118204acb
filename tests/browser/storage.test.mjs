// What the browser keeps: reuse without the network, quota, several tabs, removal, fallbacks, files that are given.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { launch, launchProfile, serve } from './harness.mjs';
import {
  HASTY,
  cut,
  drip,
  embed,
  forget,
  load,
  misbehave,
  putModel,
  sha256,
  status,
  stored,
  weights,
} from './misbehaving.mjs';

let browser, site, server, page;
before(async () => {
  site = await serve('mock');
  server = await misbehave(site);
  browser = await launch({ webgpu: false });
  ({ page } = await embed(browser, server));
});
beforeEach(() => forget(page));
after(async () => {
  await browser?.close();
  await server?.close();
  await site?.close();
});

const models = (page, method, ...args) =>
  page.evaluate(
    async ([method, args]) => {
      const { models } = await import('/imatch.js');
      return models[method](...args).then(
        (value) => value ?? null,
        ({ code, message }) => ({ code, message }),
      );
    },
    [method, args],
  );

const look = (page, model) =>
  page.evaluate(
    async ([model, patience]) => {
      const { inspect } = await import('/imatch.js');
      return inspect({ model: model ?? window.files, patience }).catch(({ code, message }) => ({ code, message }));
    },
    [model, HASTY],
  );

test('a stored model needs no request but for its manifest, and none at all offline', async () => {
  const { context, page } = await embed(browser, server);
  const { address, path } = putModel(server, 'kept');
  const first = await load(page, address);
  assert.deepEqual(first.kept, { kind: 'opfs', reason: null, persisted: null });
  const before = server.log.length;
  assert.equal((await load(page, address)).code, undefined);
  assert.deepEqual(
    server.log.slice(before).map(({ path }) => path),
    ['/wild/kept/manifest.json'],
  );
  await context.setOffline(true);
  const offline = await load(page, address);
  assert.equal(offline.code, undefined, offline.message);
  await context.setOffline(false);
  server.down(true);
  const unreachable = await load(page, address);
  server.down(false);
  assert.equal(unreachable.code, undefined, unreachable.message);
  assert.equal(server.asked(path).length, 1);
  await context.close();
});

test('offline, a model that is not all there is an error, and online it goes on', async () => {
  const { address, path } = putModel(server, 'half', { next: [cut(900_000), status(404)] });
  assert.equal((await load(page, address)).code, 'network');
  server.down(true);
  assert.equal((await load(page, address)).code, 'network');
  server.down(false);
  assert.equal((await load(page, address)).code, undefined);
  assert.equal(server.asked(path).at(-1).range, 'bytes=900000-');
});

test('a new manifest fetches what changed and drops what is not needed any more', async () => {
  putModel(server, 'update');
  await load(page, '/wild/update/manifest.json');
  const fresh = weights(1_000_000, 7);
  const files = [{ path: 'new.gguf', bytes: fresh.length, sha256: sha256(fresh) }];
  server.put('update/manifest.json', JSON.stringify({ name: 'update', files }));
  server.put('update/new.gguf', fresh);
  assert.equal((await load(page, '/wild/update/manifest.json')).code, undefined);
  assert.deepEqual(Object.values(await stored(page)), [sha256(fresh)]);
});

test('files without a digest are asked for their version, and fetched again when it changed', async () => {
  const pair = ['/wild/tags/mmproj-x.gguf', '/wild/tags/x.gguf'];
  for (const [index, path] of ['tags/x.gguf', 'tags/mmproj-x.gguf'].entries())
    server.put(path, weights(200_000, index));
  await load(page, pair);
  await load(page, [...pair].reverse());
  assert.equal(server.asked('tags/x.gguf').length, 1);
  server.put('tags/x.gguf', weights(200_000, 9));
  await load(page, pair);
  assert.equal(server.asked('tags/x.gguf').length, 2);
  assert.ok(Object.values(await stored(page)).includes(sha256(weights(200_000, 9))));
  assert.equal(server.asked('tags/mmproj-x.gguf').length, 1);
});

for (const [what, etag] of [
  ['marks versions', undefined],
  ['marks no versions', null],
])
  test(`without its server a model is of one version, or an error: a server that ${what}`, async () => {
    const names = ['d.gguf', 'mmproj-d.gguf'].map((name) => `version-${what.length}/${name}`);
    const pair = names.map((name) => `/wild/${name}`);
    const put = (version, ...next) =>
      names.forEach((name, index) =>
        server.put(name, weights(200_000, 10 * version + index), { etag, next: next[index] ?? [] }),
      );
    const unreachable = async () => {
      server.down(true);
      const outcome = await load(page, pair);
      server.down(false);
      return outcome;
    };
    put(1);
    const first = await load(page, pair);
    assert.equal(first.code, undefined, first.message);
    put(2, [cut(100_000), status(404)]);
    assert.equal((await load(page, pair)).code, 'network');
    assert.equal((await unreachable()).sha256, first.sha256, 'the first version is still there');
    put(2, [], [cut(100_000), status(404)]);
    assert.equal((await load(page, pair)).code, 'network');
    assert.equal((await unreachable()).code, 'network', 'half of each version is there');
    const second = await load(page, pair);
    assert.notEqual(second.sha256, first.sha256, second.message);
    assert.equal((await unreachable()).sha256, second.sha256);
  });

test('what was begun of an update is counted, goes on, and is removed with the model', async () => {
  const old = putModel(server, 'begun');
  await load(page, old.address);
  const fresh = weights(1_000_000, 7);
  const files = [{ path: 'new.gguf', bytes: fresh.length, sha256: sha256(fresh) }];
  server.put('begun/manifest.json', JSON.stringify({ name: 'begun', files }));
  server.put('begun/new.gguf', fresh, { next: [cut(600_000), status(404)] });
  assert.equal((await load(page, old.address)).code, 'network');
  server.down(true);
  assert.equal((await load(page, old.address)).code, undefined, 'the old version is whole');
  server.down(false);
  const [{ key, bytes, complete }] = await models(page, 'list');
  assert.deepEqual([bytes, complete, (await models(page, 'usage')).bytes], [2_600_000, true, 2_600_000]);
  await models(page, 'remove', key);
  assert.deepEqual(await stored(page), {});
  assert.equal((await models(page, 'usage')).bytes, 0);
});

test('stored bytes that rotted are found, removed and fetched again', async () => {
  const { address, path, bytes } = putModel(server, 'rot');
  await load(page, address);
  await page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('imatch');
    for await (const [name, handle] of folder.entries()) {
      if (name.includes('.')) continue;
      const writable = await handle.createWritable({ keepExistingData: true });
      await writable.write({ type: 'write', position: 1000, data: new Uint8Array([1, 2, 3]) });
      await writable.close();
    }
  });
  const failed = await load(page, address);
  assert.equal(failed.code, 'integrity', JSON.stringify(failed));
  assert.deepEqual(await stored(page), {});
  assert.equal((await load(page, address)).code, undefined);
  assert.equal(server.asked(path).length, 2);
  assert.deepEqual(Object.values(await stored(page)), [sha256(bytes)]);
});

test('a model without room is refused before it is fetched, with both numbers', async () => {
  const disk = mkdtempSync(join(tmpdir(), 'imatch-profile-'));
  const profile = await launchProfile(disk);
  const page = await profile.newPage();
  await page.goto(`${server.origin}/blank`);
  const { address, path } = putModel(server, 'quota', { bytes: weights(6_000_000) });
  const session = await profile.newCDPSession(page);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.origin, quotaSize: 4_000_000 });
  const failed = await load(page, address);
  assert.equal(failed.code, 'quota', failed.message);
  const [, left] =
    /^the model needs 6\.0 MB more, and the browser has (\d\.\d) MB left for this site$/.exec(failed.message) ?? [];
  // Chromium hands room out by the megabyte.
  assert.ok(left >= 1 && left <= 4, failed.message);
  assert.equal(server.asked(path).length, 0);
  const memory = await load(page, address, { storage: 'memory' });
  assert.equal(memory.code, undefined, memory.message);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.origin });
  assert.equal((await load(page, address)).code, undefined);
  await profile.close();
  rmSync(disk, { recursive: true });
});

test('room that runs out on the way is the same failure', async () => {
  const { context, page } = await embed(browser, server);
  const { address, path } = putModel(server, 'room', { bytes: weights(3_000_000) });
  const session = await context.newCDPSession(page);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.origin, quotaSize: 1_500_000 });
  const failed = await load(page, address);
  assert.equal(failed.code, 'quota');
  assert.match(failed.message, /^model\.gguf: the browser’s storage for this site was full after [01]\.\d of 3\.0 MB$/);
  await session.send('Storage.overrideQuotaForOrigin', { origin: server.origin });
  assert.equal((await load(page, address)).code, undefined);
  assert.match(server.asked(path).at(-1).range, /^bytes=[1-9]\d+-$/);
  await context.close();
});

test('two tabs at once download a model once', async () => {
  const { context, page } = await embed(browser, server);
  const { address, path } = putModel(server, 'tabs', { next: [drip(200_000, 50)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const outcomes = await Promise.all([load(page, address), load(other, address)]);
  assert.deepEqual(
    outcomes.map(({ code }) => code),
    [undefined, undefined],
    JSON.stringify(outcomes),
  );
  assert.equal(server.asked(path).length, 1);
  await context.close();
});

test('models are listed with their sizes and removed, but for what others need', async () => {
  for (const [index, name] of ['a', 'b', 'mmproj'].entries()) server.put(`shelf/${name}.gguf`, weights(100_000, index));
  const pairs = ['a', 'b'].map((name) => [`/wild/shelf/${name}.gguf`, '/wild/shelf/mmproj.gguf']);
  for (const pair of pairs) await load(page, pair);
  assert.equal(server.asked('shelf/mmproj.gguf').length, 1);
  const broken = putModel(server, 'broken', { next: [cut(500_000), status(404)] });
  await load(page, broken.address);

  const listed = await models(page, 'list');
  const facts = listed.map(({ name, form, bytes, complete, storage }) => [name, form, bytes, complete, storage]);
  assert.deepEqual(facts, [
    ['a', 'gguf', 200_000, true, 'opfs'],
    ['b', 'gguf', 200_000, true, 'opfs'],
    ['broken', 'converted', 500_000, false, 'opfs'],
  ]);
  const usage = await models(page, 'usage');
  assert.equal(usage.bytes, 800_000);
  assert.ok(usage.free > 1e6 && usage.persisted === false);

  await models(page, 'remove', listed[0].key);
  assert.equal((await models(page, 'usage')).bytes, 700_000);
  server.down(true);
  assert.equal((await load(page, pairs[1])).code, undefined, 'the other model still has all its files');
  assert.equal((await load(page, pairs[0])).code, 'network');
  server.down(false);
  for (const { key } of listed) await models(page, 'remove', key);
  assert.deepEqual(await models(page, 'list'), []);
  assert.deepEqual(await stored(page), {});
  assert.equal((await load(page, pairs[0])).code, undefined);
});

test('a model that another tab is downloading is not removed under its hands', async () => {
  const { context, page } = await embed(browser, server);
  const { address, path } = putModel(server, 'busy', { next: [drip(200_000, 100)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const loading = load(other, address);
  while (server.asked(path).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const [{ key }] = await models(page, 'list');
  const refused = await models(page, 'remove', key);
  assert.deepEqual(refused, { code: 'io', message: 'model.gguf: it is being downloaded at the moment' });
  assert.equal((await loading).code, undefined);
  assert.equal(await models(page, 'remove', key), null);
  assert.deepEqual(await models(page, 'list'), []);
  await context.close();
});

test('of a model that is partly being downloaded nothing is removed', async () => {
  const { context, page } = await embed(browser, server);
  const names = ['d.gguf', 'mmproj-d.gguf'].map((name) => `partly/${name}`);
  const pair = names.map((name) => `/wild/${name}`);
  server.put(names[0], weights(100_000));
  server.put(names[1], weights(1_000_000), { next: [drip(200_000, 100)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const loading = load(other, pair);
  while (server.asked(names[1]).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const [{ key }] = await models(page, 'list');
  const refused = await models(page, 'remove', key);
  assert.deepEqual(refused, { code: 'io', message: 'mmproj-d.gguf: it is being downloaded at the moment' });
  assert.ok(Object.values(await stored(page)).includes(sha256(weights(100_000))));
  assert.equal((await loading).code, undefined);
  await context.close();
});

test('without locks a file is still downloaded once at a time within one page', async () => {
  const { context, page } = await lacking('Object.defineProperty(navigator, "locks", { value: undefined })');
  const { address, path, bytes } = putModel(server, 'lockless', { next: [drip(200_000, 50)] });
  const both = Promise.all([load(page, address), load(page, address)]);
  while (server.asked(path).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const [{ key }] = await models(page, 'list');
  assert.equal((await models(page, 'remove', key))?.code, 'io');
  assert.deepEqual((await both).map(({ code }) => code), [undefined, undefined]);
  assert.equal(server.asked(path).length, 1);
  assert.deepEqual(Object.values(await stored(page)), [sha256(bytes)]);
  await context.close();
});

/** A page whose downloader finds some of what browsers have missing. */
async function lacking(code) {
  const context = await browser.newContext();
  await context.route('**/assets/downloader-*.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${code};${await response.text()}` });
  });
  const page = await context.newPage();
  await page.goto(`${server.origin}/blank`);
  return { context, page };
}
const NO_OPFS = 'delete StorageManager.prototype.getDirectory';
const NO_CACHE = 'Object.defineProperty(self, "caches", { value: undefined })';

for (const [kind, code, reason] of [
  ['cache', NO_OPFS, /^this browser has no private file system here$/],
  [
    'memory',
    `${NO_OPFS};${NO_CACHE}`,
    /^this browser has no private file system here; this browser has no cache storage here$/,
  ],
])
  test(`without better storage ${kind} is used, says so, resumes, lists and forgets`, async () => {
    const { context, page } = await lacking(code);
    const { address, path, bytes } = putModel(server, `in-${kind}`, {
      bytes: weights(9_000_000, 5),
      next: [cut(5_000_000), status(404)],
    });
    assert.equal((await load(page, address)).code, 'network');
    const { kept, message, bytes: loaded } = await load(page, address);
    assert.equal(kept?.kind, kind, message);
    assert.match(kept.reason, reason);
    assert.ok(loaded > bytes.length);
    const from = Number(/^bytes=(\d+)-$/.exec(server.asked(path).at(-1).range)?.[1]);
    assert.ok(from >= 4 * 1024 * 1024 && from <= 5_000_000, `from ${from}`);
    await load(page, address);
    assert.equal(server.asked(path).length, 3);
    const [{ key, complete, storage, bytes: size }] = await models(page, 'list');
    assert.deepEqual([complete, storage, size], [true, kind, bytes.length]);
    if (kind === 'cache') {
      await page.evaluate(async () => {
        const cache = await caches.open('imatch');
        for (const { url } of await cache.keys()) if (url.includes('/pieces/')) await cache.delete(url);
      });
      const [{ bytes: noted }] = await models(page, 'list');
      assert.equal(noted, bytes.length, 'pieces are not opened for a list');
      assert.equal((await load(page, address)).code, undefined);
      assert.equal(server.asked(path).length, 4, 'what is gone is fetched again');
    }
    await models(page, 'remove', key);
    assert.deepEqual([await models(page, 'list'), (await models(page, 'usage')).bytes], [[], 0]);
    await context.close();
  });

test('a storage that was asked for and is not there is an error', async () => {
  const { context, page } = await lacking(NO_OPFS);
  const { address } = putModel(server, 'asked');
  const failed = await load(page, address, { storage: 'opfs' });
  assert.deepEqual(
    [failed.code, failed.message],
    ['unsupported', 'storage opfs: this browser has no private file system here'],
  );
  await context.close();
});

test('beyond 32 MB the browser is asked to keep the model', async () => {
  const { address } = putModel(server, 'large', { bytes: Buffer.alloc(34 * 1024 * 1024, 7) });
  const { kept, message } = await load(page, address);
  assert.equal(typeof kept?.persisted, 'boolean', message);
});

function putFolder(name, { sharded = false, scoring = true } = {}) {
  for (const file of ['config', 'preprocessor_config', 'tokenizer']) server.put(`${name}/${file}.json`, '{}');
  if (scoring) server.put(`${name}/imatch.json`, '{}');
  const shards = sharded ? ['part-1.safetensors', 'part-2.safetensors'] : ['model.safetensors'];
  for (const [index, shard] of shards.entries()) server.put(`${name}/${shard}`, weights(60_000, index));
  const map = Object.fromEntries(shards.map((shard, index) => [`w${index}`, shard]));
  if (sharded) server.put(`${name}/model.safetensors.index.json`, JSON.stringify({ weight_map: map }));
}

for (const options of [{}, { sharded: true, scoring: false }])
  test(`a Hugging Face folder loads by its config.json ${JSON.stringify(options)}`, async () => {
    const name = `hf-${options.sharded === true}`;
    putFolder(name, options);
    const { bytes, message, name: called } = await load(page, `/wild/${name}/config.json`);
    assert.deepEqual([message, called], [undefined, name]);
    assert.ok(bytes > (options.sharded ? 120_000 : 60_000));
    server.down(true);
    const offline = await load(page, `/wild/${name}/config.json`);
    server.down(false);
    assert.equal(offline.code, undefined, offline.message);
    server.drop(`${name}/preprocessor_config.json`);
    const failed = await load(page, `/wild/${name}/config.json`);
    assert.deepEqual(
      [failed.code, failed.message],
      ['invalid_model', "preprocessor_config.json: not among the model's files"],
    );
  });

test('a decoder alone finds its mmproj file, or says that there is none', async () => {
  server.put('single/model-q8_0.gguf', weights(1000));
  const failed = await load(page, '/wild/single/model-q8_0.gguf');
  assert.equal(failed.code, 'invalid_input');
  assert.match(failed.message, /^model-q8_0\.gguf: no mmproj file of a known name lies beside it/);
  server.put('single/mmproj-q8_0.gguf', weights(2000));
  const { bytes, message } = await load(page, '/wild/single/model-q8_0.gguf');
  assert.equal(bytes, 3000, message);
});

test('what names no model is one sentence', async () => {
  server.put('odd/manifest.json', 'no JSON');
  server.put('odd/list.json', '{"files": []}');
  server.put('odd/half.json', '{"files": [{"path": "\\ud800", "bytes": 1}]}');
  server.put('odd/twice.json', JSON.stringify({ files: Array(2).fill({ path: 'a', bytes: 1 }) }));
  for (const [model, code, message] of [
    [[], 'invalid_input', 'no model was given'],
    ['http://', 'invalid_input', '"http://" is no address'],
    [['/a.gguf', '/b.gguf', '/c.gguf'], 'invalid_input', /^not one model: \S+\/a\.gguf, \S+\/b\.gguf, \S+\/c\.gguf; give /],
    [['/a.gguf', '/b.bin'], 'invalid_input', 'b.bin: a list of addresses is taken for .gguf files'],
    [['/x/a.gguf', '/y/a.gguf'], 'invalid_input', /^not one model: \S+\/x\/a\.gguf, \S+\/y\/a\.gguf; give /],
    ['/wild/odd/100%.gguf', 'invalid_input', /^100%\.gguf: no mmproj file of a known name/],
    ['data:text/plain,x', 'invalid_input', /^"data:text\/plain,x" is no address of a model: /],
    ['mailto:someone', 'invalid_input', /^"mailto:someone" is no address of a model: /],
    ['/wild/odd/half.json', 'invalid_model', /^manifest\.json: the path .* leads outside/],
    ['/wild/odd/manifest.json', 'invalid_model', 'manifest.json: not JSON'],
    ['/wild/odd/list.json', 'invalid_model', 'manifest.json: lists no files'],
    ['/wild/odd/twice.json', 'invalid_model', 'manifest.json: lists a twice'],
  ]) {
    const failed = await load(page, model);
    assert.equal(failed.code, code, failed.message);
    if (message instanceof RegExp) assert.match(failed.message, message);
    else assert.equal(failed.message, message);
  }
});

test('a decoder in parts and its mmproj file are one model, by one address, by all, and as files', async () => {
  const parts = [1, 2, 3].map((part) => `split/m-0000${part}-of-00003.gguf`);
  for (const [index, path] of [...parts, 'split/mmproj-m.gguf'].entries()) server.put(path, weights(1000, index));
  for (const model of [`/wild/${parts[1]}`, ['/wild/split/mmproj-m.gguf', ...parts.map((path) => `/wild/${path}`)]]) {
    const { name, bytes, message } = await load(page, model);
    assert.deepEqual([name, bytes], ['m', 4000], message);
  }
  const given = (...paths) =>
    page.evaluate(async (paths) => {
      const { Evaluator } = await import('/imatch.js');
      const files = paths.map((path) => {
        const made = new File(['{}'], path.split('/').at(-1));
        Object.defineProperty(made, 'webkitRelativePath', { value: path });
        return made;
      });
      return Evaluator.load({ model: files, device: 'cpu' }).then(
        async (evaluator) => [evaluator.info.model.name, evaluator.bytes],
        ({ message }) => message,
      );
    }, paths);
  assert.deepEqual(await given('repo/mmproj-m.gguf', ...parts), ['m', 8]);
  assert.match(
    await given('a/m-00001-of-00002.gguf', 'a/n-00002-of-00002.gguf', 'a/mmproj-m.gguf'),
    /^not one model: a\/m-00001-of-00002\.gguf, a\/n-00002-of-00002\.gguf, a\/mmproj-m\.gguf; /,
  );
  assert.match(await given('a/manifest.json', 'b/manifest.json'), /^not one model: a\/manifest\.json, b\/manifest\.json; /);
  assert.match(await given('a/config.json', 'b/m.gguf', 'a/x.safetensors'), /^not one model: a\/config\.json, b\/m\.gguf; /);
});

test('a model is looked at without being downloaded', async () => {
  const { address, path, bytes } = putModel(server, 'look', { bytes: weights(6_000_000) });
  const found = await look(page, address);
  assert.equal(found.form, 'converted', JSON.stringify(found));
  assert.ok(found.download_bytes > bytes.length);
  const sent = server.asked(path).reduce((sum, entry) => sum + entry.sent, 0);
  assert.ok(sent > 0 && sent < 10_000, `${sent} bytes`);
  assert.deepEqual(await stored(page), {});
  putFolder('look-hf');
  server.put('look-hf/tokenizer.json', JSON.stringify('x'.repeat(5000)), { gzip: true });
  const folder = await look(page, '/wild/look-hf/config.json');
  assert.equal(folder.form, 'hugging_face', 'what is compressed on the way has a length too');
  assert.ok(folder.download_bytes > 65_000);
  for (const count of [1, 1]) {
    assert.equal((await load(page, '/wild/look-hf/config.json')).code, undefined);
    const whole = server.asked('look-hf/tokenizer.json').filter(({ range }) => range === null);
    assert.equal(whole.length, count);
  }
  await forget(page);
  server.put(path, bytes, { ranges: false });
  assert.deepEqual(await look(page, address), {
    code: 'unsupported',
    message: 'model.gguf: the server sends no parts of files, so it can be looked at only when it is downloaded',
  });
  await load(page, address);
  assert.equal((await look(page, address)).form, 'converted', 'a stored copy is read instead');
});

/** Chooses files from disk, as a visitor does, and leaves them in `window.files`. */
async function choose(page, paths) {
  await page.setContent('<input type="file" multiple>');
  await page.locator('input').setInputFiles(paths);
  await page.evaluate(() => (window.files = [...document.querySelector('input').files]));
}

test('files that are given load without the network; wrong sets are named', async () => {
  const disk = mkdtempSync(join(tmpdir(), 'imatch-given-'));
  const file = (name, bytes) => {
    mkdirSync(join(disk, name, '..'), { recursive: true });
    writeFileSync(join(disk, name), bytes);
    return join(disk, name);
  };
  const given = async (...paths) => {
    await choose(page, paths);
    return load(page, null, { given: true });
  };
  const [a, b, notes] = [file('a.gguf', weights(5000)), file('mmproj-a.gguf', weights(6000)), file('notes.txt', 'x')];
  const before = server.log.length;
  const pair = await given(a, b, notes);
  assert.deepEqual([pair.name, pair.bytes, pair.kept], ['a', 11_000, { kind: 'files', reason: null, persisted: null }], pair.message);
  const { form, name } = await look(page, null);
  assert.deepEqual([form, name], ['gguf', 'a']);
  assert.equal(
    (await given(a, b, file('config.json', '{}'))).bytes,
    11_000,
    'a configuration beside a pair is not its root',
  );
  const body = weights(4000);
  const entry = { path: 'model.gguf', bytes: 4000, sha256: sha256(body) };
  const manifest = file('converted/manifest.json', JSON.stringify({ files: [entry] }));
  const model = file('converted/model.gguf', body);
  assert.equal((await given(manifest, model)).code, undefined);
  assert.deepEqual(server.log.slice(before), []);

  for (const [paths, code, message] of [
    [[a], 'invalid_model', 'a.gguf came alone: a GGUF model has two files, the decoder and the mmproj file'],
    [
      [notes],
      'invalid_model',
      /^no model among the files given \(notes\.txt\): it takes manifest\.json or config\.json/,
    ],
    [[manifest], 'invalid_model', 'model.gguf: part of the model, and not among the files given'],
    [[manifest, file('short/model.gguf', 'x')], 'integrity', 'model.gguf: 1 bytes, the manifest promises 4000'],
    [[manifest, file('other/model.gguf', weights(4000, 3))], 'integrity', /^model\.gguf: SHA-256 /],
    [[file('hf/config.json', '{}')], 'invalid_model', "preprocessor_config.json: not among the model's files"],
  ]) {
    const failed = await given(...paths);
    assert.equal(failed.code, code);
    if (message instanceof RegExp) assert.match(failed.message, message);
    else assert.equal(failed.message, message);
  }

  await choose(page, [a, b]);
  appendFileSync(a, 'more');
  const changed = await load(page, null, { given: true });
  assert.deepEqual(
    [changed.code, changed.message],
    ['io', 'a.gguf: the file was changed, moved or removed after it was chosen'],
  );
  rmSync(disk, { recursive: true });
});

test('a folder is taken whole, by its paths', async () => {
  const found = await page.evaluate(async () => {
    const { Evaluator } = await import('/imatch.js');
    const file = (path, content) => {
      const made = new File([content], path.split('/').at(-1));
      Object.defineProperty(made, 'webkitRelativePath', { value: path });
      return made;
    };
    const index = JSON.stringify({ weight_map: { a: 'one.safetensors', b: 'two.safetensors' } });
    const names = ['config.json', 'preprocessor_config.json', 'tokenizer.json', 'one.safetensors', 'two.safetensors'];
    const files = names.map((name) => file(`qwen/${name}`, '{}'));
    files.push(file('qwen/model.safetensors.index.json', index), file('qwen/old/config.json', 'another'));
    const evaluator = await Evaluator.load({ model: files, device: 'cpu' });
    return { name: evaluator.info.model.name, bytes: evaluator.bytes, expected: 10 + index.length };
  });
  assert.deepEqual([found.name, found.bytes], ['qwen', found.expected]);
});
