//! What llama.cpp and tools like it want to find.
//!
//! Source: `conversion/qwen3vl.py`, `conversion/internvl.py`, `gguf/constants.py` of llama.cpp.

use serde_json::Value as Json;

use super::{CONTROL, DECODER, QWEN2, QWEN2_PATTERN, SCORING, TOKENIZER_JSON, USER_DEFINED, vocabulary};
use crate::config::{Family, Geometry, ImageConfig, ModelConfig, Tiles};
use crate::format::tensor::DType;
use crate::weights::gguf::{Array, Value};
use crate::{Error, Result};

/// `general.quantization_version` (`GGML_QNT_VERSION`).
const QUANTIZATION_VERSION: u32 = 2;

/// `enum llama_ftype`: what most weights are.
const fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q8_0 => 7,
        // The small mixtures; the pure types have no number.
        DType::Q4K => 14,
        DType::Q5K => 16,
        DType::Q6K => 18,
        DType::BF16 => 32,
    }
}

type Entries = Vec<(String, Value)>;

fn general(architecture: &str, kind: &str, name: &str, quant: DType) -> Entries {
    vec![
        ("general.architecture".to_owned(), architecture.into()),
        ("general.type".to_owned(), kind.into()),
        ("general.name".to_owned(), name.into()),
        ("general.quantization_version".to_owned(), Value::U32(QUANTIZATION_VERSION)),
        ("general.file_type".to_owned(), Value::U32(file_type(quant))),
    ]
}

/// Architecture of the decoder's file.
const fn decoder_architecture(config: &ModelConfig) -> &'static str {
    match config.family {
        Family::Qwen3Vl => DECODER,
        Family::InternVl if config.text.qk_norm => "qwen3",
        Family::InternVl => "qwen2",
    }
}

/// Metadata of the decoder's file, with the scoring options where there are any.
pub fn text_metadata(
    config: &ModelConfig,
    scoring: Option<&serde_json::Map<String, Json>>,
    name: &str,
    quant: DType,
) -> Vec<(String, Value)> {
    let text = &config.text;
    let count = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let architecture = decoder_architecture(config);
    let mut entries = general(architecture, "model", name, quant);
    let own = match config.family {
        Family::Qwen3Vl => {
            let [time, height, width] = text.mrope_section.map(|size| size as i32);
            vec![
                // Four axes there; the last is not used by pictures.
                ("rope.dimension_sections", Value::Array(Array::I32(vec![time, height, width, 0]))),
                ("n_deepstack_layers", count(config.vision.deepstack_visual_indexes.len())),
            ]
        }
        Family::InternVl => Vec::new(),
    };
    entries.extend(
        [
            ("context_length", count(text.max_position_embeddings)),
            ("embedding_length", count(text.hidden_size)),
            ("block_count", count(text.num_hidden_layers)),
            ("feed_forward_length", count(text.intermediate_size)),
            ("attention.head_count", count(text.num_attention_heads)),
            ("attention.head_count_kv", count(text.num_key_value_heads)),
            ("attention.key_length", count(text.head_dim)),
            ("attention.value_length", count(text.head_dim)),
            ("attention.layer_norm_rms_epsilon", Value::F32(text.rms_norm_eps as f32)),
            ("rope.freq_base", Value::F32(text.rope_theta as f32)),
            ("rope.dimension_count", count(text.head_dim)),
            ("vocab_size", count(text.vocab_size)),
        ]
        .into_iter()
        .chain(own)
        .map(|(key, value)| (format!("{architecture}.{key}"), value)),
    );
    entries.extend(
        scoring
            .map(|options| (SCORING.to_owned(), Json::Object(options.clone()).to_string().as_str().into())),
    );
    entries
}

