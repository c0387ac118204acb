// What the browser keeps: reuse without the network, quota, several tabs, removal, fallbacks.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { launchProfile, until } from './harness.mjs';
import { cut, embed, gate, hold, load, putModel, sha256, status, stored, weights, webPage, wild } from './misbehaving.mjs';

const { browser, server, page } = await wild();

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

test('a host that sends a page for everything is as good as none', async () => {
  const pair = ['/wild/page/d.gguf', '/wild/page/mmproj-d.gguf'];
  for (const [index, name] of ['d', 'mmproj-d'].entries()) server.put(`page/${name}.gguf`, weights(200_000, index));
  await load(page, pair);
  const before = await stored(page);
  for (const name of ['d', 'mmproj-d'])
    server.put(`page/${name}.gguf`, weights(200_000, 5), { nextHead: [webPage] });
  const closed = await load(page, pair);
  assert.equal(closed.code, undefined, closed.message);
  assert.deepEqual(await stored(page), before);
  for (const name of ['d', 'mmproj-d']) assert.equal(server.asked(`page/${name}.gguf`).length, 1);
  server.put('page/manifest.json', '{}', { next: [webPage] });
  const manifest = await load(page, '/wild/page/manifest.json');
  assert.equal(manifest.message, 'manifest.json: the server answered with a web page');
  assert.equal((await load(page, pair)).code, undefined);
  assert.deepEqual(Object.values(await stored(page)), Array(2).fill(sha256(weights(200_000, 5))), 'it is back');
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
    put(2, [], [cut(100_000, 200_000), status(404)]);
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

for (const [form, what] of [
  ['converted', 'model.gguf: '],
  ['pair', 'd.gguf: the stored copy was damaged and has been removed; loading again fetches it anew'],
])
  test(`stored bytes that rotted are found, removed and fetched again: ${form}`, async () => {
    const bytes = weights(300_000);
    const converted = form === 'converted' ? putModel(server, 'rot', { bytes }) : null;
    for (const [index, name] of ['d', 'mmproj-d'].entries())
      server.put(`rot/${name}.gguf`, weights(300_000, 1 + index));
    const model = converted?.address ?? ['/wild/rot/d.gguf', '/wild/rot/mmproj-d.gguf'];
    const path = converted?.path ?? 'rot/d.gguf';
    await load(page, model);
    await page.evaluate(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('imatch');
      for await (const [name, handle] of folder.entries()) {
        const record = name.includes('.') ? null : await folder.getFileHandle(`${name}.json`);
        if (record === null || /mmproj/.test(await (await record.getFile()).text())) continue;
        const writable = await handle.createWritable({ keepExistingData: true });
        await writable.write({ type: 'write', position: 1000, data: new Uint8Array([1, 2, 3]) });
        await writable.close();
      }
    });
    const failed = await load(page, model);
    assert.equal(failed.code, 'integrity', JSON.stringify(failed));
    assert.ok(failed.message.includes(what), failed.message);
    const sound = form === 'pair' ? [sha256(weights(300_000, 2))] : [];
    assert.deepEqual(Object.values(await stored(page)), sound, 'what was damaged was removed');
    const again = await load(page, model);
    assert.equal(again.code, undefined, again.message);
    assert.equal(server.asked(path).length, 2);
    assert.ok(Object.values(await stored(page)).includes(sha256(bytes)));
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
  const { opened, open } = gate();
  const { address, path } = putModel(server, 'tabs', { next: [hold(1_000_000, opened)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const both = Promise.all([load(page, address), load(other, address)]);
  await until(() => server.asked('tabs/manifest.json').length === 2 && server.asked(path).length > 0);
  open();
  const outcomes = await both;
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
  const { opened, open } = gate();
  const { address, path } = putModel(server, 'busy', { next: [hold(1_000_000, opened)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const loading = load(other, address);
  await until(() => server.asked(path).length > 0);
  const [{ key }] = await models(page, 'list');
  const refused = await models(page, 'remove', key);
  assert.deepEqual(refused, { code: 'io', message: 'model.gguf: it is being downloaded or checked at the moment' });
  open();
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
  const { opened, open } = gate();
  server.put(names[1], weights(1_000_000), { next: [hold(500_000, opened)] });
  const other = await context.newPage();
  await other.goto(`${server.origin}/blank`);
  const loading = load(other, pair);
  await until(() => server.asked(names[1]).length > 0);
  const [{ key }] = await models(page, 'list');
  const refused = await models(page, 'remove', key);
  assert.deepEqual(refused, { code: 'io', message: 'mmproj-d.gguf: it is being downloaded or checked at the moment' });
  assert.ok(Object.values(await stored(page)).includes(sha256(weights(100_000))));
  open();
  assert.equal((await loading).code, undefined);
  await context.close();
});

test('without locks a file is still downloaded once at a time within one page', async () => {
  const { context, page } = await lacking('Object.defineProperty(navigator, "locks", { value: undefined })');
  const { opened, open } = gate();
  const { address, path, bytes } = putModel(server, 'lockless', { next: [hold(1_000_000, opened)] });
  const both = Promise.all([load(page, address), load(page, address)]);
  await until(() => server.asked(path).length > 0);
  const [{ key }] = await models(page, 'list');
  assert.equal((await models(page, 'remove', key))?.code, 'io');
  open();
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
