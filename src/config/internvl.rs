//! `InternVL3` and `InternVL3.5`: `model_type` `internvl` as transformers has it
//! (`InternVLForConditionalGeneration`), or `internvl_chat` of the original repositories.
//!
//! Source: transformers 5.23.0, `models/internvl/configuration_internvl.py`, `models/qwen2` and
//! `models/qwen3`; of the original, `configuration_internvl_chat.py`.

use serde_json::{Value, json};

use super::decoder::{self, Own};
use super::family::{AddedId, Files};
use super::json::Object;
use super::model::{MAX_DEPTH, MAX_VOCAB, MAX_WIDTH};
use super::{Family, Geometry, ModelConfig, TextConfig, Tiles, VisionConfig, VisionTokens};
use crate::{Error, Result};

/// How its files are read.
pub(super) const FILES: Files = Files {
    model_types: &["internvl", "internvl_chat"],
    classes: &["InternVLForConditionalGeneration", "InternVLChatModel"],
    processors: &[
        "GotOcr2ImageProcessor",
        "GotOcr2ImageProcessorFast",
        "GotOcr2ImageProcessorPil",
        "CLIPImageProcessor",
        "CLIPFeatureExtractor",
    ],
    read,
    write,
    geometry,
};

/// `model_type` of the original repositories.
const ORIGINAL: &str = "internvl_chat";

/// The placeholder of a picture's tokens, which the original repositories name in code only
/// (`IMG_CONTEXT_TOKEN`).
const IMAGE_TOKEN: &str = "<IMG_CONTEXT>";

/// Tiles where `preprocessor_config.json` has no number (`GotOcr2ImageProcessor.max_patches`).
const MAX_PATCHES: usize = 12;

/// Tiles where an original `config.json` has no number (`InternVLChatConfig.max_dynamic_patch`).
const MAX_DYNAMIC_PATCH: usize = 6;

/// Most tiles that a configuration may ask for.
const MAX_TILES: usize = 256;

/// Epsilon of the tower's layer norms where it is absent (`InternVLVisionConfig.layer_norm_eps`).
const LAYER_NORM_EPS: f64 = 1e-6;

/// Width of a Qwen3 decoder's head where it is absent (`Qwen3Config.head_dim`).
const QWEN3_HEAD_DIM: usize = 128;

fn read(root: &Object<'_>, added_id: AddedId<'_>) -> Result<ModelConfig> {
    let is_original = root.text("model_type")? == Some(ORIGINAL);
    let text_object = root.object(if is_original { "llm_config" } else { "text_config" })?;
    let vision_object = root.object("vision_config")?;
    if is_original {
        // Version 1 leaves rows and columns of picture tokens exchanged; it is also what absence means.
        root.only_text("ps_version", &["v2"])?;
        root.text("ps_version")?.ok_or_else(|| root.missing("ps_version"))?;
        root.only_integer("select_layer", -1)?;
        root.only_flag("pad2square", false)?;
    } else {
        root.only_integer("vision_feature_layer", -1)?;
        root.only_text("vision_feature_select_strategy", &["default"])?;
        root.only_text("projector_hidden_act", &["gelu"])?;
    }
    let tied = if is_original {
        // The original makes its decoder of the inner part alone.
        text_object.flag("tie_word_embeddings")?.unwrap_or(false)
    } else {
        decoder::tie(root, &text_object)?.unwrap_or(true)
    };
    let text = text(&text_object, tied)?;
    let vision = vision(root, &vision_object, (is_original, text.hidden_size))?;
    let tiles = if is_original { Some(dynamic_tiles(root, &vision)?) } else { None };
    let image = root.optional_count("image_token_id", 0..=MAX_VOCAB)?.map(|id| id as u32);
    let image = match image {
        Some(image) => image,
        None => added_id(IMAGE_TOKEN)?.ok_or_else(|| root.missing("image_token_id"))?,
    };
    Ok(ModelConfig {
        family: Family::InternVl,
        architecture: Family::InternVl.model_type().to_owned(),
        vision,
        text,
        tokens: VisionTokens { image, video: None, start: None, end: None },
        tiles,
    })
}

