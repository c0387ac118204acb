//! `config.json` to [`ModelConfig`] and back.

use serde_json::Value;

use super::json::{Object, parse};
use super::{Family, ModelConfig, VisionTokens};
use crate::{Error, Result};

/// Most layers of either tower; the deepest published model has below 100.
pub(crate) const MAX_DEPTH: usize = 512;

/// Widest residual stream or feed-forward part.
pub(super) const MAX_WIDTH: usize = 1 << 18;

/// Most rows of the embedding table; ids are far below the 32 bits they are stored in.
pub(super) const MAX_VOCAB: usize = 1 << 24;

/// Models with code of their own share the `model_type` of the one they grew out of.
fn check_class(root: &Object<'_>, family: Family) -> Result<()> {
    let known = family.files().classes;
    let Some(classes) = root.get("architectures") else { return Ok(()) };
    match classes.as_array().map(Vec::as_slice) {
        Some([Value::String(class)]) if known.contains(&class.as_str()) => Ok(()),
        _ => Err(root.unsupported("architectures", known, classes)),
    }
}

impl ModelConfig {
    /// Parses `config.json` of a checkpoint, whichever family's it is (`model_type`).
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
        Self::with_added_tokens(config_json, |_| Ok(None))
    }

    /// The same of a repository whose `config.json` leaves the picture's token to the tokenizer:
    /// `added_id` gives the id of an added token.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], and what `added_id` gives.
    pub fn with_added_tokens(
        config_json: &[u8],
        added_id: impl Fn(&str) -> Result<Option<u32>>,
    ) -> Result<Self> {
        let value = parse(config_json)?;
        let root = Object::root(&value)?;
        let family = Family::of(&root)?;
        if root.get("quantization_config").is_some() {
            return Err(Error::unsupported(
                "quantization_config is there: packed safetensors are not supported, only f32, f16 and bf16",
            ));
        }
        check_class(&root, family)?;
        let config = (family.files().read)(&root, &added_id)?;
        config.agree()?;
        Ok(config)
    }

    /// The configuration as `config.json` holds it, in the form that every version
    /// of transformers with this family reads.
    pub fn to_json(&self) -> Value {
        (self.family.files().write)(self)
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
            [("image_token_id", Some(image)), ("vision_start_token_id", start), ("vision_end_token_id", end)]
        {
            if let Some(id) = id.filter(|id| *id as usize >= text.vocab_size) {
                let size = text.vocab_size;
                return Err(Error::model(format!(
                    "{key} is {id}, past text_config.vocab_size, which is {size}"
                )));
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && (image == start || image == end || start == end)
        {
            return Err(Error::model(format!(
                "image_token_id {image}, vision_start_token_id {start} and vision_end_token_id {end} are not distinct"
            )));
        }
        Ok(())
    }
}
