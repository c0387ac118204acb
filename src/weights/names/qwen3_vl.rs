//! Names of Qwen3-VL's own tensors.
//!
//! Source: `conversion/qwen3vl.py` of llama.cpp.

use super::{Rule, vision};

/// GGUF names, projector `qwen3vl_merger`.
pub(super) const RULES: [Rule; 15] = [
    vision("visual.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_qkv.weight"),
    vision("visual.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_qkv.bias"),
    vision("visual.merger.norm.weight", "v.post_ln.weight"),
    vision("visual.merger.norm.bias", "v.post_ln.bias"),
    vision("visual.merger.linear_fc1.weight", "mm.0.weight"),
    vision("visual.merger.linear_fc1.bias", "mm.0.bias"),
    vision("visual.merger.linear_fc2.weight", "mm.2.weight"),
    vision("visual.merger.linear_fc2.bias", "mm.2.bias"),
    vision("visual.deepstack_merger_list.{}.norm.weight", "v.deepstack.{}.norm.weight"),
    vision("visual.deepstack_merger_list.{}.norm.bias", "v.deepstack.{}.norm.bias"),
    vision("visual.deepstack_merger_list.{}.linear_fc1.weight", "v.deepstack.{}.fc1.weight"),
    vision("visual.deepstack_merger_list.{}.linear_fc1.bias", "v.deepstack.{}.fc1.bias"),
    vision("visual.deepstack_merger_list.{}.linear_fc2.weight", "v.deepstack.{}.fc2.weight"),
    vision("visual.deepstack_merger_list.{}.linear_fc2.bias", "v.deepstack.{}.fc2.bias"),
    // A second frame of the patch embedding and those after it.
    vision("visual.patch_embed.proj.weight", "v.patch_embd.weight.{}"),
];
