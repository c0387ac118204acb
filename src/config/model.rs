//! `config.json` to [`ModelConfig`] and back.

use serde_json::{Value, json};

use super::json::{Object, parse};
use super::{ModelConfig, TextConfig, VisionConfig, VisionTokens};
use crate::{Error, Result};

/// The one family that is supported (`model_type`).
const FAMILY: &str = "qwen3_vl";

/// Most layers of either tower; the deepest published model has below 100.
pub(crate) const MAX_DEPTH: usize = 512;

/// Widest residual stream or feed-forward part.
const MAX_WIDTH: usize = 1 << 18;

/// Most rows of the embedding table; ids are far below the 32 bits they are stored in.
const MAX_VOCAB: usize = 1 << 24;

/// Sections of a checkpoint that leaves them out: transformers' own default for this family
/// (`Qwen3VLTextRotaryEmbedding`), right only for heads of width 128.
const DEFAULT_MROPE_SECTION: [usize; 3] = [24, 20, 20];

/// Base of the vision tower's rotary frequencies, a constant of the family.
const VISION_ROPE_THETA: f64 = 10_000.0;

impl ModelConfig {
    /// Parses `config.json` of a Qwen3-VL checkpoint.
    ///
    /// Read are `rope_theta` beside `rope_scaling`, and `rope_parameters`; the tie
    /// flag at the top level or in `text_config`; `patch_size` as a number or a list;
    /// any number of `DeepStack` levels.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] names the key that is missing, absurd or in
    /// contradiction to another; [`crate::error::Kind::Unsupported`] names the one
    /// that asks for another family, activation, rotary scaling or packed weights.
    pub fn from_json(config_json: &[u8]) -> Result<Self> {
        let value = parse(config_json)?;
        let root = Object::root(&value)?;
        let architecture = root.text("model_type")?.ok_or_else(|| root.missing("model_type"))?;
        root.only_text("model_type", &[FAMILY])?;
        if root.get("quantization_config").is_some() {
            return Err(Error::unsupported(
                "quantization_config is there: packed safetensors are not supported, only f32, f16 and bf16",
            ));
        }
        let config = Self {
            architecture: architecture.to_owned(),
            vision: vision(&root.object("vision_config", "vision_config")?)?,
            text: text(&root, &root.object("text_config", "text_config")?)?,
            tokens: tokens(&root)?,
        };
        config.agree()?;
        Ok(config)
    }

    /// The configuration as `config.json` holds it, in the form that every version
    /// of transformers with this family reads.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": self.architecture,
            "image_token_id": self.tokens.image,
            "video_token_id": self.tokens.video,
            "vision_start_token_id": self.tokens.start,
            "vision_end_token_id": self.tokens.end,
            "tie_word_embeddings": self.text.tie_word_embeddings,
            "text_config": text_json(&self.text),
            "vision_config": vision_json(&self.vision),
        })
    }

    /// Compares the parts with one another.
    fn agree(&self) -> Result<()> {
        let (vision, text) = (&self.vision, &self.text);
        if vision.out_hidden_size != text.hidden_size {
            return Err(Error::model(format!(
                "vision_config.out_hidden_size is {}, but text_config.hidden_size is {}",
                vision.out_hidden_size, text.hidden_size
            )));
        }
        let VisionTokens { image, start, end, .. } = self.tokens;
        for (key, id) in
            [("image_token_id", image), ("vision_start_token_id", start), ("vision_end_token_id", end)]
        {
            if id as usize >= text.vocab_size {
                let size = text.vocab_size;
                return Err(Error::model(format!(
                    "{key} is {id}, past text_config.vocab_size, which is {size}"
                )));
            }
        }
        if image == start || image == end || start == end {
            return Err(Error::model(format!(
                "image_token_id {image}, vision_start_token_id {start} and vision_end_token_id {end} are not distinct"
            )));
        }
        Ok(())
    }
}

fn tokens(root: &Object<'_>) -> Result<VisionTokens> {
    let id = |key: &str| root.count(key, 0..=MAX_VOCAB).map(|id| id as u32);
    Ok(VisionTokens {
        image: id("image_token_id")?,
        video: id("video_token_id")?,
        start: id("vision_start_token_id")?,
        end: id("vision_end_token_id")?,
    })
}

