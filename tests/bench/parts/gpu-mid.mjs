// A random Qwen3-VL checkpoint of 54.5 million parameters in the layout of Hugging Face: large enough that products
// take most of the time, small enough for a GPU that is emulated. It has the demo model's vocabulary.
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { count } from './gguf.mjs';
import { Random, bias, convolution, normWeight, table } from './random.mjs';

const TEXT = {
  vocab_size: 2048,
  hidden_size: 512,
  intermediate_size: 1536,
  num_hidden_layers: 8,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 64,
};
const VISION = {
  depth: 8,
  hidden_size: 384,
  intermediate_size: 1536,
  num_heads: 6,
  num_position_embeddings: 48 ** 2,
  deepstack_visual_indexes: [1, 3, 5],
  out_hidden_size: TEXT.hidden_size,
};
const SEED = 20_261_130;

function* decoder(random) {
  const { hidden_size: width, intermediate_size: inner, head_dim: head } = TEXT;
  const [queries, keys] = [TEXT.num_attention_heads * head, TEXT.num_key_value_heads * head];
  const name = (part) => `model.language_model.${part}.weight`;
  yield table(random, name('embed_tokens'), [TEXT.vocab_size, width]);
  for (let layer = 0; layer < TEXT.num_hidden_layers; layer += 1) {
    const of = (part) => name(`layers.${layer}.${part}`);
    for (const part of ['input_layernorm', 'post_attention_layernorm']) yield normWeight(random, of(part), width);
    for (const part of ['q_norm', 'k_norm']) yield normWeight(random, of(`self_attn.${part}`), head);
    yield table(random, of('self_attn.q_proj'), [queries, width]);
    yield table(random, of('self_attn.k_proj'), [keys, width]);
    yield table(random, of('self_attn.v_proj'), [keys, width]);
    yield table(random, of('self_attn.o_proj'), [width, queries]);
    yield table(random, of('mlp.gate_proj'), [inner, width]);
    yield table(random, of('mlp.up_proj'), [inner, width]);
    yield table(random, of('mlp.down_proj'), [width, inner]);
  }
  yield normWeight(random, name('norm'), width);
}

function* tower(random, { patch_size: patch, temporal_patch_size: frames, spatial_merge_size: merge, in_channels: channels }) {
  const { hidden_size: width, intermediate_size: inner, out_hidden_size: out } = VISION;
  const merged = width * merge ** 2;
  const both = (make, part, shape) => [
    make(random, `model.visual.${part}.weight`, shape),
    bias(random, `model.visual.${part}.bias`, Array.isArray(shape) ? shape[0] : shape),
  ];
  const norm = (part, size) => both(normWeight, part, size);
  const linear = (part, outputs, inputs) => both(table, part, [outputs, inputs]);
  const mlp = (part) => [...linear(`${part}.linear_fc1`, merged, merged), ...linear(`${part}.linear_fc2`, out, merged)];
  yield convolution(random, 'model.visual.patch_embed.proj.weight', [width, channels, frames, patch, patch], 1);
  yield bias(random, 'model.visual.patch_embed.proj.bias', width);
  yield table(random, 'model.visual.pos_embed.weight', [VISION.num_position_embeddings, width]);
  for (let block = 0; block < VISION.depth; block += 1) {
    const of = (part) => `blocks.${block}.${part}`;
    yield* norm(of('norm1'), width);
    yield* linear(of('attn.qkv'), 3 * width, width);
    yield* linear(of('attn.proj'), width, width);
    yield* norm(of('norm2'), width);
    yield* linear(of('mlp.linear_fc1'), inner, width);
    yield* linear(of('mlp.linear_fc2'), width, inner);
  }
  for (const index of VISION.deepstack_visual_indexes.keys()) {
    yield* norm(`deepstack_merger_list.${index}.norm`, merged);
    yield* mlp(`deepstack_merger_list.${index}`);
  }
  yield* norm('merger.norm', width);
  yield* mlp('merger');
}

/** Writes tensors in the safetensors format: a length, a JSON header, the data. */
function writeTensors(path, tensors) {
  let end = 0;
  const header = Object.fromEntries(
    tensors.map(({ name, shape, type }) => {
      const start = end;
      end += count(shape) * type.bytes;
      return [name, { dtype: type.name, shape, data_offsets: [start, end] }];
    }),
  );
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(path, 'w');
  try {
    for (const bytes of [length, json]) writeSync(file, bytes);
    for (const tensor of tensors) for (const chunk of tensor.chunks()) writeSync(file, chunk);
  } finally {
    closeSync(file);
  }
}

/** Writes the checkpoint into a folder; `demo` is the demo model's folder. */
export function writeCheckpoint(folder, demo) {
  mkdirSync(folder, { recursive: true });
  const { config, preprocessor, scoring } = JSON.parse(readFileSync(join(demo, 'manifest.json'), 'utf8'));
  const json = (name, value) => writeFileSync(join(folder, name), JSON.stringify(value));
  const rope = { ...config.text_config.rope_scaling, mrope_section: [12, 10, 10] };
  const vision = { ...config.vision_config, ...VISION };
  json('config.json', { ...config, text_config: { ...config.text_config, ...TEXT, rope_scaling: rope }, vision_config: vision });
  // Pictures keep their size.
  json('preprocessor_config.json', { ...preprocessor, size: { shortest_edge: 256 ** 2, longest_edge: 256 ** 2 } });
  json('imatch.json', scoring);
  copyFileSync(join(demo, 'tokenizer.json'), join(folder, 'tokenizer.json'));
  const random = new Random(SEED);
  writeTensors(join(folder, 'model.safetensors'), [...decoder(random), ...tower(random, vision)]);
}
