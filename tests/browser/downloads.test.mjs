// Downloads over a network that misbehaves: each ends in the right state with the right words, and the next try works.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from './harness.mjs';
import {
  STALLING,
  as,
  cut,
  drip,
  endlessly,
  gate,
  hold,
  load,
  promise,
  putModel,
  sha256,
  silently,
  stall,
  status,
  stored,
  weights,
  wild,
} from './misbehaving.mjs';

const { browser, server, page } = await wild();

const ranges = (path) => server.asked(path).map(({ range }) => range);

test('a connection that is cut is taken up where it ended', async () => {
  // More often than there are tries in a row: each brings something new.
  const next = [700_000, 500_000, 300_000, 200_000].map((after) => cut(after));
  const { address, path, bytes } = putModel(server, 'cut', { next });
  const { code, message, bytes: loaded } = await load(page, address);
  assert.equal(code, undefined, message);
  assert.ok(loaded > bytes.length);
  const from = [700_000, 1_200_000, 1_500_000, 1_700_000].map((at) => `bytes=${at}-`);
  assert.deepEqual(ranges(path), [null, ...from]);
  assert.equal(server.asked(path)[1].condition, `"${sha256(bytes).slice(0, 12)}"`, 'the version is a condition');
  assert.deepEqual(Object.values(await stored(page)), [sha256(bytes)]);
});

test('a server without ranges is asked for everything again', async () => {
  const { address, path, bytes } = putModel(server, 'whole', { ranges: false, next: [cut(700_000)] });
  const { code, message } = await load(page, address);
  assert.equal(code, undefined, message);

  assert.equal(server.asked(path).length, 2);
  assert.deepEqual(Object.values(await stored(page)), [sha256(bytes)]);
});

test('a promised length that is never reached fails after a few tries, unless a digest says that all is there', async () => {
  const pair = ['/wild/length/d.gguf', '/wild/length/mmproj-d.gguf'];
  for (const path of ['length/d.gguf', 'length/mmproj-d.gguf']) server.put(path, weights(300_000));
  server.put('length/d.gguf', weights(300_000), { ranges: false, more: 1000 });
  const failed = await load(page, pair);
  assert.equal(failed.code, 'network');
  assert.match(failed.message, /^d\.gguf: .* \(after 3 tries\)$/);
  // The first try brought all bytes there are, so it does not count as one of three in a row that brought nothing.
  assert.equal(server.asked('length/d.gguf').length, 3);
  server.put('length/d.gguf', weights(300_000));
  assert.equal((await load(page, pair)).code, undefined);
  const known = putModel(server, 'length-known', { next: [promise(1000)] });
  assert.equal((await load(page, known.address)).code, undefined);
  assert.equal(server.asked(known.path).length, 1);
});

for (const [code, tries] of [
  [206, 1],
  [404, 1],
  [403, 1],
  [500, 3],
  [503, 3],
])
  test(`${code} is tried ${tries === 1 ? 'once' : 'again'}`, async () => {
    const { address, path } = putModel(server, `status-${code}`, { next: Array(tries).fill(status(code)) });
    const failed = await load(page, address);
    assert.equal(failed.code, 'network');
    assert.match(failed.message, new RegExp(`^model\\.gguf: the server answered ${code}( \\(after 3 tries\\))?$`));
    assert.equal(server.asked(path).length, tries);
    assert.equal((await load(page, address)).code, undefined);
  });

test('a server that is busy is left alone for as long as it asks', async () => {
  const busy = putModel(server, 'busy', { next: [status(429, { 'Retry-After': '2' })] });
  const brief = putModel(server, 'brief', { next: [status(429)] });
  const waited = await load(page, busy.address);
  assert.equal(waited.code, undefined, waited.message);
  assert.equal((await load(page, brief.address)).code, undefined);
  const pause = ({ path }) => {
    const [first, second] = server.asked(path);
    return second.at - first.at;
  };
  assert.ok(pause(busy) >= 2000, `${pause(busy)} ms`);
  assert.ok(pause(brief) < 2000, `${pause(brief)} ms`);
});