fn text(object: &Object<'_>, tied: bool) -> Result<TextConfig> {
    object.only_text("model_type", &["qwen2", "qwen3"])?;
    let is_qwen2 = match object.text("model_type")? {
        Some(model_type) => model_type == "qwen2",
        None => return Err(object.missing("model_type")),
    };
    object.only_flag("use_sliding_window", false)?;
    if let Some(Value::Array(types)) = object.get("layer_types")
        && let Some(other) = types.iter().find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(object.unsupported("layer_types", &["full_attention"], other));
    }
    let heads = object.count("num_attention_heads", 1..=4096)?;
    let width = object.count("hidden_size", 1..=MAX_WIDTH)?;
    let head_dim = object.optional_count("head_dim", 2..=4096)?;
    if is_qwen2 && head_dim.is_none() && !width.is_multiple_of(heads) {
        let key = object.name("hidden_size");
        return Err(Error::model(format!(
            "{key} is {width}, expected a multiple of num_attention_heads, which is {heads}"
        )));
    }
    if !is_qwen2 {
        object.only_flag("attention_bias", false)?;
    }
    // Dynamic frequencies are the plain ones up to `max_position_embeddings`, and a longer sequence is
    // refused (`_compute_dynamic_ntk_parameters` in transformers' modeling_rope_utils.py).
    let (theta, _) = decoder::rope(object, &["default", "dynamic"])?;
    let head_dim = head_dim.unwrap_or(if is_qwen2 { width / heads } else { QWEN3_HEAD_DIM });
    let own = Own {
        attention_bias: is_qwen2,
        qk_norm: !is_qwen2,
        head_dim,
        rope: (theta, [head_dim / 2, 0, 0]),
        tied,
    };
    decoder::read(object, &own)
}

fn vision(
    root: &Object<'_>,
    object: &Object<'_>,
    (is_original, out_hidden_size): (bool, usize),
) -> Result<VisionConfig> {
    object.only_text("model_type", &["internvl_vision", "intern_vit_6b"])?;
    object.only_text("hidden_act", &["gelu"])?;
    object.only_text("norm_type", &["layer_norm"])?;
    object.only_flag(if is_original { "qk_normalization" } else { "use_qk_norm" }, false)?;
    object.only_flag("use_absolute_position_embeddings", true)?;
    object.only_flag("use_mean_pooling", true)?;
    if is_original {
        // Absence means the 6B tower's norms (`InternVisionConfig`).
        for key in ["norm_type", "qk_normalization"] {
            object.get(key).ok_or_else(|| object.missing(key))?;
        }
    }
    let side = |key: &str, max: usize| object.side(key, 1..=max)?.ok_or_else(|| object.missing(key));
    let (image_size, patch_size) = (side("image_size", 4096)?, side("patch_size", 256)?);
    let hidden_size = object.count("hidden_size", 1..=MAX_WIDTH)?;
    let num_heads = object.count("num_attention_heads", 1..=4096)?;
    if !hidden_size.is_multiple_of(num_heads) {
        let key = object.name("hidden_size");
        return Err(Error::model(format!(
            "{key} is {hidden_size}, expected a multiple of num_attention_heads, which is {num_heads}"
        )));
    }
    let grid = image_size / patch_size;
    let merge = merge(root, object, [image_size, patch_size])?;
    let bias = if is_original { "qkv_bias" } else { "attention_bias" };
    Ok(VisionConfig {
        depth: object.count("num_hidden_layers", 1..=MAX_DEPTH)?,
        hidden_size,
        intermediate_size: object.count("intermediate_size", 1..=MAX_WIDTH)?,
        num_heads,
        in_channels: object.optional_count("num_channels", 3..=3)?.unwrap_or(3),
        patch_size,
        temporal_patch_size: 1,
        spatial_merge_size: merge,
        num_position_embeddings: grid * grid + 1,
        attention_bias: object.flag(bias)?.unwrap_or(false),
        layer_norm_eps: object.number("layer_norm_eps", 0.0, 0.1)?.unwrap_or(LAYER_NORM_EPS),
        deepstack_visual_indexes: Vec::new(),
        out_hidden_size,
    })
}

/// Patches per side of a token, from `downsample_ratio`, compared with the grid of a tile.
fn merge(root: &Object<'_>, object: &Object<'_>, [image_size, patch_size]: [usize; 2]) -> Result<usize> {
    let ratio = root.number("downsample_ratio", 0.0, 1.0)?.unwrap_or(0.5);
    let merge = (1.0 / ratio).round();
    if (1.0 / merge - ratio).abs() > 1e-9 || merge > 16.0 {
        return Err(root.unsupported("downsample_ratio", &["1", "0.5", "0.25"], &Value::from(ratio)));
    }
    let (merge, grid) = (merge as usize, image_size / patch_size);
    if !image_size.is_multiple_of(patch_size * merge) {
        let key = object.name("image_size");
        return Err(Error::model(format!(
            "{key} is {image_size}, expected a multiple of patch_size over downsample_ratio, which is {}",
            patch_size * merge
        )));
    }
    let tokens = (grid / merge).pow(2);
    match root.optional_count("image_seq_length", 1..=1 << 20)? {
        Some(length) if length != tokens => Err(Error::model(format!(
            "image_seq_length is {length}, but a tile of vision_config.image_size {image_size} has {tokens} tokens"
        ))),
        _ => Ok(merge),
    }
}