fn vision(object: &Object<'_>) -> Result<VisionConfig> {
    // Early checkpoints carry the whole model's type here.
    object.only_text("model_type", &["qwen3_vl", "qwen3_vl_vision"])?;
    object.only_text("hidden_act", &["gelu_pytorch_tanh"])?;
    vision_rope(object)?;
    let side = |key: &str, max: usize| object.side(key, 1..=max)?.ok_or_else(|| object.missing(key));
    let config = VisionConfig {
        depth: object.count("depth", 1..=MAX_DEPTH)?,
        hidden_size: object.count("hidden_size", 1..=MAX_WIDTH)?,
        intermediate_size: object.count("intermediate_size", 1..=MAX_WIDTH)?,
        num_heads: object.count("num_heads", 1..=4096)?,
        in_channels: object.optional_count("in_channels", 3..=3)?.unwrap_or(3),
        patch_size: side("patch_size", 256)?,
        temporal_patch_size: side("temporal_patch_size", 16)?,
        spatial_merge_size: side("spatial_merge_size", 16)?,
        num_position_embeddings: object.count("num_position_embeddings", 1..=1 << 20)?,
        deepstack_visual_indexes: object
            .counts("deepstack_visual_indexes", 0..=MAX_DEPTH, MAX_DEPTH)?
            .ok_or_else(|| object.missing("deepstack_visual_indexes"))?,
        out_hidden_size: object.count("out_hidden_size", 1..=MAX_WIDTH)?,
    };
    check_vision(object, &config)?;
    Ok(config)
}

fn check_vision(object: &Object<'_>, config: &VisionConfig) -> Result<()> {
    let VisionConfig { hidden_size, num_heads, num_position_embeddings: rows, depth, .. } = *config;
    if !hidden_size.is_multiple_of(num_heads) || !(hidden_size / num_heads).is_multiple_of(4) {
        return Err(Error::model(format!(
            "vision_config.hidden_size is {hidden_size}, expected a multiple of 4 times num_heads, which is {num_heads}"
        )));
    }
    if rows.isqrt().pow(2) != rows {
        let key = object.name("num_position_embeddings");
        return Err(Error::model(format!("{key} is {rows}, expected a square number")));
    }
    let taps = &config.deepstack_visual_indexes;
    if let Some(tap) = taps.iter().find(|tap| **tap >= depth) {
        let key = object.name("deepstack_visual_indexes");
        return Err(Error::model(format!("{key} names block {tap}, but vision_config.depth is {depth}")));
    }
    if taps.windows(2).any(|pair| pair[0] >= pair[1]) {
        let key = object.name("deepstack_visual_indexes");
        return Err(Error::model(format!("{key} is {taps:?}, expected increasing block numbers")));
    }
    Ok(())
}

/// The vision tower's frequencies are fixed; a file that states them must state these.
fn vision_rope(object: &Object<'_>) -> Result<()> {
    let Some(rope) = object.optional_object("rope_parameters", "vision_config.rope_parameters")? else {
        return Ok(());
    };
    rope.only_text("rope_type", &["axial", "default"])?;
    match rope.number("rope_theta", 0.0, 1e15)? {
        Some(theta) if theta.to_bits() != VISION_ROPE_THETA.to_bits() => {
            Err(rope.unsupported("rope_theta", &["10000"], &Value::from(theta)))
        }
        _ => Ok(()),
    }
}

fn text(root: &Object<'_>, object: &Object<'_>) -> Result<TextConfig> {
    object.only_text("model_type", &["qwen3_vl_text"])?;
    object.only_text("hidden_act", &["silu"])?;
    object.only_flag("attention_bias", false)?;
    let heads = object.count("num_attention_heads", 1..=4096)?;
    let head_dim = object.count("head_dim", 2..=4096)?;
    let (rope_theta, mrope_section) = rope(object)?;
    let config = TextConfig {
        vocab_size: object.count("vocab_size", 1..=MAX_VOCAB)?,
        hidden_size: object.count("hidden_size", 1..=MAX_WIDTH)?,
        intermediate_size: object.count("intermediate_size", 1..=MAX_WIDTH)?,
        num_hidden_layers: object.count("num_hidden_layers", 1..=MAX_DEPTH)?,
        num_attention_heads: heads,
        num_key_value_heads: object.optional_count("num_key_value_heads", 1..=4096)?.unwrap_or(heads),
        head_dim,
        rms_norm_eps: object
            .number("rms_norm_eps", 0.0, 0.1)?
            .ok_or_else(|| object.missing("rms_norm_eps"))?,
        rope_theta,
        mrope_section,
        max_position_embeddings: object.count("max_position_embeddings", 1..=1 << 30)?,
        tie_word_embeddings: tie(root, object)?,
    };
    check_text(&config)?;
    Ok(config)
}