test('a connection that stalls is given up, and what it brought is kept', async () => {
  const { address, path } = putModel(server, 'stall', { next: [stall(600_000), stall(0), stall(0), stall(0)] });
  const failed = await load(page, address, { patience: STALLING });
  assert.equal(failed.code, 'network');
  assert.match(failed.message, /^model\.gguf: nothing arrived for 1 s \(after 3 tries\)$/);
  assert.equal((await load(page, address, { patience: STALLING })).code, undefined);
  assert.equal(ranges(path).at(-1), 'bytes=600000-');
});

test('a connection that brings everything and does not end is not asked twice', async () => {
  const pair = ['/wild/endless/d.gguf', '/wild/endless/mmproj-d.gguf'];
  for (const name of ['d', 'mmproj-d']) server.put(`endless/${name}.gguf`, weights(300_000), { next: [endlessly] });
  const { code, message, bytes } = await load(page, pair, { patience: STALLING });
  assert.deepEqual([code, bytes], [undefined, 600_000], message);
  assert.deepEqual(ranges('endless/d.gguf'), [null]);
});

test('slow bytes are no stall', async () => {
  const { address, path } = putModel(server, 'slow', { bytes: weights(400_000), next: [drip(20_000, 100)] });
  const patience = { ...STALLING, stallMs: 1500 };
  const { code, message, ms } = await load(page, address, { patience });
  assert.equal(code, undefined, message);
  assert.ok(ms > patience.stallMs, `${ms} ms`);
  assert.equal(server.asked(path).length, 1);
});

test('a flipped bit is found before anything uses it, and nothing of it stays', async () => {
  const { address, path, bytes } = putModel(server, 'flipped');
  const damaged = Buffer.from(bytes);
  damaged[1_234_567] ^= 1;
  server.put(path, damaged);
  const failed = await load(page, address);
  assert.equal(failed.code, 'integrity');
  assert.equal(failed.message, `model.gguf: SHA-256 ${sha256(damaged)}, the manifest promises ${sha256(bytes)}`);
  assert.deepEqual(await stored(page), {});
  server.put(path, bytes);
  assert.equal((await load(page, address)).code, undefined);
  assert.equal(ranges(path).at(-1), null);
});

test('a file that is longer than promised is not read to its end', async () => {
  const { address, path, bytes } = putModel(server, 'longer');
  // A reader that waited for the end would get another failure.
  server.put(path, Buffer.concat([bytes, bytes]), { next: [stall(3_000_000)] });
  const failed = await load(page, address);
  assert.deepEqual(
    [failed.code, failed.message],
    ['integrity', 'model.gguf: more than the 2000000 bytes that the manifest promises'],
  );
  assert.deepEqual(await stored(page), {});
  await until(() => server.asked(path)[0].closed);
  assert.equal(server.asked(path).length, 1);
});

for (const [what, options, later] of [
  ['an honest server', {}, {}],
  ['a server that ignores conditions', { ifRange: false }, { ifRange: false }],
  ['a server that marks no versions', { etag: null }, { etag: null }],
  ['a server that stops marking them', {}, { etag: null, ifRange: false }],
])
  test(`parts of two versions are never joined: ${what}`, async () => {
    const folder = `pair-${what.length}`;
    const [old, fresh, other] = [weights(900_000, 2), weights(900_000, 3), weights(50_000, 4)];
    const pair = [`/wild/${folder}/d.gguf`, `/wild/${folder}/mmproj-d.gguf`];
    server.put(`${folder}/mmproj-d.gguf`, other);
    server.put(`${folder}/d.gguf`, old, { ...options, next: [cut(400_000), status(404)] });
    assert.equal((await load(page, pair)).code, 'network');
    server.put(`${folder}/d.gguf`, fresh, later);
    const { code, message } = await load(page, pair);
    assert.equal(code, undefined, message);
    assert.deepEqual(Object.values(await stored(page)).sort(), [sha256(fresh), sha256(other)].sort());
  });

