// A pair of GGUF files of the shape of Qwen3-VL-2B with random weights, under llama.cpp's names and keys.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import * as gguf from './gguf.mjs';
import { Random, bias, convolution, matrix, normWeight, table } from './random.mjs';
import { vocabulary } from './vocabulary.mjs';

/** The numbers of the published `config.json` that scoring depends on. */
const CONFIG = {
  text_config: {
    vocab_size: 151_936,
    hidden_size: 2048,
    intermediate_size: 6144,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 5_000_000,
    mrope_section: [24, 20, 20],
    max_position_embeddings: 262_144,
  },
  vision_config: {
    depth: 24,
    hidden_size: 1024,
    intermediate_size: 4096,
    num_heads: 16,
    in_channels: 3,
    patch_size: 16,
    temporal_patch_size: 2,
    spatial_merge_size: 2,
    num_position_embeddings: 48 ** 2,
    deepstack_visual_indexes: [5, 11, 17],
    out_hidden_size: 2048,
  },
};
/** The configuration, or that of a model of the same widths with so many layers in decoder and tower each. */
export function configuration(layers) {
  const { text_config: text, vision_config: vision } = CONFIG;
  if (layers === undefined) return CONFIG;
  const taps = vision.deepstack_visual_indexes.map((_, index) => index);
  if (layers < taps.length) throw new Error(`${layers} layers, expected at least the ${taps.length} that are tapped`);
  return {
    text_config: { ...text, num_hidden_layers: layers },
    vision_config: { ...vision, depth: layers, deepstack_visual_indexes: taps },
  };
}

/** Every picture gets this area: the least that leaves several tokens, as software devices are slow. */
export const PIXELS = 64 * 64;
const SEED = 20_261_126;

/** `general.file_type` of files of mostly one type (`enum llama_ftype`). */
const MOSTLY = { Q4_0: 2, Q8_0: 7 };

const general = (architecture, kind, type) => ({
  'general.architecture': gguf.text(architecture),
  'general.type': gguf.text(kind),
  'general.name': gguf.text('Random Qwen3-VL-2B'),
  'general.description': gguf.text(`random weights of seed ${SEED}, for measurements`),
  'general.quantization_version': gguf.u32(2),
  'general.file_type': gguf.u32(MOSTLY[type.name]),
});

function decoderMetadata({ text_config: t, vision_config: v }, texts) {
  const { tokens, types, merges } = vocabulary(t.vocab_size, texts);
  return {
    ...general('qwen3vl', 'model', gguf.Q4_0),
    'qwen3vl.context_length': gguf.u32(t.max_position_embeddings),
    'qwen3vl.embedding_length': gguf.u32(t.hidden_size),
    'qwen3vl.block_count': gguf.u32(t.num_hidden_layers),
    'qwen3vl.feed_forward_length': gguf.u32(t.intermediate_size),
    'qwen3vl.attention.head_count': gguf.u32(t.num_attention_heads),
    'qwen3vl.attention.head_count_kv': gguf.u32(t.num_key_value_heads),
    'qwen3vl.attention.key_length': gguf.u32(t.head_dim),
    'qwen3vl.attention.value_length': gguf.u32(t.head_dim),
    'qwen3vl.attention.layer_norm_rms_epsilon': gguf.f32(t.rms_norm_eps),
    'qwen3vl.rope.freq_base': gguf.f32(t.rope_theta),
    'qwen3vl.rope.dimension_count': gguf.u32(t.head_dim),
    'qwen3vl.rope.dimension_sections': gguf.list(gguf.i32, [...t.mrope_section, 0]),
    'qwen3vl.n_deepstack_layers': gguf.u32(v.deepstack_visual_indexes.length),
    'qwen3vl.vocab_size': gguf.u32(t.vocab_size),
    'tokenizer.ggml.model': gguf.text('gpt2'),
    'tokenizer.ggml.pre': gguf.text('qwen2'),
    'tokenizer.ggml.tokens': gguf.list(gguf.text, tokens),
    'tokenizer.ggml.token_type': gguf.list(gguf.i32, types),
    'tokenizer.ggml.merges': gguf.list(gguf.text, merges),
    'tokenizer.ggml.add_bos_token': gguf.bool(false),
    'tokenizer.ggml.eos_token_id': gguf.u32(tokens.indexOf('<|im_end|>')),
    'tokenizer.ggml.padding_token_id': gguf.u32(tokens.indexOf('<|endoftext|>')),
  };
}

