// Random tensors as GGUF stores them, the same for the same seed.
import { F16, F32, count } from './gguf.mjs';

/** Blocks or values that are made at a time. */
const CHUNK = 1 << 16;

/** Marsaglia's xorshift128: fast, and good enough for weights. */
export class Random {
  #words = new Uint32Array(4);

  constructor(seed) {
    for (let i = 0, state = seed; i < 4; i += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      this.#words[i] = state | 1;
    }
    this.fill(new Uint32Array(64));
  }

  fill(words) {
    let [x, y, z, w] = this.#words;
    for (let i = 0; i < words.length; i += 1) {
      const t = x ^ (x << 11);
      x = y;
      y = z;
      z = w;
      w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
      words[i] = w;
    }
    this.#words.set([x, y, z, w]);
  }

  /** Normally distributed values (Box and Muller's method). */
  normals(length) {
    const words = new Uint32Array(length + (length % 2));
    this.fill(words);
    const values = new Float32Array(words.length);
    for (let i = 0; i < words.length; i += 2) {
      const radius = Math.sqrt(-2 * Math.log((words[i] + 1) / 2 ** 32));
      const angle = (2 * Math.PI * words[i + 1]) / 2 ** 32;
      values[i] = radius * Math.cos(angle);
      values[i + 1] = radius * Math.sin(angle);
    }
    return values.subarray(0, length);
  }
}

const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/** The bits of the nearest half; for finite values within its range. */
export function half(value) {
  single[0] = value;
  const [bits] = singleBits;
  const sign = (bits >>> 16) & 0x8000;
  // Below the least normal half, the bits count steps of 2 ** -24.
  if (Math.abs(value) < 2 ** -14) return sign | Math.round(Math.abs(value) * 2 ** 24);
  return sign | (((bits & 0x7fffffff) - 0x38000000 + 0xfff + ((bits >>> 13) & 1)) >>> 13);
}

/** Deviation of the weights of a product over so many inputs, which keeps sizes about as they are. */
const deviation = (inputs) => 0.9 / Math.sqrt(inputs);

/** 256 scales of blocks of whole numbers of `bits` bits: of both signs, so that the mean is 0, and of several sizes. */
function scales(bits, inputs) {
  // Second moments of what scales are multiplied by: whole numbers from -2 ** (bits - 1), and 0.7 to 1.3.
  const quants = (4 ** bits - 1) / 12 + 0.25;
  const sizes = 1 + 0.6 ** 2 / 12;
  const step = deviation(inputs) / Math.sqrt(quants * sizes);
  return Uint16Array.from({ length: 256 }, (_, i) => half(step * (0.7 + (0.6 * (i >> 1)) / 127) * (i % 2 ? -1 : 1)));
}

/** A matrix of random blocks of Q4_0 or Q8_0. */
export function matrix(random, name, shape, type) {
  const blocks = count(shape) / type.values;
  const scale = scales(type.name === 'Q4_0' ? 4 : 8, shape.at(-1));
  return {
    name,
    shape,
    type,
    *chunks() {
      for (let at = 0; at < blocks; at += CHUNK) {
        const length = Math.min(CHUNK, blocks - at) * type.bytes;
        const words = new Uint32Array(Math.ceil(length / 4));
        random.fill(words);
        const bytes = Buffer.from(words.buffer, 0, length);
        for (let block = 0; block < length; block += type.bytes) bytes.writeUInt16LE(scale[bytes[block]], block);
        yield bytes;
      }
    },
  };
}

/** Values that are normally distributed around `mean`, in F32 or F16. */
function normal(random, name, shape, type, mean, spread) {
  const length = count(shape);
  return {
    name,
    shape,
    type,
    *chunks() {
      for (let at = 0; at < length; at += CHUNK) {
        const values = random.normals(Math.min(CHUNK, length - at)).map((value) => mean + spread * value);
        yield Buffer.from(type === F16 ? Uint16Array.from(values, half).buffer : values.buffer);
      }
    },
  };
}

export const normWeight = (random, name, size) => normal(random, name, [size], F32, 1, 0.1);
export const bias = (random, name, size) => normal(random, name, [size], F32, 0, 0.1);
export const table = (random, name, shape) => normal(random, name, shape, F32, 0, deviation(shape[1]));
/** One frame of a convolution over `frames`. */
export const convolution = (random, name, shape, frames) =>
  normal(random, name, shape, F16, 0, deviation(frames * count(shape.slice(1))));
