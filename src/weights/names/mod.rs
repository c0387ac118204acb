//! Names of tensors: one row a rule.
//!
//! The canonical name is Qwen3-VL's Hugging Face name without the leading `model.`, and the same for
//! what other families have in its place; modules use it as their path. GGUF names are llama.cpp's:
//! a decoder, and `clip` with a projector for the vision tower, in files of their own.
//! `{}` stands for a number: the layer, except in `visual.deepstack_merger_list.{}`, where
//! the canonical number is the position in `deepstack_visual_indexes` and GGUF's is the
//! vision block that is tapped.
//!
//! Reading needs no family: no name means two things. Writing GGUF does, for the same part of two
//! families has two names there. A canonical tensor may lie in several pieces: frames of the patch
//! embedding, and rows of queries, keys and values.
//!
//! Source: `gguf/tensor_mapping.py` of llama.cpp.

mod internvl;
mod qwen3_vl;

use crate::config::Family;

/// Which of the two GGUF files holds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Decoder, embedding table and head.
    Text,
    /// Vision tower and mergers, the `mmproj` file.
    Vision,
}

/// Where a stored tensor belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Canonical name.
    pub name: String,
    /// Which piece of that tensor it is, from 0.
    pub piece: usize,
}

/// A tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufName {
    /// Its name.
    pub name: String,
    /// The file that it is in.
    pub part: Part,
}

struct Rule {
    canonical: &'static str,
    gguf: &'static str,
    part: Part,
    /// Which piece of the canonical tensor.
    piece: usize,
}

const fn text(canonical: &'static str, gguf: &'static str) -> Rule {
    Rule { canonical, gguf, part: Part::Text, piece: 0 }
}

const fn vision(canonical: &'static str, gguf: &'static str) -> Rule {
    Rule { canonical, gguf, part: Part::Vision, piece: 0 }
}

const fn piece(canonical: &'static str, gguf: &'static str, piece: usize) -> Rule {
    Rule { canonical, gguf, part: Part::Vision, piece }
}

/// A name in safetensors that is not the canonical one.
struct Alias {
    hf: &'static str,
    canonical: &'static str,
    piece: usize,
}

const fn alias(hf: &'static str, canonical: &'static str) -> Alias {
    Alias { hf, canonical, piece: 0 }
}

/// The patch embedding, which GGUF splits into one tensor for each frame.
pub const PATCH_EMBEDDING: &str = "visual.patch_embed.proj.weight";

/// The learned position table, kept in f32.
pub const POSITION_TABLE: &str = "visual.pos_embed.weight";

/// The class token.
pub const CLASS_TOKEN: &str = "visual.cls_token";

/// The embedding table.
pub const EMBEDDING: &str = "language_model.embed_tokens.weight";

/// The output head, absent where it is the embedding table.
pub const HEAD: &str = "lm_head.weight";

const DEEPSTACK: &str = "visual.deepstack_merger_list.";

/// What all families have.
static SHARED: [Rule; 30] = [
    text("language_model.embed_tokens.weight", "token_embd.weight"),
    text("language_model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"),
    text("language_model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"),
    text("language_model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias"),
    text("language_model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"),
    text("language_model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias"),
    text("language_model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"),
    text("language_model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias"),
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
    vision("visual.blocks.{}.attn.proj.weight", "v.blk.{}.attn_out.weight"),
    vision("visual.blocks.{}.attn.proj.bias", "v.blk.{}.attn_out.bias"),
    vision("visual.blocks.{}.norm2.weight", "v.blk.{}.ln2.weight"),
    vision("visual.blocks.{}.norm2.bias", "v.blk.{}.ln2.bias"),
    vision("visual.blocks.{}.mlp.linear_fc1.weight", "v.blk.{}.ffn_up.weight"),
    vision("visual.blocks.{}.mlp.linear_fc1.bias", "v.blk.{}.ffn_up.bias"),
    vision("visual.blocks.{}.mlp.linear_fc2.weight", "v.blk.{}.ffn_down.weight"),
    vision("visual.blocks.{}.mlp.linear_fc2.bias", "v.blk.{}.ffn_down.bias"),
];