test('an answer that ends early is gone on with where the manifest says how long the file is', async () => {
  const { address, path, bytes } = putModel(server, 'early', { next: [silently(700_000)] });
  const { code, message } = await load(page, address);
  assert.equal(code, undefined, message);
  assert.deepEqual(ranges(path), [null, 'bytes=700000-']);
  server.put('short/manifest.json', JSON.stringify({ files: [{ path: 'model.gguf', bytes: 5000 }] }));
  for (const next of [[], Array(8).fill(silently(1000))]) {
    server.put('short/model.gguf', bytes.subarray(0, 1000), { next });
    const short = await load(page, '/wild/short/manifest.json');
    assert.deepEqual([short.code, short.message], ['integrity', 'model.gguf: 1000 bytes, the manifest promises 5000']);
  }
});

test('a file that is not the one that was asked about is asked about again, once', async () => {
  const pair = ['/wild/moved/d.gguf', '/wild/moved/mmproj-d.gguf'];
  const bytes = weights(300_000, 8);
  server.put('moved/mmproj-d.gguf', weights(50_000));
  server.put('moved/d.gguf', bytes, { nextHead: [as('"old"')] });
  const { code, message } = await load(page, pair);
  assert.equal(code, undefined, message);
  assert.equal(server.asked('moved/d.gguf', 'HEAD').length, 2);
  assert.equal(server.asked('moved/mmproj-d.gguf').length, 1);
  assert.ok(Object.values(await stored(page)).includes(sha256(bytes)));
  server.put('moved/d.gguf', weights(300_000, 9), { nextHead: [as('"old"'), as('"older"')] });
  const restless = await load(page, pair);
  assert.deepEqual(
    [restless.code, restless.message],
    ['network', 'd.gguf: it changed on the server while it was fetched'],
  );
});

test('a server that takes no HEAD is asked for one byte', async () => {
  const pair = ['/wild/headless/d.gguf', '/wild/headless/mmproj-d.gguf'];
  for (const [index, path] of ['headless/d.gguf', 'headless/mmproj-d.gguf'].entries())
    server.put(path, weights(300_000, index), { head: false });
  const whole = () => ranges('headless/d.gguf').filter((range) => range !== 'bytes=0-0').length;
  for (const count of [1, 1]) {
    const { code, message } = await load(page, pair);
    assert.deepEqual([code, whole()], [undefined, count], message);
  }
  server.put('headless/d.gguf', weights(300_000, 5), { head: false });
  await load(page, pair);
  assert.equal(whole(), 2);
  assert.ok(Object.values(await stored(page)).includes(sha256(weights(300_000, 5))));
});

test('a stored file without a digest and without a mark is not trusted while its server answers', async () => {
  const pair = ['/wild/bare/d.gguf', '/wild/bare/mmproj-d.gguf'];
  server.put('bare/mmproj-d.gguf', weights(50_000));
  for (const seed of [1, 2]) {
    server.put('bare/d.gguf', weights(300_000, seed), { etag: null });
    assert.equal((await load(page, pair)).code, undefined);
    assert.ok(Object.values(await stored(page)).includes(sha256(weights(300_000, seed))));
  }
  server.down(true);
  assert.equal((await load(page, pair)).code, undefined, 'its digest was found');
  server.down(false);
});

test('a reload in mid-download goes on with the missing bytes only', async () => {
  const { address, path, bytes } = putModel(server, 'reload', { next: [hold(1_200_000, gate().opened)] });
  const started = load(page, address).catch(() => undefined);
  await page.waitForFunction(() => window.downloaded >= 1_000_000);
  const loaded = await page.evaluate(() => window.downloaded);
  await page.reload();
  await started;
  const { code, message } = await load(page, address);
  assert.equal(code, undefined, message);
  const [, resumed, ...more] = server.asked(path);
  const from = Number(/^bytes=(\d+)-$/.exec(resumed.range)?.[1]);
  assert.ok(from >= loaded, `${resumed.range}, after ${loaded}`);
  assert.equal(resumed.sent, bytes.length - from);
  assert.deepEqual(more, []);
  assert.deepEqual(Object.values(await stored(page)), [sha256(bytes)]);
});

