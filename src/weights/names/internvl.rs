//! Names of `InternVL`'s own tensors, in GGUF and in the two layouts of safetensors.
//!
//! Source: `conversion/internvl.py` and `gguf/tensor_mapping.py` of llama.cpp; transformers 5.23.0,
//! `models/internvl/modeling_internvl.py`, and its `convert_internvl_weights_to_hf.py` for the
//! original repositories.

use super::{Alias, Rule, alias, piece, vision};

/// GGUF names, projector `internvl`. Queries, keys and values lie apart there.
pub(super) const RULES: [Rule; 15] = [
    vision("visual.cls_token", "v.class_embd"),
    vision("visual.blocks.{}.ls1", "v.blk.{}.ls1.weight"),
    vision("visual.blocks.{}.ls2", "v.blk.{}.ls2.weight"),
    piece("visual.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_q.weight", 0),
    piece("visual.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_k.weight", 1),
    piece("visual.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_v.weight", 2),
    piece("visual.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_q.bias", 0),
    piece("visual.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_k.bias", 1),
    piece("visual.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_v.bias", 2),
    vision("visual.merger.norm.weight", "mm.model.mlp.0.weight"),
    vision("visual.merger.norm.bias", "mm.model.mlp.0.bias"),
    vision("visual.merger.linear_fc1.weight", "mm.model.mlp.1.weight"),
    vision("visual.merger.linear_fc1.bias", "mm.model.mlp.1.bias"),
    vision("visual.merger.linear_fc2.weight", "mm.model.mlp.3.weight"),
    vision("visual.merger.linear_fc2.bias", "mm.model.mlp.3.bias"),
];

/// Names in safetensors, without `.weight` and `.bias` where there are both.
pub(super) const ALIASES: [Alias; 30] = [
    // transformers.
    alias("vision_tower.embeddings.cls_token", "visual.cls_token"),
    alias("vision_tower.embeddings.position_embeddings", "visual.pos_embed.weight"),
    alias("vision_tower.embeddings.patch_embeddings.projection", "visual.patch_embed.proj"),
    alias("vision_tower.encoder.layer.{}.layernorm_before", "visual.blocks.{}.norm1"),
    alias("vision_tower.encoder.layer.{}.layernorm_after", "visual.blocks.{}.norm2"),
    alias("vision_tower.encoder.layer.{}.lambda_1", "visual.blocks.{}.ls1"),
    alias("vision_tower.encoder.layer.{}.lambda_2", "visual.blocks.{}.ls2"),
    Alias {
        piece: 0,
        ..alias("vision_tower.encoder.layer.{}.attention.q_proj", "visual.blocks.{}.attn.qkv")
    },
    Alias {
        piece: 1,
        ..alias("vision_tower.encoder.layer.{}.attention.k_proj", "visual.blocks.{}.attn.qkv")
    },
    Alias {
        piece: 2,
        ..alias("vision_tower.encoder.layer.{}.attention.v_proj", "visual.blocks.{}.attn.qkv")
    },
    alias("vision_tower.encoder.layer.{}.attention.projection_layer", "visual.blocks.{}.attn.proj"),
    alias("vision_tower.encoder.layer.{}.mlp.fc1", "visual.blocks.{}.mlp.linear_fc1"),
    alias("vision_tower.encoder.layer.{}.mlp.fc2", "visual.blocks.{}.mlp.linear_fc2"),
    alias("multi_modal_projector.layer_norm", "visual.merger.norm"),
    alias("multi_modal_projector.linear_1", "visual.merger.linear_fc1"),
    alias("multi_modal_projector.linear_2", "visual.merger.linear_fc2"),
    // The original repositories.
    alias("vision_model.embeddings.class_embedding", "visual.cls_token"),
    alias("vision_model.embeddings.position_embedding", "visual.pos_embed.weight"),
    alias("vision_model.embeddings.patch_embedding", "visual.patch_embed.proj"),
    alias("vision_model.encoder.layers.{}.norm1", "visual.blocks.{}.norm1"),
    alias("vision_model.encoder.layers.{}.norm2", "visual.blocks.{}.norm2"),
    alias("vision_model.encoder.layers.{}.ls1", "visual.blocks.{}.ls1"),
    alias("vision_model.encoder.layers.{}.ls2", "visual.blocks.{}.ls2"),
    alias("vision_model.encoder.layers.{}.attn.qkv", "visual.blocks.{}.attn.qkv"),
    alias("vision_model.encoder.layers.{}.attn.proj", "visual.blocks.{}.attn.proj"),
    alias("vision_model.encoder.layers.{}.mlp.fc1", "visual.blocks.{}.mlp.linear_fc1"),
    alias("vision_model.encoder.layers.{}.mlp.fc2", "visual.blocks.{}.mlp.linear_fc2"),
    alias("mlp1.0", "visual.merger.norm"),
    alias("mlp1.1", "visual.merger.linear_fc1"),
    alias("mlp1.3", "visual.merger.linear_fc2"),
];
