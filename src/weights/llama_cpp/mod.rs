//! The metadata of llama.cpp's GGUF files: a decoder (architecture `qwen3vl`, or `qwen2` and `qwen3` of
//! `InternVL`) and a vision tower (architecture `clip`, the `mmproj` file).
//!
//! [`write`] says in it what llama.cpp and tools like it want to find; [`read`] takes from it what a
//! Hugging Face folder has in files: configuration, preprocessing and tokenizer. A pair alone is read of
//! Qwen3-VL only.

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

/// Token types (`enum llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
