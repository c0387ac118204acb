// Writes GGUF version 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), tensors one chunk at a time.
import { closeSync, existsSync, fstatSync, openSync, readSync, renameSync, writeSync } from 'node:fs';

/** `general.alignment` of a file that does not say. */
const ALIGNMENT = 32;

function scalar(id, size, write) {
  const item = (value) => {
    const bytes = Buffer.alloc(size);
    write(bytes, value);
    return { id, bytes };
  };
  return Object.assign(item, { id });
}

// Metadata values with their types (`enum gguf_type` in gguf.h).
export const u32 = scalar(4, 4, (bytes, value) => bytes.writeUInt32LE(value));
export const i32 = scalar(5, 4, (bytes, value) => bytes.writeInt32LE(value));
export const f32 = scalar(6, 4, (bytes, value) => bytes.writeFloatLE(value));
export const bool = scalar(7, 1, (bytes, value) => bytes.writeUInt8(Number(value)));
export const text = Object.assign((value) => ({ id: 8, bytes: string(value) }), { id: 8 });
/** Values of one of the types above. */
export const list = (type, values) => ({
  id: 9,
  bytes: Buffer.concat([u32(type.id).bytes, u64(values.length), ...values.map((value) => type(value).bytes)]),
});

/** What a tensor is stored as (`enum ggml_type` in ggml.h): the id, and bytes for so many values. */
export const F32 = { name: 'F32', id: 0, values: 1, bytes: 4 };
export const F16 = { name: 'F16', id: 1, values: 1, bytes: 2 };
export const Q4_0 = { name: 'Q4_0', id: 2, values: 32, bytes: 18 };
export const Q8_0 = { name: 'Q8_0', id: 8, values: 32, bytes: 34 };

function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function string(value) {
  const bytes = Buffer.from(value, 'utf8');
  return Buffer.concat([u64(bytes.length), bytes]);
}

export const count = (shape) => shape.reduce((product, size) => product * size, 1);
const stored = ({ shape, type }) => (count(shape) / type.values) * type.bytes;
const padding = (length) => (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;

/** Everything before the data, and the length of the whole file. Shapes are in PyTorch's order, the file's is reversed. */
function head(metadata, tensors) {
  const parts = [Buffer.from('GGUF'), u32(3).bytes, u64(tensors.length), u64(Object.keys(metadata).length)];
  for (const [key, { id, bytes }] of Object.entries(metadata)) parts.push(string(key), u32(id).bytes, bytes);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, shape, type } = tensor;
    if (shape.at(-1) % type.values !== 0) throw new Error(`${name}: rows of ${shape.at(-1)} values cannot be ${type.name}`);
    parts.push(string(name), u32(shape.length).bytes, ...shape.toReversed().map(u64), u32(type.id).bytes, u64(offset));
    offset += stored(tensor) + padding(stored(tensor));
  }
  const bytes = Buffer.concat(parts);
  return { bytes, pad: padding(bytes.length), length: bytes.length + padding(bytes.length) + offset };
}

function isWhole(path, { bytes, length }) {
  if (!existsSync(path)) return false;
  const file = openSync(path, 'r');
  try {
    if (fstatSync(file).size !== length) return false;
    const found = Buffer.alloc(bytes.length);
    readSync(file, found, 0, found.length, 0);
    return found.equals(bytes);
  } finally {
    closeSync(file);
  }
}

/** All of it, where the system takes only a part at a time. */
function append(file, bytes) {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

/**
 * Writes a file of tensors, each with a name, a shape, a type and `chunks()`, its stored bytes in order. A file that
 * has this header and length already is left as it is. Gives the length and whether it was written.
 */
export function write(path, metadata, tensors) {
  const header = head(metadata, tensors);
  if (isWhole(path, header)) return { bytes: header.length, written: false };
  // Under another name first, so that it is whole or not there.
  const partial = `${path}.part`;
  const file = openSync(partial, 'w');
  try {
    append(file, header.bytes);
    append(file, Buffer.alloc(header.pad));
    for (const tensor of tensors) {
      let length = 0;
      for (const chunk of tensor.chunks()) {
        append(file, chunk);
        length += chunk.length;
      }
      if (length !== stored(tensor)) throw new Error(`${tensor.name}: ${length} bytes, expected ${stored(tensor)}`);
      append(file, Buffer.alloc(padding(length)));
    }
    if (fstatSync(file).size !== header.length) throw new Error(`${partial} has not ${header.length} bytes`);
  } finally {
    closeSync(file);
  }
  renameSync(partial, path);
  return { bytes: header.length, written: true };
}
