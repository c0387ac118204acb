//! Which tensors a configuration calls for, and of which shapes.

use crate::config::{Family, ModelConfig, TextConfig, VisionConfig};

/// Canonical name and shape (`[out, in]` for linear layers) of every tensor of a checkpoint,
/// in the order of the forward pass; the head only where it is not the embedding table.
///
/// The patch embedding is flattened to `[D, C * T * ph * pw]`; queries, keys and values of the vision tower
/// are one matrix.
pub fn expected(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    vision(config, &mut tensors);
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

fn vision(model: &ModelConfig, tensors: &mut Tensors) {
    let config = &model.vision;
    let (width, wide, out) = (config.hidden_size, config.intermediate_size, config.out_hidden_size);
    let patch = config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size;
    with_bias(tensors, "visual.", "patch_embed.proj", &[width, patch]);
    if model.family == Family::InternVl {
        push(tensors, "", super::names::CLASS_TOKEN, &[width]);
    }
    push(tensors, "visual.", "pos_embed.weight", &[config.num_position_embeddings, width]);
    for block in 0..config.depth {
        let prefix = format!("visual.blocks.{block}.");
        with_bias(tensors, &prefix, "norm1", &[width]);
        push(tensors, &prefix, "attn.qkv.weight", &[3 * width, width]);
        if config.attention_bias {
            push(tensors, &prefix, "attn.qkv.bias", &[3 * width]);
        }
        with_bias(tensors, &prefix, "attn.proj", &[width, width]);
        with_bias(tensors, &prefix, "norm2", &[width]);
        with_bias(tensors, &prefix, "mlp.linear_fc1", &[wide, width]);
        with_bias(tensors, &prefix, "mlp.linear_fc2", &[width, wide]);
        if model.family == Family::InternVl {
            push(tensors, &prefix, "ls1", &[width]);
            push(tensors, &prefix, "ls2", &[width]);
        }
    }
    let merged = width * config.spatial_merge_size.pow(2);
    match model.family {
        // The main merger's norm works on patches, the DeepStack mergers' on merged tokens.
        Family::Qwen3Vl => {
            merger(tensors, "visual.merger.", [width, merged, merged, out]);
            for level in 0..config.deepstack_visual_indexes.len() {
                let prefix = format!("visual.deepstack_merger_list.{level}.");
                merger(tensors, &prefix, [merged, merged, merged, out]);
            }
        }
        Family::InternVl => merger(tensors, "visual.merger.", [merged, merged, out, out]),
    }
}

fn merger(tensors: &mut Tensors, prefix: &str, [norm, merged, inner, out]: [usize; 4]) {
    with_bias(tensors, prefix, "norm", &[norm]);
    with_bias(tensors, prefix, "linear_fc1", &[inner, merged]);
    with_bias(tensors, prefix, "linear_fc2", &[out, inner]);
}

fn text(config: &TextConfig, tensors: &mut Tensors) {
    let (width, wide, head) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (query, key) = (config.num_attention_heads * head, config.num_key_value_heads * head);
    push(tensors, "", super::names::EMBEDDING, &[config.vocab_size, width]);
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("language_model.layers.{layer}.");
        let mut push = |name: &str, shape: &[usize]| push(tensors, &prefix, name, shape);
        push("input_layernorm.weight", &[width]);
        for (name, rows) in [("q_proj", query), ("k_proj", key), ("v_proj", key)] {
            push(&format!("self_attn.{name}.weight"), &[rows, width]);
            if config.attention_bias {
                push(&format!("self_attn.{name}.bias"), &[rows]);
            }
        }
        push("self_attn.o_proj.weight", &[width, query]);
        if config.qk_norm {
            push("self_attn.q_norm.weight", &[head]);
            push("self_attn.k_norm.weight", &[head]);
        }
        push("post_attention_layernorm.weight", &[width]);
        push("mlp.gate_proj.weight", &[wide, width]);
        push("mlp.up_proj.weight", &[wide, width]);
        push("mlp.down_proj.weight", &[width, wide]);
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
