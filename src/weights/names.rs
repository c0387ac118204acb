//! Names of tensors: one row a rule.
//!
//! The canonical name is the Hugging Face name without the leading `model.`; modules use
//! it as their path. GGUF names are llama.cpp's: architecture `qwen3vl` for the decoder
//! and `clip` with projector `qwen3vl_merger` for the vision tower, in files of their own.
//! `{}` stands for a number: the layer, except in `visual.deepstack_merger_list.{}`, where
//! the canonical number is the position in `deepstack_visual_indexes` and GGUF's is the
//! vision block that is tapped.
//!
//! Source: `gguf/tensor_mapping.py` and `conversion/qwen3vl.py` of llama.cpp.

/// Which of the two GGUF files holds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Decoder, embedding table and head.
    Text,
    /// Vision tower and mergers, the `mmproj` file.
    Vision,
}

struct Rule {
    canonical: &'static str,
    gguf: &'static str,
    part: Part,
}

const fn text(canonical: &'static str, gguf: &'static str) -> Rule {
    Rule { canonical, gguf, part: Part::Text }
}

const fn vision(canonical: &'static str, gguf: &'static str) -> Rule {
    Rule { canonical, gguf, part: Part::Vision }
}

/// The patch embedding, which GGUF splits into one tensor for each frame.
pub const PATCH_EMBEDDING: &str = "visual.patch_embed.proj.weight";

/// The learned position table, kept in f32.
pub const POSITION_TABLE: &str = "visual.pos_embed.weight";

/// The embedding table.
pub const EMBEDDING: &str = "language_model.embed_tokens.weight";

/// The output head, absent where it is the embedding table.
pub const HEAD: &str = "lm_head.weight";

const DEEPSTACK: &str = "visual.deepstack_merger_list.";

const RULES: [Rule; 42] = [
    text("language_model.embed_tokens.weight", "token_embd.weight"),
    text("language_model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"),
    text("language_model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"),
    text("language_model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"),
    text("language_model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"),
    text("language_model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"),
    text("language_model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight"),
    text("language_model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight"),
    text("language_model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight"),
    text("language_model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"),
    text("language_model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    text("language_model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"),
    text("language_model.norm.weight", "output_norm.weight"),
    text("lm_head.weight", "output.weight"),
    vision("visual.patch_embed.proj.weight", "v.patch_embd.weight"),
    vision("visual.patch_embed.proj.bias", "v.patch_embd.bias"),
    vision("visual.pos_embed.weight", "v.position_embd.weight"),
    vision("visual.blocks.{}.norm1.weight", "v.blk.{}.ln1.weight"),
    vision("visual.blocks.{}.norm1.bias", "v.blk.{}.ln1.bias"),
    vision("visual.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_qkv.weight"),
    vision("visual.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_qkv.bias"),
    vision("visual.blocks.{}.attn.proj.weight", "v.blk.{}.attn_out.weight"),
    vision("visual.blocks.{}.attn.proj.bias", "v.blk.{}.attn_out.bias"),
    vision("visual.blocks.{}.norm2.weight", "v.blk.{}.ln2.weight"),
    vision("visual.blocks.{}.norm2.bias", "v.blk.{}.ln2.bias"),
    vision("visual.blocks.{}.mlp.linear_fc1.weight", "v.blk.{}.ffn_up.weight"),
    vision("visual.blocks.{}.mlp.linear_fc1.bias", "v.blk.{}.ffn_up.bias"),
    vision("visual.blocks.{}.mlp.linear_fc2.weight", "v.blk.{}.ffn_down.weight"),
    vision("visual.blocks.{}.mlp.linear_fc2.bias", "v.blk.{}.ffn_down.bias"),
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

/// The canonical name of a safetensors tensor; `None` for tensors of no known part.
pub fn from_hf(name: &str) -> Option<String> {
    let canonical = name.strip_prefix("model.").unwrap_or(name);
    RULES.iter().any(|rule| number_in(rule.canonical, canonical).is_some()).then(|| canonical.to_owned())
}

/// The canonical weight of a module that an adapter names; `None` for modules of no known part.
///
/// Modules are named as the library that made the adapter saw them: with or without `model.` in
/// front, and the decoder's layers once without `language_model.` (transformers before 4.52).
pub fn from_module(module: &str) -> Option<String> {
    let inner = module.strip_prefix("model.").unwrap_or(module);
    let inner = match inner.strip_prefix("language_model.model.") {
        Some(rest) => format!("language_model.{rest}"),
        None if inner.starts_with("layers.") => format!("language_model.{inner}"),
        None => inner.to_owned(),
    };
    from_hf(&format!("{inner}.weight"))
}

/// The module of a canonical weight, as transformers 5 names it.
pub fn to_module(canonical: &str) -> String {
    let name = to_hf(canonical);
    name.strip_suffix(".weight").unwrap_or(&name).to_owned()
}

/// The safetensors name of a canonical one.
pub fn to_hf(canonical: &str) -> String {
    if canonical == HEAD { canonical.to_owned() } else { format!("model.{canonical}") }
}

/// The canonical name of a GGUF tensor, and which frame of the patch embedding it is (0 elsewhere).
///
/// `taps` are the vision blocks that are tapped, in increasing order.
pub fn from_gguf(name: &str, taps: &[usize]) -> Option<(String, usize)> {
    let (rule, number) = RULES.iter().find_map(|rule| Some((rule, number_in(rule.gguf, name)?)))?;
    if rule.canonical == PATCH_EMBEDDING {
        return Some((PATCH_EMBEDDING.to_owned(), number.unwrap_or(0)));
    }
    let number = match number {
        Some(block) if rule.canonical.starts_with(DEEPSTACK) => {
            Some(taps.iter().position(|tap| *tap == block)?)
        }
        number => number,
    };
    Some((with_number(rule.canonical, number), 0))
}

/// The GGUF name of a canonical one (of its first frame, for the patch embedding) and its file.
///
/// `taps` are the vision blocks that are tapped, in increasing order.
pub fn to_gguf(canonical: &str, taps: &[usize]) -> Option<(String, Part)> {
    let (rule, number) = RULES.iter().find_map(|rule| Some((rule, number_in(rule.canonical, canonical)?)))?;
    let number = match number {
        Some(level) if rule.canonical.starts_with(DEEPSTACK) => Some(*taps.get(level)?),
        number => number,
    };
    Some((with_number(rule.gguf, number), rule.part))
}

/// The vision block of a GGUF `DeepStack` tensor.
pub(super) fn tapped_block(name: &str) -> Option<usize> {
    let rule = RULES.iter().filter(|rule| rule.canonical.starts_with(DEEPSTACK));
    rule.filter_map(|rule| number_in(rule.gguf, name)).flatten().next()
}

/// Whether `name` is an instance of `pattern`, and with which number.
#[allow(clippy::option_option, reason = "no match, a match without a number, a match with one")]
fn number_in(pattern: &str, name: &str) -> Option<Option<usize>> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return (pattern == name).then_some(None);
    };
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let canonical = matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && digits.len() <= 4;
    if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().ok())
}

fn with_number(pattern: &str, number: Option<usize>) -> String {
    number.map_or_else(|| pattern.to_owned(), |number| pattern.replacen("{}", &number.to_string(), 1))
}
