// Floating-point work of a request: two operations for each weight and token, attention products included.

/** Work in GFLOP for a model's `config.json` and what `imatch prompt --json` says of a request. */
export function work({ vision_config: v, text_config: t }, input) {
  const [, h, w] = input.image.grid_thw;
  const patches = h * w;
  const tokens = input.image.n_tokens;
  const merged = v.hidden_size * v.spatial_merge_size ** 2;
  const mergers = 1 + v.deepstack_visual_indexes.length;
  const vision =
    2 * patches * (v.in_channels * v.temporal_patch_size * v.patch_size ** 2 * v.hidden_size) +
    v.depth *
      (2 * patches * (4 * v.hidden_size ** 2 + 2 * v.hidden_size * v.intermediate_size) +
        4 * patches ** 2 * v.hidden_size) +
    mergers * 2 * tokens * (merged * merged + merged * v.out_hidden_size);
  const heads = t.num_attention_heads * t.head_dim;
  const layer =
    2 * t.hidden_size * heads + 2 * t.hidden_size * t.num_key_value_heads * t.head_dim + 3 * t.hidden_size * t.intermediate_size;
  const sequences = input.questions.map((question) => question.token_ids);
  let prefix = Math.min(...sequences.map((ids) => ids.length)) - 1;
  for (const ids of sequences) while (sequences[0].slice(0, prefix).some((id, i) => id !== ids[i])) prefix -= 1;
  const suffixes = sequences.map((ids) => ids.length - prefix);
  const read = prefix + suffixes.reduce((a, b) => a + b, 0);
  const attention = prefix ** 2 + suffixes.reduce((sum, n) => sum + n * (prefix + n), 0);
  const decoder = t.num_hidden_layers * (2 * read * layer + 4 * attention * heads);
  return { vision: vision / 1e9, decoder: decoder / 1e9, prefix, read };
}