test('an abort stops at once and keeps what is there', async () => {
  const { address, path } = putModel(server, 'abort', { next: [hold(500_000, gate().opened)] });
  const code = await page.evaluate(async (model) => {
    const { Evaluator } = await import('/imatch.js');
    const stop = new AbortController();
    const onProgress = ({ stage, loaded }) => stage === 'download' && loaded > 300_000 && stop.abort();
    return Evaluator.load({ model, device: 'cpu', signal: stop.signal, onProgress }).catch(({ code }) => code);
  }, address);
  assert.equal(code, 'aborted');
  const next = await load(page, address);
  assert.equal(next.code, undefined, next.message);
  assert.match(ranges(path).at(-1), /^bytes=[1-9]\d{5}-$/);
});

test('an origin that the policy forbids is named', async () => {
  const failed = await load(page, 'http://127.0.0.1:9/model/manifest.json');
  assert.equal(failed.code, 'network');
  assert.equal(
    failed.message,
    'manifest.json: the policy of this site does not let the downloader connect to http://127.0.0.1:9, or to a place it redirects to',
  );
});

test('a large model that its headers rule out is not fetched', async () => {
  const pair = (name) => [`/wild/first/${name}.gguf`, `/wild/first/mmproj-${name}.gguf`];
  const body = Buffer.alloc(40 << 20, 3);
  for (const path of [...pair('unfit'), ...pair('fits')]) server.put(path.slice('/wild/'.length), body);
  const refused = await load(page, pair('unfit'));
  assert.equal(refused.code, 'unsupported');
  assert.match(refused.message, /^unfit: on the CPU it takes 9\.0 GB of the 3\.2 GB that a tab can hold$/);
  const sent = server.asked('first/unfit.gguf').reduce((sum, { sent }) => sum + sent, 0);
  assert.ok(sent < 10_000, `${sent} bytes`);
  assert.equal((await load(page, pair('fits'))).bytes, 80 << 20);
  for (const path of pair('unfit')) server.put(path.slice('/wild/'.length), body, { ranges: false });
  const unseen = await load(page, pair('unfit'));
  assert.equal(unseen.bytes, 80 << 20, 'a server that sends no parts is asked for the whole');
});

test('a forbidden redirection is named, and another failure of that server is not taken for it', async () => {
  const { address, path } = putModel(server, 'away', {
    next: [status(302, { Location: 'http://127.0.0.1:9/model.gguf' }), ...Array(3).fill(cut(0))],
  });
  const failed = await load(page, address);
  assert.equal(
    failed.message,
    `model.gguf: the policy of this site does not let the downloader connect to ${server.origin}, or to a place it redirects to`,
  );
  const next = await load(page, address);
  assert.equal(next.code, 'network');
  assert.doesNotMatch(next.message, /policy/);
  assert.equal(server.asked(path).length, 4);
});

test('a policy that only reports is no reason', async () => {
  const context = await browser.newContext();
  await context.route('**/assets/downloader-*.js', async (route) => {
    const response = await route.fetch();
    const report = { 'content-security-policy-report-only': "connect-src 'none'" };
    await route.fulfill({ response, headers: { ...response.headers(), ...report } });
  });
  const page = await context.newPage();
  await page.goto(`${server.origin}/blank`);
  const { address } = putModel(server, 'reported', { next: Array(3).fill(status(404)) });
  server.down(true);
  const failed = await load(page, address);
  server.down(false);
  assert.equal(failed.code, 'network');
  assert.doesNotMatch(failed.message, /policy/);
  await context.close();
});
