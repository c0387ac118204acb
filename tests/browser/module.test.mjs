// The wasm module's exports run no static constructors: wasm-ld makes each export `NAME.command_export`, which calls
// `__wasm_call_ctors` first, where nothing refers to that function (see src/web/mod.rs). Every call from JavaScript
// then costs 0.4 ms more.
// Needs the real module; that a wrapped module would be recognised is tested on one that is made here.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KINDS } from './harness.mjs';

const MODULE = fileURLToPath(new URL('../../www/pkg/imatch_bg.wasm', import.meta.url));
const SECTION = { type: 1, import: 2, function: 3, export: 7, code: 10 };
const FUNCTION = 0;
const CALL = 0x10;

/** Reads the binary format of WebAssembly 2.0, as much of it as these tests need. */
class Reader {
  #bytes;
  #at;

  constructor(bytes, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get ended() {
    return this.#at >= this.#bytes.length;
  }

  byte() {
    assert.ok(!this.ended, 'the module ends too early');
    return this.#bytes[this.#at++];
  }

  /** An unsigned LEB128 number. */
  number() {
    let value = 0;
    for (let weight = 1; ; weight *= 128) {
      const byte = this.byte();
      value += (byte & 127) * weight;
      if (byte < 128) return value;
    }
  }

  /** The next `length` bytes. */
  take(length) {
    assert.ok(this.#at + length <= this.#bytes.length, 'the module ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** A vector: its length, and so many of what `read` reads. */
  list(read) {
    return Array.from({ length: this.number() }, read);
  }

  name() {
    return new TextDecoder().decode(this.take(this.number()));
  }

  limits() {
    if ((this.number() & 1) === 1) this.number();
    this.number();
  }

  /** The kind of an import, after which its type has been read; functions give the index of their type. */
  imported() {
    const kind = this.byte();
    if (kind === FUNCTION) return { kind, type: this.number() };
    if (kind === 1) this.byte();
    if (kind === 1 || kind === 2) this.limits();
    else if (kind === 3) this.take(2);
    else assert.fail(`an import of kind ${kind}`);
    return { kind };
  }
}

function sections(bytes) {
  const reader = new Reader(bytes);
  assert.deepEqual([...reader.take(8)], [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], 'a wasm module of version 1');
  const found = new Map();
  while (!reader.ended) {
    const id = reader.byte();
    const content = reader.take(reader.number());
    if (id !== 0) found.set(id, content);
  }
  return (id) => new Reader(found.get(id) ?? new Uint8Array([0]));
}

/** The functions without parameters and results that begin the body of exports, with the names of those exports. */
function calledFirst(bytes) {
  const section = sections(bytes);
  const types = section(SECTION.type);
  const isBare = types.list(() => {
    assert.equal(types.byte(), 0x60, 'a function type');
    const [parameters, results] = [types.take(types.number()), types.take(types.number())];
    return parameters.length === 0 && results.length === 0;
  });
  const imports = section(SECTION.import);
  const imported = imports
    .list(() => {
      imports.name();
      imports.name();
      return imports.imported();
    })
    .filter(({ kind }) => kind === FUNCTION);
  const functions = section(SECTION.function);
  const own = functions.list(() => functions.number());
  const typeOf = [...imported.map(({ type }) => type), ...own];
  const code = section(SECTION.code);
  const bodies = code.list(() => code.take(code.number()));
  const exports = section(SECTION.export);
  const callers = new Map();
  const exported = exports.list(() => ({ name: exports.name(), kind: exports.byte(), index: exports.number() }));
  for (const { name, kind, index } of exported) {
    if (kind !== FUNCTION || index < imported.length) continue;
    const body = new Reader(bodies[index - imported.length]);
    // Locals come first: so many of a type.
    body.list(() => [body.number(), body.byte()]);
    if (body.byte() !== CALL) continue;
    const called = body.number();
    if (isBare[typeOf[called]]) callers.set(called, [...(callers.get(called) ?? []), name]);
  }
  return { callers, exports: exported.length };
}

/** Functions that begin several exports, as `__wasm_call_ctors` does where exports are wrapped. */
function wrappers(bytes) {
  return [...calledFirst(bytes).callers.values()].filter((names) => names.length > 1);
}

/** A module with the exports `one` and `two`, both of type () -> i32, either of which calls the constructors first or not. */
function made(wrapped) {
  const section = (id, ...content) => [id, content.length, ...content];
  const name = (text) => [text.length, ...Buffer.from(text)];
  const body = (...instructions) => [instructions.length + 2, 0, ...instructions, 0x0b];
  const [constructors, one, two] = [1, 2, 3];
  // One local, so that the first instruction is not the first byte.
  const exported = (value, calls) => {
    const instructions = [1, 1, 0x7f, ...(calls ? [CALL, constructors] : []), 0x41, value, 0x0b];
    return [instructions.length, ...instructions];
  };
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(SECTION.type, 2, 0x60, 0, 0, 0x60, 0, 1, 0x7f),
    ...section(SECTION.import, 2, ...name('a'), ...name('memory'), 2, 0, 1, ...name('a'), ...name('f'), FUNCTION, 1),
    ...section(SECTION.function, 3, 0, 1, 1),
    ...section(SECTION.export, 2, ...name('one'), FUNCTION, one, ...name('two'), FUNCTION, two),
    ...section(SECTION.code, 3, ...body(), ...exported(1, true), ...exported(2, wrapped)),
  ]);
}

test('a wrapped module is recognised', () => {
  for (const wrapped of [false, true]) assert.ok(WebAssembly.validate(made(wrapped)));
  assert.deepEqual(wrappers(made(true)), [['one', 'two']]);
  assert.deepEqual(wrappers(made(false)), [], 'one export may call the constructors: the one that starts the module');
});

if (KINDS.includes('real'))
  describe('the real module', () => {
    test('runs no static constructors before its exports', () => {
      const bytes = readFileSync(MODULE);
      assert.ok(calledFirst(bytes).exports > 10, 'its exports were found');
      assert.deepEqual(wrappers(bytes), []);
    });
  });