fn check_text(config: &TextConfig) -> Result<()> {
    let TextConfig { head_dim, num_attention_heads: heads, num_key_value_heads: kv, mrope_section, .. } =
        config;
    if !head_dim.is_multiple_of(2) {
        return Err(Error::model(format!("text_config.head_dim is {head_dim}, expected an even number")));
    }
    if heads * head_dim > MAX_WIDTH {
        return Err(Error::model(format!(
            "text_config.num_attention_heads times head_dim is {}, expected at most {MAX_WIDTH}",
            heads * head_dim
        )));
    }
    if !heads.is_multiple_of(*kv) {
        return Err(Error::model(format!(
            "text_config.num_attention_heads is {heads}, expected a multiple of num_key_value_heads, which is {kv}"
        )));
    }
    if mrope_section.iter().sum::<usize>() != head_dim / 2 {
        return Err(Error::model(format!(
            "text_config mrope_section is {mrope_section:?}, expected numbers that sum to half of head_dim, which is {head_dim}"
        )));
    }
    Ok(())
}

/// Whether the head is the embedding table. Where both places say so, the top wins, as in
/// transformers 5: saved files carry a default at the other place.
fn tie(root: &Object<'_>, object: &Object<'_>) -> Result<bool> {
    let (top, inner) = (root.flag("tie_word_embeddings")?, object.flag("tie_word_embeddings")?);
    Ok(top.or(inner).unwrap_or(false))
}

/// `(rope_theta, mrope_section)` from the flat key, `rope_scaling` and `rope_parameters`,
/// which must not disagree.
fn rope(object: &Object<'_>) -> Result<(f64, [usize; 3])> {
    let scaling = object.optional_object("rope_scaling", "text_config.rope_scaling")?;
    let parameters = object.optional_object("rope_parameters", "text_config.rope_parameters")?;
    let mut theta: Option<f64> = None;
    let mut section: Option<Vec<usize>> = None;
    for place in [Some(*object), scaling, parameters].into_iter().flatten() {
        for key in ["rope_type", "type"] {
            place.only_text(key, &["default", "mrope"])?;
        }
        place.only_flag("mrope_interleaved", true)?;
        if let Some(share) = place.number("partial_rotary_factor", 0.0, 1.0)?
            && share < 1.0
        {
            return Err(place.unsupported("partial_rotary_factor", &["1"], &Value::from(share)));
        }
        if let Some(value) = place.number("rope_theta", 1.0, 1e15)?
            && theta.replace(value).is_some_and(|earlier| earlier.to_bits() != value.to_bits())
        {
            return Err(Error::model(format!("{} contradicts another rope_theta", place.name("rope_theta"))));
        }
        if let Some(value) = place.counts("mrope_section", 0..=4096, 3)?
            && section.replace(value.clone()).is_some_and(|earlier| earlier != value)
        {
            return Err(Error::model(format!(
                "{} contradicts another mrope_section",
                place.name("mrope_section")
            )));
        }
    }
    let theta = theta.ok_or_else(|| object.missing("rope_theta"))?;
    let section = section.map_or(Ok(DEFAULT_MROPE_SECTION), <[usize; 3]>::try_from).map_err(|section| {
        Error::model(format!("mrope_section is {section:?}, expected three whole numbers"))
    })?;
    Ok((theta, section))
}

fn text_json(config: &TextConfig) -> Value {
    json!({
        "model_type": "qwen3_vl_text",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": false,
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": true,
            "mrope_section": config.mrope_section,
        },
        "tie_word_embeddings": config.tie_word_embeddings,
    })
}

fn vision_json(config: &VisionConfig) -> Value {
    json!({
        "model_type": "qwen3_vl",
        "depth": config.depth,
        "hidden_size": config.hidden_size,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": config.intermediate_size,
        "num_heads": config.num_heads,
        "in_channels": config.in_channels,
        "patch_size": config.patch_size,
        "temporal_patch_size": config.temporal_patch_size,
        "spatial_merge_size": config.spatial_merge_size,
        "num_position_embeddings": config.num_position_embeddings,
        "deepstack_visual_indexes": config.deepstack_visual_indexes,
        "out_hidden_size": config.out_hidden_size,
    })
}
