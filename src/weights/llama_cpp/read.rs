//! A model's facts from the metadata of its two files.
//!
//! Numbers go through the same parsers and checks as those of a Hugging Face folder.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Map, Value as Json, json};

use super::{
    CONTROL, DECODER, NORMAL, QWEN2, QWEN2_PATTERN, SCORING, TOKENIZER_JSON, UNUSED, USER_DEFINED,
    VISION_EPSILON, vocabulary,
};
use crate::config::{ImageConfig, MAX_DEPTH, ModelConfig};
use crate::error::Context as _;
use crate::format::tensor::shown;
use crate::score::ScoringOptions;
use crate::weights::ModelFacts;
use crate::weights::gguf::Value;
use crate::weights::names::{EMBEDDING, HEAD, PATCH_EMBEDDING, POSITION_TABLE};
use crate::{Error, Result};

/// Fewest pixels where the file has no limit: those of the published Qwen3-VL checkpoints
/// (`size.shortest_edge` in their `preprocessor_config.json`).
const MIN_PIXELS: u64 = 65_536;

/// Most pixels where the file has no limit, 1024 x 1024: what text-to-image models draw. The published
/// checkpoints allow sixteen times as many, whose activations neither a tab nor most GPUs hold.
const MAX_PIXELS: u64 = 1 << 20;

/// Merged patches per side where the file does not say (`spatial_merge_size` of every Qwen3-VL).
const MERGE: u64 = 2;

/// Frames that one patch spans (`temporal_patch_size` of every Qwen3-VL).
const FRAMES: u64 = 2;

/// Most tokens that are no ordinary ones; Qwen's vocabularies have below 300.
const MAX_ADDED: usize = 1 << 13;

const ARCHITECTURE: &str = "general.architecture";

/// Architecture of the vision tower's file.
const TOWER: &str = "clip";

type Metadata = BTreeMap<String, Value>;

/// A file's name, for messages, and its metadata.
type File = (String, Metadata);

/// The metadata of one file, for messages that name its keys.
#[derive(Clone, Copy)]
struct Keys<'a> {
    file: &'a File,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        self.file.1.get(&format!("{}{key}", self.prefix))
    }

    /// Where a message says that a key is: `decoder.gguf: metadata key qwen3vl.block_count`.
    fn place(self, key: &str) -> String {
        format!("{}: metadata key {}{key}", self.file.0, self.prefix)
    }

    fn wrong(self, key: &str, expected: &str) -> Error {
        let got = self.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        Error::model(format!("{} is {got}, expected {expected}", self.place(key)))
    }

    fn unsupported(self, key: &str, got: impl Display, supported: impl Display) -> Error {
        Error::unsupported(format!("{} is {got}, only {supported} is supported", self.place(key)))
    }

    fn count(self, key: &str) -> Result<u64> {
        self.get(key).and_then(Value::as_u64).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn count_or(self, key: &str, otherwise: u64) -> Result<u64> {
        if self.get(key).is_none() { Ok(otherwise) } else { self.count(key) }
    }

    fn number(self, key: &str) -> Result<f64> {
        self.get(key).and_then(Value::as_f64).ok_or_else(|| self.wrong(key, "a number"))
    }

    /// Three numbers, as the shortest decimals that give the stored singles.
    fn channels(self, key: &str) -> Result<Vec<f64>> {
        let values = self.get(key).and_then(Value::as_numbers).filter(|values| values.len() == 3);
        let values = values.ok_or_else(|| self.wrong(key, "three numbers"))?;
        Ok(values.iter().map(|value| decimal(*value)).collect())
    }

    fn texts(self, key: &str) -> Result<&'a [String]> {
        self.get(key).and_then(Value::as_texts).ok_or_else(|| self.wrong(key, "a list of texts"))
    }

    fn only(self, key: &str, expected: &str) -> Result<()> {
        match self.get(key) {
            Some(Value::String(text)) if text == expected => Ok(()),
            Some(other @ Value::String(_)) => Err(self.unsupported(key, other, format!("{expected:?}"))),
            _ => Err(self.wrong(key, &format!("{expected:?}"))),
        }
    }
}

/// The number that a writer meant by a single: 0.1 was not 0.10000000149.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// What the decoder's file calls the model, and the licence that it names.
pub fn provenance(files: &[File]) -> (Option<String>, Option<String>) {
    let decoder = files.iter().find(|file| architecture(file) == DECODER);
    let text = |key: &str| decoder.and_then(|(_, metadata)| metadata.get(key)?.as_str()).map(shown);
    (text("general.name"), text("general.license"))
}