/// The table of families.
const fn own(family: Family) -> &'static [Rule] {
    match family {
        Family::Qwen3Vl => &qwen3_vl::RULES,
        Family::InternVl => &internvl::RULES,
    }
}

fn rules(family: Family) -> impl Iterator<Item = &'static Rule> {
    SHARED.iter().chain(own(family))
}

fn all_rules() -> impl Iterator<Item = &'static Rule> {
    Family::ALL.into_iter().flat_map(rules)
}

/// Where a safetensors tensor belongs; `None` for tensors of no known part.
///
/// The decoder's names are those of transformers 5, or those of earlier versions and of original
/// repositories, in which it is a model inside the model.
pub fn from_hf(name: &str) -> Option<Place> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let name = match name.strip_prefix("language_model.") {
        Some("lm_head.weight") => HEAD,
        _ => name,
    };
    let place = match name.strip_prefix("language_model.model.") {
        Some(rest) => Place { name: format!("language_model.{rest}"), piece: 0 },
        None => aliased(name).unwrap_or_else(|| Place { name: name.to_owned(), piece: 0 }),
    };
    is_canonical(&place.name).then_some(place)
}

/// Whether it is the canonical name of some family's tensor.
pub(super) fn is_canonical(name: &str) -> bool {
    all_rules().any(|rule| number_in(rule.canonical, name).is_some())
}

/// The place of a tensor whose name is one of the aliases.
fn aliased(name: &str) -> Option<Place> {
    let suffixes = ["", ".weight", ".bias"].into_iter();
    suffixes.filter_map(|suffix| Some((name.strip_suffix(suffix)?, suffix))).find_map(|(stem, suffix)| {
        let (alias, number) =
            internvl::ALIASES.iter().find_map(|alias| Some((alias, number_in(alias.hf, stem)?)))?;
        let name = with_number(alias.canonical, number) + suffix;
        Some(Place { name, piece: alias.piece })
    })
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
    let canonical = format!("{inner}.weight");
    is_canonical(&canonical).then_some(canonical)
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

/// Where a GGUF tensor belongs; frames of the patch embedding are pieces.
///
/// `taps` are the vision blocks that are tapped, in increasing order.
pub fn from_gguf(name: &str, taps: &[usize]) -> Option<Place> {
    let (rule, number) = all_rules().find_map(|rule| Some((rule, number_in(rule.gguf, name)?)))?;
    if rule.canonical == PATCH_EMBEDDING {
        return Some(Place { name: PATCH_EMBEDDING.to_owned(), piece: number.unwrap_or(0) });
    }
    let number = match number {
        Some(block) if rule.canonical.starts_with(DEEPSTACK) => {
            Some(taps.iter().position(|tap| *tap == block)?)
        }
        number => number,
    };
    Some(Place { name: with_number(rule.canonical, number), piece: rule.piece })
}

/// The GGUF names of a canonical tensor in the order of its pieces: one name, except where rows lie
/// apart. Of the patch embedding, it is that of the first frame.
///
/// `taps` are the vision blocks that are tapped, in increasing order.
pub fn to_gguf(canonical: &str, family: Family, taps: &[usize]) -> Vec<GgufName> {
    let is_frame = |rule: &Rule| rule.canonical == PATCH_EMBEDDING && rule.gguf.contains("{}");
    rules(family)
        .filter(|rule| !is_frame(rule))
        .filter_map(|rule| {
            let number = match number_in(rule.canonical, canonical)? {
                Some(level) if rule.canonical.starts_with(DEEPSTACK) => Some(*taps.get(level)?),
                number => number,
            };
            Some(GgufName { name: with_number(rule.gguf, number), part: rule.part })
        })
        .collect()
}

/// The vision block of a GGUF `DeepStack` tensor.
pub(super) fn tapped_block(name: &str) -> Option<usize> {
    let rule = all_rules().filter(|rule| rule.canonical.starts_with(DEEPSTACK));
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
