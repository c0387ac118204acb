//! The metadata of llama.cpp's GGUF files: a decoder (architecture `qwen3vl`, or `qwen2` and `qwen3` of
//! `InternVL`) and a vision tower (architecture `clip`, the `mmproj` file).
//!
//! [`write`] says in it what llama.cpp and tools like it want to find; [`read`] takes from it what a
//! Hugging Face folder has in files: configuration, preprocessing and tokenizer. A pair alone is read of
//! Qwen3-VL only.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::format::tensor::shown;
use crate::{Error, Result};

pub mod read;
pub mod write;

/// Architecture of a Qwen3-VL decoder's file.
const DECODER: &str = "qwen3vl";

/// The whole `tokenizer.json`, as the GGUF specification names it
/// (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
const TOKENIZER_JSON: &str = "tokenizer.huggingface.json";

/// Scoring options as JSON; ours alone.
const SCORING: &str = "imatch.scoring";

/// `tokenizer.ggml.pre` of a vocabulary whose text is split by [`QWEN2_PATTERN`].
const QWEN2: &str = "qwen2";

/// Split pattern of Qwen's tokenizers (`tokenizer.json` of Qwen3-VL, `pre_tokenizer`; the same as
/// `LLAMA_VOCAB_PRE_TYPE_QWEN2` in llama-vocab.cpp).
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Epsilon of the tower's layer norms, a constant of the family (`Qwen3VLVisionBlock`, `eps=1e-6`).
const VISION_EPSILON: f32 = 1e-6;

/// Token types (`enum llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Every token of a byte-level BPE `tokenizer.json` with its type in the order of the ids; those of
/// `size` that it leaves out are named as llama.cpp names them (`get_vocab_base` in conversion/base.py).
fn vocabulary(tokenizer_json: &Json, size: usize) -> Result<Vec<(String, i32)>> {
    if tokenizer_json.pointer("/model/type").and_then(Json::as_str) != Some("BPE") {
        return Err(Error::unsupported("tokenizer.json: model.type is not \"BPE\""));
    }
    let mut tokens: BTreeMap<usize, (String, i32)> = BTreeMap::new();
    let vocab = tokenizer_json.pointer("/model/vocab").and_then(Json::as_object);
    for (token, id) in vocab.ok_or_else(|| Error::model("tokenizer.json: model.vocab is missing"))? {
        tokens.insert(token_id(id, size)?, (token.clone(), NORMAL));
    }
    for token in tokenizer_json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default().to_owned();
        let kind = if token["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        tokens.insert(token_id(&token["id"], size)?, (content, kind));
    }
    Ok((0..size).map(|id| tokens.remove(&id).unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED))).collect())
}

fn token_id(id: &Json, size: usize) -> Result<usize> {
    id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < size).ok_or_else(|| {
        Error::model(format!(
            "tokenizer.json: a token has id {}, expected below {size}",
            shown(&id.to_string())
        ))
    })
}