/// Everything in the decoder's metadata that a checkpoint is called by.
fn checkpoint_name((file, metadata): &File) -> String {
    let keys = ["general.name", "general.basename", "general.finetune"];
    let said = keys.iter().filter_map(|key| metadata.get(*key)?.as_str());
    said.chain([file.as_str()]).map(shown).collect::<Vec<_>>().join(" ")
}

fn architecture((_, metadata): &File) -> &str {
    metadata.get(ARCHITECTURE).and_then(Value::as_str).unwrap_or_default()
}

/// Everything but the weights, from names and metadata of the files (in any order) and the shapes of
/// the tensors in them, by canonical name.
///
/// Scoring options are those of an untuned checkpoint, except in files that were converted here.
///
/// # Errors
/// [`Kind::Model`](crate::error::Kind::Model) names the key that is missing or malformed;
/// [`Kind::Unsupported`](crate::error::Kind::Unsupported) the architecture, projector or way of
/// splitting words that is not known here.
pub fn facts(files: &[File], shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<ModelFacts> {
    let [text, vision] = [DECODER, TOWER].map(|name| files.iter().find(|file| architecture(file) == name));
    let missing = |what: &str, name: &str| {
        let found: Vec<String> = files.iter().map(|file| shown(architecture(file))).collect();
        Error::unsupported(format!(
            "no GGUF file of architecture {name}, which is the {what}; there are {}",
            found.join(" and ")
        ))
    };
    let text = text.ok_or_else(|| missing("decoder", DECODER))?;
    let vision = vision.ok_or_else(|| missing("vision tower (the mmproj file)", TOWER))?;
    let config = config(text, vision, shape)?.to_string();
    let config =
        ModelConfig::from_json(config.as_bytes()).context(|| format!("{} and {}", text.0, vision.0))?;
    let image = preprocessor(vision)?.to_string();
    Ok(ModelFacts {
        image: ImageConfig::from_json(image.as_bytes(), &config).context(|| &vision.0)?,
        config,
        tokenizer: tokenizer(text)?,
        scoring: if let Some(options) = text.1.get(SCORING).and_then(Value::as_str) {
            let place = || format!("{}: metadata key {SCORING}", text.0);
            ScoringOptions::from_json(options.as_bytes()).context(place)?
        } else {
            let template = text.1.get("tokenizer.chat_template").and_then(Value::as_str);
            ScoringOptions::of_checkpoint(&checkpoint_name(text), template)?
        },
    })
}

/// `config.json`.
fn config(text: &File, vision: &File, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<Json> {
    let matrix = |name: &str| match shape(name).as_deref() {
        Some(&[rows, columns]) => Ok([rows as u64, columns as u64]),
        _ => Err(Error::model(format!("tensor {name} is missing or no matrix"))),
    };
    let tokens = tokens(text)?;
    let [rows, _] = matrix(EMBEDDING)?;
    if rows != tokens.len() as u64 {
        return Err(Error::model(format!(
            "{}: tokenizer.ggml.tokens has {} tokens, but the embedding table {rows} rows",
            text.0,
            tokens.len()
        )));
    }
    let id = |content: &str| {
        tokens.iter().position(|(token, _)| *token == content).ok_or_else(|| {
            Error::model(format!("{}: tokenizer.ggml.tokens has no {content}, which pictures need", text.0))
        })
    };
    Keys { file: vision, prefix: "clip." }.only("projector_type", "qwen3vl_merger")?;
    same_model(text, vision)?;
    let (keys, tower) =
        (Keys { file: text, prefix: "qwen3vl." }, Keys { file: vision, prefix: "clip.vision." });
    let taps = taps(keys, tower)?;
    Ok(json!({
        "model_type": "qwen3_vl",
        "image_token_id": id("<|image_pad|>")?,
        "video_token_id": id("<|video_pad|>")?,
        "vision_start_token_id": id("<|vision_start|>")?,
        "vision_end_token_id": id("<|vision_end|>")?,
        // The head is a tensor of its own only where it is not the embedding table.
        "tie_word_embeddings": shape(HEAD).is_none(),
        "text_config": decoder(keys, tokens.len())?,
        "vision_config": vision_config(tower, &taps, matrix(PATCH_EMBEDDING)?[1], matrix(POSITION_TABLE)?[0])?,
    }))
}

/// The tapped vision blocks, where decoder and tower agree on what is handed over.
fn taps(decoder: Keys<'_>, tower: Keys<'_>) -> Result<Vec<usize>> {
    let flags = tower.get("is_deepstack_layers").and_then(Value::as_bools);
    let flags = flags.filter(|flags| flags.len() <= MAX_DEPTH);
    let flags = flags.ok_or_else(|| tower.wrong("is_deepstack_layers", "a flag for each block"))?;
    let taps: Vec<usize> = (0..flags.len()).filter(|block| flags[*block]).collect();
    let depths = [flags.len() as u64, tower.count("block_count")?];
    same(["clip.vision.is_deepstack_layers", "clip.vision.block_count"], depths)?;
    // Towers of other models fit by their widths and differ in what they hand to the decoder.
    let levels = decoder.count_or("n_deepstack_layers", taps.len() as u64)?;
    same(["qwen3vl.n_deepstack_layers", "clip.vision.is_deepstack_layers"], [levels, taps.len() as u64])?;
    let widths = [decoder.count("embedding_length")?, tower.count("projection_dim")?];
    same(["qwen3vl.embedding_length", "clip.vision.projection_dim"], widths)?;
    Ok(taps)
}

/// `vision_config` of `config.json`; `row` is the width of the patch embedding's rows, `positions` the
/// rows of the position table.
fn vision_config(tower: Keys<'_>, taps: &[usize], row: u64, positions: u64) -> Result<Json> {
    let epsilon = tower.number("attention.layer_norm_epsilon")? as f32;
    if epsilon.to_bits() != VISION_EPSILON.to_bits() {
        return Err(tower.unsupported("attention.layer_norm_epsilon", epsilon, VISION_EPSILON));
    }
    let patch = tower.count("patch_size")?;
    let frames = row / patch.saturating_mul(patch).saturating_mul(3).max(1);
    if patch > 0 && frames != FRAMES {
        return Err(Error::model(format!(
            "{}: v.patch_embd.weight has {frames} frames of clip.vision.patch_size {patch}, expected {FRAMES}",
            tower.file.0
        )));
    }
    Ok(json!({
        "depth": tower.count("block_count")?,
        "hidden_size": tower.count("embedding_length")?,
        "intermediate_size": tower.count("feed_forward_length")?,
        "num_heads": tower.count("attention.head_count")?,
        "hidden_act": "gelu_pytorch_tanh",
        "patch_size": patch,
        "temporal_patch_size": FRAMES,
        "spatial_merge_size": tower.count_or("spatial_merge_size", MERGE)?,
        "num_position_embeddings": positions,
        "deepstack_visual_indexes": taps,
        "out_hidden_size": tower.count("projection_dim")?,
    }))
}

/// Refuses a decoder and a tower that say they are of different models: widths alone would let some pass.
fn same_model(text: &File, vision: &File) -> Result<()> {
    let said = |(_, metadata): &File, key: &str| {
        let text = metadata.get(key)?.as_str()?.to_ascii_lowercase();
        Some(text.replace(['-', '_', '.'], " "))
    };
    for key in ["general.basename", "general.size_label", "general.finetune"] {
        // A size is counted from the file itself where the model's name has none.
        let named = said(text, "general.basename").is_some();
        if let (true, Some(decoder), Some(tower)) = (named, said(text, key), said(vision, key))
            && decoder != tower
        {
            return Err(Error::model(format!(
                "{key} of {} is \"{}\", but of {} \"{}\": decoder and mmproj are of different models",
                text.0,
                shown(&decoder),
                vision.0,
                shown(&tower)
            )));
        }
    }
    Ok(())
}

/// Refuses two files that do not say the same.
fn same(keys: [&str; 2], values: [u64; 2]) -> Result<()> {
    if values[0] == values[1] {
        return Ok(());
    }
    Err(Error::model(format!(
        "{} gives {}, but {} {}: decoder and mmproj are of different models",
        keys[0], values[0], keys[1], values[1]
    )))
}

/// `text_config` of `config.json`.
fn decoder(keys: Keys<'_>, vocabulary: usize) -> Result<Json> {
    let sections = keys.get("rope.dimension_sections").and_then(Value::as_counts);
    let sections = sections.filter(|sections| sections.len() >= 3);
    let sections = sections.ok_or_else(|| keys.wrong("rope.dimension_sections", "three whole numbers"))?;
    let head = keys.count("attention.key_length")?;
    if keys.count_or("attention.value_length", head)? != head {
        return Err(
            keys.wrong("attention.value_length", &format!("the same as attention.key_length, {head}"))
        );
    }
    if keys.count_or("rope.dimension_count", head)? != head {
        return Err(keys.wrong("rope.dimension_count", &format!("the same as attention.key_length, {head}")));
    }
    if keys.get("rope.scaling.type").is_some() {
        keys.only("rope.scaling.type", "none")?;
    }
    // Embedding models have the same tensors and read them otherwise.
    if keys.count_or("pooling_type", 0)? != 0 {
        return Err(keys.wrong("pooling_type", "0, a model that predicts the next token"));
    }
    if keys.get("attention.causal").is_some_and(|causal| *causal != Value::Bool(true)) {
        return Err(keys.wrong("attention.causal", "true, a model that predicts the next token"));
    }
    Ok(json!({
        "vocab_size": vocabulary,
        "hidden_size": keys.count("embedding_length")?,
        "intermediate_size": keys.count("feed_forward_length")?,
        "num_hidden_layers": keys.count("block_count")?,
        "num_attention_heads": keys.count("attention.head_count")?,
        "num_key_value_heads": keys.count("attention.head_count_kv")?,
        "head_dim": head,
        "hidden_act": "silu",
        "rms_norm_eps": decimal(keys.number("attention.layer_norm_rms_epsilon")? as f32),
        "rope_theta": keys.number("rope.freq_base")?,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": true, "mrope_section": sections[..3]},
        "max_position_embeddings": keys.count("context_length")?,
    }))
}

/// `preprocessor_config.json`.
fn preprocessor(vision: &File) -> Result<Json> {
    let keys = Keys { file: vision, prefix: "clip.vision." };
    Ok(json!({
        "min_pixels": keys.count_or("image_min_pixels", MIN_PIXELS)?,
        "max_pixels": keys.count_or("image_max_pixels", MAX_PIXELS)?,
        "image_mean": keys.channels("image_mean")?,
        "image_std": keys.channels("image_std")?,
    }))
}

/// Tokens in the order of their ids, each with its type.
fn tokens(text: &File) -> Result<Vec<(&str, i32)>> {
    let keys = Keys { file: text, prefix: "tokenizer.ggml." };
    let tokens = keys.texts("tokens")?;
    let types = keys.get("token_type").and_then(Value::as_counts);
    let types = types.filter(|types| types.len() == tokens.len());
    let types = types.ok_or_else(|| keys.wrong("token_type", "a type for each token"))?;
    Ok(tokens.iter().map(String::as_str).zip(types.iter().map(|kind| *kind as i32)).collect())
}

/// `tokenizer.json`: the one in the file, or one made of the vocabulary.
fn tokenizer(text: &File) -> Result<Vec<u8>> {
    if let Some(whole) = text.1.get(TOKENIZER_JSON).and_then(Value::as_str) {
        same_ids(whole, &tokens(text)?).context(|| &text.0)?;
        return Ok(whole.as_bytes().to_vec());
    }
    let keys = Keys { file: text, prefix: "tokenizer.ggml." };
    keys.only("model", "gpt2")?;
    keys.only("pre", QWEN2)?;
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens(text)?.into_iter().enumerate() {
        match kind {
            NORMAL if vocab.insert(token.to_owned(), id.into()).is_some() => {
                let token = shown(token);
                return Err(Error::model(format!("{}: tokenizer.ggml.tokens has \"{token}\" twice", text.0)));
            }
            CONTROL | USER_DEFINED if added.len() == MAX_ADDED => {
                return Err(Error::model(format!(
                    "{}: tokenizer.ggml.token_type names more than {MAX_ADDED} special tokens",
                    text.0
                )));
            }
            CONTROL | USER_DEFINED => {
                added.push(json!({"id": id, "content": token, "special": kind == CONTROL}));
            }
            _ => {}
        }
    }
    let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": false});
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": keys.texts("merges")?},
    });
    Ok(json.to_string().into_bytes())
}

/// Refuses a whole tokenizer whose ids are not those of the vocabulary beside it, which the rows of the
/// embedding table follow.
fn same_ids(tokenizer_json: &str, tokens: &[(&str, i32)]) -> Result<()> {
    let json = serde_json::from_str(tokenizer_json).map_err(|error| {
        Error::model("metadata key tokenizer.huggingface.json is malformed").with_source(error)
    })?;
    for (id, (whole, (token, kind))) in vocabulary(&json, tokens.len())?.iter().zip(tokens).enumerate() {
        let is_padding = [whole.1, *kind] == [UNUSED; 2];
        if whole.0 != *token && !is_padding {
            return Err(Error::model(format!(
                "token {id} is \"{}\" in tokenizer.huggingface.json, but \"{}\" in tokenizer.ggml.tokens",
                shown(&whole.0),
                shown(token)
            )));
        }
    }
    Ok(())
}