function towerMetadata({ vision_config: v }) {
  const taps = v.deepstack_visual_indexes;
  const isTapped = Array.from({ length: v.depth }, (_, block) => taps.includes(block));
  return {
    ...general('clip', 'mmproj', gguf.Q8_0),
    'clip.has_vision_encoder': gguf.bool(true),
    'clip.projector_type': gguf.text('qwen3vl_merger'),
    'clip.use_gelu': gguf.bool(true),
    'clip.vision.image_size': gguf.u32(Math.sqrt(v.num_position_embeddings) * v.patch_size),
    'clip.vision.patch_size': gguf.u32(v.patch_size),
    'clip.vision.embedding_length': gguf.u32(v.hidden_size),
    'clip.vision.feed_forward_length': gguf.u32(v.intermediate_size),
    'clip.vision.projection_dim': gguf.u32(v.out_hidden_size),
    'clip.vision.block_count': gguf.u32(v.depth),
    'clip.vision.attention.head_count': gguf.u32(v.num_heads),
    'clip.vision.attention.layer_norm_epsilon': gguf.f32(1e-6),
    'clip.vision.spatial_merge_size': gguf.u32(v.spatial_merge_size),
    'clip.vision.image_mean': gguf.list(gguf.f32, [0.5, 0.5, 0.5]),
    'clip.vision.image_std': gguf.list(gguf.f32, [0.5, 0.5, 0.5]),
    'clip.vision.image_min_pixels': gguf.u32(PIXELS),
    'clip.vision.image_max_pixels': gguf.u32(PIXELS),
    'clip.vision.is_deepstack_layers': gguf.list(gguf.bool, isTapped),
  };
}

/** The tables that stay on the CPU in Q8_0, the other matrices in Q4_0. */
function* decoderTensors({ text_config: t }) {
  const random = new Random(SEED);
  const { hidden_size: width, intermediate_size: inner } = t;
  const [queries, keys] = [t.num_attention_heads, t.num_key_value_heads].map((heads) => heads * t.head_dim);
  yield matrix(random, 'token_embd.weight', [t.vocab_size, width], gguf.Q8_0);
  for (let layer = 0; layer < t.num_hidden_layers; layer += 1) {
    const name = (part) => `blk.${layer}.${part}.weight`;
    const weights = (part, shape) => matrix(random, name(part), shape, gguf.Q4_0);
    yield normWeight(random, name('attn_norm'), width);
    yield weights('attn_q', [queries, width]);
    yield weights('attn_k', [keys, width]);
    yield weights('attn_v', [keys, width]);
    yield weights('attn_output', [width, queries]);
    yield normWeight(random, name('attn_q_norm'), t.head_dim);
    yield normWeight(random, name('attn_k_norm'), t.head_dim);
    yield normWeight(random, name('ffn_norm'), width);
    yield weights('ffn_gate', [inner, width]);
    yield weights('ffn_up', [inner, width]);
    yield weights('ffn_down', [width, inner]);
  }
  yield normWeight(random, 'output_norm.weight', width);
}

function* towerTensors({ vision_config: v }) {
  const random = new Random(SEED + 1);
  const { hidden_size: width, intermediate_size: inner } = v;
  const merged = width * v.spatial_merge_size ** 2;
  const norm = (name, size) => [normWeight(random, `${name}.weight`, size), bias(random, `${name}.bias`, size)];
  const linear = (name, outputs, inputs) => [
    matrix(random, `${name}.weight`, [outputs, inputs], gguf.Q8_0),
    bias(random, `${name}.bias`, outputs),
  ];
  const frame = [width, v.in_channels, v.patch_size, v.patch_size];
  for (const name of ['v.patch_embd.weight', 'v.patch_embd.weight.1'])
    yield convolution(random, name, frame, v.temporal_patch_size);
  yield bias(random, 'v.patch_embd.bias', width);
  yield table(random, 'v.position_embd.weight', [v.num_position_embeddings, width]);
  for (let block = 0; block < v.depth; block += 1) {
    const name = (part) => `v.blk.${block}.${part}`;
    yield* norm(name('ln1'), width);
    yield* linear(name('attn_qkv'), 3 * width, width);
    yield* linear(name('attn_out'), width, width);
    yield* norm(name('ln2'), width);
    yield* linear(name('ffn_up'), inner, width);
    yield* linear(name('ffn_down'), width, inner);
  }
  for (const block of v.deepstack_visual_indexes) {
    yield* norm(`v.deepstack.${block}.norm`, merged);
    yield* linear(`v.deepstack.${block}.fc1`, merged, merged);
    yield* linear(`v.deepstack.${block}.fc2`, v.out_hidden_size, merged);
  }
  yield* norm('v.post_ln', width);
  yield* linear('mm.0', merged, merged);
  yield* linear('mm.2', v.out_hidden_size, merged);
}

/**
 * Writes decoder.gguf and mmproj.gguf, whose vocabulary has the words of `texts`, into a folder that may have them
 * already. Gives their lengths.
 */
export function writeModel(folder, config, texts) {
  mkdirSync(folder, { recursive: true });
  const decoder = gguf.write(join(folder, 'decoder.gguf'), decoderMetadata(config, texts), [...decoderTensors(config)]);
  const tower = gguf.write(join(folder, 'mmproj.gguf'), towerMetadata(config), [...towerTensors(config)]);
  return { bytes: decoder.bytes + tower.bytes, written: decoder.written || tower.written };
}
