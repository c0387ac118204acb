// What names a model: an address, several, files that are given; what it is made of is found from there.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { HASTY, forget, load, putModel, sha256, stored, weights, webPage, wild } from './misbehaving.mjs';

const { server, page } = await wild();

const look = (page, model) =>
  page.evaluate(
    async ([model, patience]) => {
      const { inspect } = await import('/imatch.js');
      return inspect({ model: model ?? window.files, patience }).catch(({ code, message }) => ({ code, message }));
    },
    [model, HASTY],
  );

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

test('what a folder is called at a hub, and its chat template, come with it', async () => {
  putFolder('org/Some-VL-2B-Thinking/resolve/main', { scoring: false });
  const address = '/wild/org/Some-VL-2B-Thinking/resolve/main/config.json';
  const without = await load(page, address);
  assert.equal(without.name, 'Some-VL-2B-Thinking', without.message);
  for (const [file, length] of [
    ['tokenizer_config.json', 30],
    ['chat_template.jinja', 2000],
  ]) {
    server.put(`org/Some-VL-2B-Thinking/resolve/main/${file}`, 'x'.repeat(length));
    assert.equal((await load(page, address)).bytes - without.bytes, length, `${file} comes with it, and alone`);
  }
});

test('what a host sends for files that it does not have is not taken for them', async () => {
  putFolder('spa', { scoring: false });
  const page404 = { next: [webPage] };
  for (const name of ['imatch.json', 'model.safetensors.index.json', 'chat_template.jinja'])
    server.put(`spa/${name}`, 'never sent', page404);
  const { bytes, message } = await load(page, '/wild/spa/config.json');
  assert.equal(bytes, 60_006, message);
  server.put('spa/alone-q8_0.gguf', weights(1000));
  server.put('spa/mmproj-alone-q8_0.gguf', weights(1000), { nextHead: [webPage] });
  server.put('spa/mmproj-alone-F16.gguf', weights(3000));
  assert.equal((await load(page, '/wild/spa/alone-q8_0.gguf')).bytes, 4000);
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
    code: 'network',
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
