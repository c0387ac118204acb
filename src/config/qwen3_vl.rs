//! Qwen3-VL: `model_type` `qwen3_vl`.

use serde_json::{Value, json};

use super::decoder::{self, Own};
use super::family::{AddedId, Files};
use super::json::Object;
use super::model::{MAX_DEPTH, MAX_VOCAB, MAX_WIDTH};
use super::{Family, Geometry, ModelConfig, TextConfig, VisionConfig, VisionTokens};
use crate::{Error, Result};

/// How its files are read.
pub(super) const FILES: Files = Files {
    model_types: &["qwen3_vl"],
    classes: &["Qwen3VLForConditionalGeneration"],
    processors: &[
        "Qwen2VLImageProcessor",
        "Qwen2VLImageProcessorFast",
        "Qwen2VLImageProcessorPil",
        "Qwen3VLImageProcessor",
        "Qwen3VLImageProcessorFast",
        "Qwen3VLImageProcessorPil",
    ],
    read,
    write,
    geometry,
};

/// Sections of a checkpoint that leaves them out: transformers' own default for this family
/// (`Qwen3VLTextRotaryEmbedding`), right only for heads of width 128.
const DEFAULT_MROPE_SECTION: [usize; 3] = [24, 20, 20];

/// Base of the vision tower's rotary frequencies, a constant of the family.
const VISION_ROPE_THETA: f64 = 10_000.0;

/// Epsilon of the tower's layer norms, a constant of the family (`Qwen3VLVisionBlock`, `eps=1e-6`).
const LAYER_NORM_EPS: f64 = 1e-6;

/// Most pixels that a configuration may ask for: 16384 x 16384.
const MAX_PIXELS: usize = 1 << 28;

fn read(root: &Object<'_>, _: AddedId<'_>) -> Result<ModelConfig> {
    Ok(ModelConfig {
        family: Family::Qwen3Vl,
        architecture: Family::Qwen3Vl.model_type().to_owned(),
        vision: vision(&root.object("vision_config")?)?,
        text: text(root, &root.object("text_config")?)?,
        tokens: tokens(root)?,
        tiles: None,
    })
}

fn write(config: &ModelConfig) -> Value {
    json!({
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": config.architecture,
        "image_token_id": config.tokens.image,
        "video_token_id": config.tokens.video,
        "vision_start_token_id": config.tokens.start,
        "vision_end_token_id": config.tokens.end,
        "tie_word_embeddings": config.text.tie_word_embeddings,
        "text_config": text_json(&config.text),
        "vision_config": vision_json(&config.vision),
    })
}

fn tokens(root: &Object<'_>) -> Result<VisionTokens> {
    let id = |key: &str| root.count(key, 0..=MAX_VOCAB).map(|id| id as u32);
    Ok(VisionTokens {
        image: id("image_token_id")?,
        video: Some(id("video_token_id")?),
        start: Some(id("vision_start_token_id")?),
        end: Some(id("vision_end_token_id")?),
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
        attention_bias: true,
        layer_norm_eps: LAYER_NORM_EPS,
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
    let Some(rope) = object.optional_object("rope_parameters")? else {
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
    object.only_flag("attention_bias", false)?;
    let (theta, section) = decoder::rope(object, &["default", "mrope"])?;
    let own = Own {
        attention_bias: false,
        qk_norm: true,
        head_dim: object.count("head_dim", 2..=4096)?,
        rope: (theta, section.unwrap_or(DEFAULT_MROPE_SECTION)),
        tied: decoder::tie(root, object)?.unwrap_or(false),
    };
    decoder::read(object, &own)
}

/// `(min_pixels, max_pixels)` from whichever form the file uses.
fn geometry(root: &Object<'_>, _: &ModelConfig) -> Result<Geometry> {
    let size = root.optional_object("size")?;
    let limit = |key: &str, edge: &str| -> Result<usize> {
        if let Some(pixels) = root.optional_count(key, 1..=MAX_PIXELS)? {
            return Ok(pixels);
        }
        for size_key in [edge, key] {
            let pixels = size.as_ref().map(|size| size.optional_count(size_key, 1..=MAX_PIXELS));
            if let Some(pixels) = pixels.transpose()?.flatten() {
                return Ok(pixels);
            }
        }
        Err(Error::model(format!("neither size.{edge} nor {key} is there")))
    };
    let (min_pixels, max_pixels) =
        (limit("min_pixels", "shortest_edge")?, limit("max_pixels", "longest_edge")?);
    if min_pixels > max_pixels {
        return Err(Error::model(format!(
            "size.shortest_edge (min_pixels) is {min_pixels}, above size.longest_edge (max_pixels), which is {max_pixels}"
        )));
    }
    Ok(Geometry::Scaled { min_pixels, max_pixels })
}

fn text_json(config: &TextConfig) -> Value {
    let own = json!({
        "model_type": "qwen3_vl_text",
        "attention_bias": false,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": true,
            "mrope_section": config.mrope_section,
        },
    });
    decoder::to_json(config, own)
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