/// Metadata of the vision tower's file, architecture `clip`.
pub fn vision_metadata(
    config: &ModelConfig,
    image: &ImageConfig,
    name: &str,
    quant: DType,
) -> Vec<(String, Value)> {
    let vision = &config.vision;
    let count = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let floats = |values: [f64; 3]| Value::Array(Array::F32(values.map(|value| value as f32).to_vec()));
    // llama.cpp derives the side of the position table from a nominal picture.
    let side = vision.num_position_embeddings.isqrt() * vision.patch_size;
    let mut entries = general("clip", "mmproj", name, quant);
    let own = match config.family {
        Family::Qwen3Vl => {
            let taps = &vision.deepstack_visual_indexes;
            let flags = (0..vision.depth).map(|block| taps.contains(&block)).collect();
            vec![
                ("projector_type", "qwen3vl_merger".into()),
                ("vision.spatial_merge_size", count(vision.spatial_merge_size)),
                ("vision.is_deepstack_layers", Value::Array(Array::Bool(flags))),
            ]
        }
        Family::InternVl => vec![
            ("projector_type", "internvl".into()),
            ("vision.projector.scale_factor", count(vision.spatial_merge_size)),
        ],
    };
    let geometry = match image.geometry {
        Geometry::Scaled { min_pixels, max_pixels } => {
            [("vision.image_min_pixels", count(min_pixels)), ("vision.image_max_pixels", count(max_pixels))]
        }
        Geometry::Tiled(Tiles { min_tiles, max_tiles, .. }) => {
            [("vision.preproc_min_tiles", count(min_tiles)), ("vision.preproc_max_tiles", count(max_tiles))]
        }
    };
    entries.extend(
        [
            ("has_vision_encoder", Value::Bool(true)),
            ("use_gelu", Value::Bool(true)),
            ("vision.image_size", count(side)),
            ("vision.patch_size", count(vision.patch_size)),
            ("vision.embedding_length", count(vision.hidden_size)),
            ("vision.feed_forward_length", count(vision.intermediate_size)),
            ("vision.projection_dim", count(vision.out_hidden_size)),
            ("vision.block_count", count(vision.depth)),
            ("vision.attention.head_count", count(vision.num_heads)),
            // The converter of llama.cpp writes Qwen3-VL's decoder's, which is the same in every published model.
            ("vision.attention.layer_norm_epsilon", Value::F32(vision.layer_norm_eps as f32)),
            ("vision.image_mean", floats(image.mean)),
            ("vision.image_std", floats(image.std)),
        ]
        .into_iter()
        .chain(own)
        .chain(geometry)
        .map(|(key, value)| (format!("clip.{key}"), value)),
    );
    entries
}

/// The vocabulary of a byte-level BPE `tokenizer.json`, padded to `vocab_size` rows; the whole file
/// beside it where its way of splitting words has no name in llama.cpp.
///
/// # Errors
/// When it is no such file or an id is not below `vocab_size`.
pub fn tokenizer_metadata(tokenizer_json: &[u8], vocab_size: usize) -> Result<Vec<(String, Value)>> {
    let json: Json = serde_json::from_slice(tokenizer_json)
        .map_err(|error| Error::model("tokenizer.json is malformed").with_source(error))?;
    let (names, kinds): (Vec<String>, Vec<i32>) = vocabulary(&json, vocab_size)?.into_iter().unzip();
    let special = |content: &str| {
        let named = |(name, kind): (&String, &i32)| name == content && [CONTROL, USER_DEFINED].contains(kind);
        names.iter().zip(&kinds).position(named)
    };
    let special = [("eos", "<|im_end|>"), ("padding", "<|endoftext|>"), ("bos", "<|endoftext|>")]
        .map(|(key, content)| (key, special(content)));
    let is_qwen2 = splits_as_qwen2(&json["pre_tokenizer"]);
    let mut entries = vec![
        ("tokenizer.ggml.model".to_owned(), "gpt2".into()),
        // Under a name that nobody knows, others refuse the file instead of splitting words wrongly.
        ("tokenizer.ggml.pre".to_owned(), if is_qwen2 { QWEN2 } else { "imatch" }.into()),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(Array::String(names))),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.merges".to_owned(), Value::Array(Array::String(merges(&json)?))),
        ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(false)),
    ];
    for (key, id) in special {
        entries.extend(id.map(|id| (format!("tokenizer.ggml.{key}_token_id"), Value::U32(id as u32))));
    }
    if !is_qwen2 {
        let text = std::str::from_utf8(tokenizer_json)
            .map_err(|error| Error::model("tokenizer.json is not UTF-8").with_source(error))?;
        entries.push((TOKENIZER_JSON.to_owned(), text.into()));
    }
    Ok(entries)
}

/// Whether a pre-tokenizer splits by Qwen's pattern.
fn splits_as_qwen2(pre_tokenizer: &Json) -> bool {
    match pre_tokenizer {
        Json::Object(fields) => fields.values().any(splits_as_qwen2),
        Json::Array(steps) => steps.iter().any(splits_as_qwen2),
        Json::String(pattern) => pattern == QWEN2_PATTERN,
        _ => false,
    }
}

/// Merges as strings `a b`, whichever of the two forms the file has.
fn merges(json: &Json) -> Result<Vec<String>> {
    let merges = json.pointer("/model/merges").and_then(Json::as_array);
    let merges = merges.ok_or_else(|| Error::model("tokenizer.json: model.merges is missing"))?;
    merges
        .iter()
        .map(|merge| match merge {
            Json::String(text) => Some(text.clone()),
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(left), Json::String(right)] => Some(format!("{left} {right}")),
                _ => None,
            },
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::model("tokenizer.json: model.merges holds something else than pairs"))
}