/// Tiles as an original `config.json` describes them.
fn dynamic_tiles(root: &Object<'_>, vision: &VisionConfig) -> Result<Tiles> {
    let side = side(vision);
    if let Some(forced) = root.optional_count("force_image_size", 1..=4096)?
        && forced != side
    {
        return Err(Error::unsupported(format!(
            "force_image_size is {forced}, but vision_config.image_size is {side}: positions would have to be resampled"
        )));
    }
    let thumbnail = root.flag("use_thumbnail")?.unwrap_or(false);
    let one = Tiles { side, min_tiles: 1, max_tiles: 1, thumbnail };
    if root.flag("dynamic_image_size")? != Some(true) {
        return Ok(one);
    }
    let tiles = Tiles {
        min_tiles: root.optional_count("min_dynamic_patch", 1..=MAX_TILES)?.unwrap_or(1),
        max_tiles: root.optional_count("max_dynamic_patch", 1..=MAX_TILES)?.unwrap_or(MAX_DYNAMIC_PATCH),
        ..one
    };
    ordered(tiles, ["min_dynamic_patch", "max_dynamic_patch"])
}

fn ordered(tiles: Tiles, [min_key, max_key]: [&str; 2]) -> Result<Tiles> {
    let Tiles { min_tiles, max_tiles, .. } = tiles;
    if min_tiles > max_tiles {
        return Err(Error::model(format!("{min_key} is {min_tiles}, above {max_key}, which is {max_tiles}")));
    }
    Ok(tiles)
}

/// Side of a tile in pixels.
fn side(vision: &VisionConfig) -> usize {
    (vision.num_position_embeddings - 1).isqrt() * vision.patch_size
}

/// Tiles, from the preprocessor's file or, in an original repository, from `config.json`.
///
/// `crop_to_patches` is not read: `InternVLProcessor` sets it for every picture, whatever the file says.
fn geometry(root: &Object<'_>, model: &ModelConfig) -> Result<Geometry> {
    let expected = side(&model.vision);
    let sides: Vec<usize> = match root.get("size") {
        Some(Value::Object(_)) => {
            let size = root.object("size")?;
            let keys = ["height", "width", "shortest_edge"];
            let sides = keys.map(|key| size.optional_count(key, 1..=4096));
            sides.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
        _ => root.optional_count("size", 1..=4096)?.into_iter().collect(),
    };
    if sides.is_empty() {
        return Err(root.missing("size"));
    }
    if let Some(got) = sides.into_iter().find(|side| *side != expected) {
        return Err(Error::model(format!(
            "size is {got}, but the model's vision_config.image_size is {expected}"
        )));
    }
    if let Some(tiles) = model.tiles {
        return Ok(Geometry::Tiled(tiles));
    }
    root.only_text("image_processor_type", &FILES.processors[..3])?;
    let tiles = Tiles {
        side: expected,
        min_tiles: root.optional_count("min_patches", 1..=MAX_TILES)?.unwrap_or(1),
        max_tiles: root.optional_count("max_patches", 1..=MAX_TILES)?.unwrap_or(MAX_PATCHES),
        thumbnail: root.flag("use_thumbnail")?.unwrap_or(true),
    };
    ordered(tiles, ["min_patches", "max_patches"]).map(Geometry::Tiled)
}

fn write(config: &ModelConfig) -> Value {
    let ModelConfig { vision, text, .. } = config;
    let grid = side(vision) / vision.patch_size / vision.spatial_merge_size;
    let is_qwen2 = text.attention_bias;
    json!({
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": config.architecture,
        "image_token_id": config.tokens.image,
        "image_seq_length": grid * grid,
        "downsample_ratio": 1.0 / vision.spatial_merge_size as f64,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": text.tie_word_embeddings,
        "text_config": decoder::to_json(text, json!({
            "model_type": if is_qwen2 { "qwen2" } else { "qwen3" },
        })),
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "attention_bias": vision.attention_bias,
            "use_qk_norm": false,
            "intermediate_size": vision.intermediate_size,
            "hidden_act": "gelu",
            "norm_type": "layer_norm",
            "layer_norm_eps": vision.layer_norm_eps,
            "image_size": [side(vision), side(vision)],
            "patch_size": [vision.patch_size, vision.patch_size],
            "num_channels": vision.in_channels,
            "use_absolute_position_embeddings": true,
            "use_mean_pooling": true,
        },
    })
}
