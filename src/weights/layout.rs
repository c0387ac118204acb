//! Which tensors a configuration calls for, and of which shapes.

use crate::config::{ModelConfig, TextConfig, VisionConfig};

/// Canonical name and shape (`[out, in]` for linear layers) of every tensor of a checkpoint,
/// in the order of the forward pass; the head only where it is not the embedding table.
///
/// The patch embedding is flattened to `[D, C * T * ph * pw]`.
pub fn expected(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    vision(&config.vision, &mut tensors);
    text(&config.text, &mut tensors);
    tensors
}

type Tensors = Vec<(String, Vec<usize>)>;

fn push(tensors: &mut Tensors, prefix: &str, name: &str, shape: &[usize]) {
    tensors.push((format!("{prefix}{name}"), shape.to_vec()));
}

/// A linear layer or a layer norm with its bias.
fn with_bias(tensors: &mut Tensors, prefix: &str, name: &str, shape: &[usize]) {
    push(tensors, prefix, &format!("{name}.weight"), shape);
    push(tensors, prefix, &format!("{name}.bias"), &shape[..1]);
}

fn vision(config: &VisionConfig, tensors: &mut Tensors) {
    let (width, wide) = (config.hidden_size, config.intermediate_size);
    let patch = config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size;
    with_bias(tensors, "visual.", "patch_embed.proj", &[width, patch]);
    push(tensors, "visual.", "pos_embed.weight", &[config.num_position_embeddings, width]);
    for block in 0..config.depth {
        let prefix = format!("visual.blocks.{block}.");
        with_bias(tensors, &prefix, "norm1", &[width]);
        with_bias(tensors, &prefix, "attn.qkv", &[3 * width, width]);
        with_bias(tensors, &prefix, "attn.proj", &[width, width]);
        with_bias(tensors, &prefix, "norm2", &[width]);
        with_bias(tensors, &prefix, "mlp.linear_fc1", &[wide, width]);
        with_bias(tensors, &prefix, "mlp.linear_fc2", &[width, wide]);
    }
    let merged = width * config.spatial_merge_size.pow(2);
    // The main merger's norm works on patches, the DeepStack mergers' on merged tokens.
    merger(config, tensors, "visual.merger.", width, merged);
    for level in 0..config.deepstack_visual_indexes.len() {
        merger(config, tensors, &format!("visual.deepstack_merger_list.{level}."), merged, merged);
    }
}

fn merger(config: &VisionConfig, tensors: &mut Tensors, prefix: &str, norm: usize, merged: usize) {
    with_bias(tensors, prefix, "norm", &[norm]);
    with_bias(tensors, prefix, "linear_fc1", &[merged, merged]);
    with_bias(tensors, prefix, "linear_fc2", &[config.out_hidden_size, merged]);
}

fn text(config: &TextConfig, tensors: &mut Tensors) {
    let (width, wide, head) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (query, key) = (config.num_attention_heads * head, config.num_key_value_heads * head);
    push(tensors, "", super::names::EMBEDDING, &[config.vocab_size, width]);
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("language_model.layers.{layer}.");
        for (name, shape) in [
            ("input_layernorm", [width].as_slice()),
            ("self_attn.q_proj", &[query, width]),
            ("self_attn.k_proj", &[key, width]),
            ("self_attn.v_proj", &[key, width]),
            ("self_attn.o_proj", &[width, query]),
            ("self_attn.q_norm", &[head]),
            ("self_attn.k_norm", &[head]),
            ("post_attention_layernorm", &[width]),
            ("mlp.gate_proj", &[wide, width]),
            ("mlp.up_proj", &[wide, width]),
            ("mlp.down_proj", &[width, wide]),
        ] {
            push(tensors, &prefix, &format!("{name}.weight"), shape);
        }
    }
    push(tensors, "language_model.", "norm.weight", &[width]);
    if !config.tie_word_embeddings {
        push(tensors, "", super::names::HEAD, &[config.vocab_size, width]);
    }
}

/// The shape that a safetensors file gives a canonical tensor: the patch embedding's is
/// `[D, C, T, ph, pw]`, the others are the same.
pub fn hf_shape(name: &str, shape: &[usize], config: &VisionConfig) -> Vec<usize> {
    if name != super::names::PATCH_EMBEDDING {
        return shape.to_vec();
    }
    let side = config.patch_size;
    vec![config.hidden_size, config.in_channels, config.temporal_patch_size, side, side]
}
