//! The families of models that are read, one row each.
//!
//! A family is a row here and in three more tables, which the compiler asks for one after the other:
//! its files ([`Family::files`], with a parser of its own beside this file), the words around a picture
//! (`text::template`), its tensors (`weights::layout` and, for their names in GGUF and safetensors,
//! `weights::names`) and its vision tower (`model`). Everything else is shared.

use serde_json::Value;

use super::json::Object;
use super::{Geometry, ModelConfig, internvl, qwen3_vl};
use crate::Result;

/// A family of vision-language models: which parts it is made of, and in which files and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Qwen3-VL.
    Qwen3Vl,
    /// `InternVL3` and `InternVL3.5` with a Qwen2 or Qwen3 decoder.
    InternVl,
}

/// The id of an added token of the tokenizer.
pub(super) type AddedId<'a> = &'a dyn Fn(&str) -> Result<Option<u32>>;

/// How a family's configuration files are read and written.
pub(super) struct Files {
    /// `model_type` of `config.json`, first the one that is written.
    pub(super) model_types: &'static [&'static str],
    /// `architectures` of `config.json`: code of these classes is what is computed here.
    pub(super) classes: &'static [&'static str],
    /// `image_processor_type` of `preprocessor_config.json`: processors that all do the same arithmetic.
    pub(super) processors: &'static [&'static str],
    /// `config.json`.
    pub(super) read: fn(&Object<'_>, AddedId<'_>) -> Result<ModelConfig>,
    /// `config.json` in the form that every version of transformers with this family reads.
    pub(super) write: fn(&ModelConfig) -> Value,
    /// The part of `preprocessor_config.json` that says which pixels patches are cut from.
    pub(super) geometry: fn(&Object<'_>, &ModelConfig) -> Result<Geometry>,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 2] = [Self::Qwen3Vl, Self::InternVl];

    /// The table of families: what the configuration files of each are.
    pub(super) const fn files(self) -> &'static Files {
        match self {
            Self::Qwen3Vl => &qwen3_vl::FILES,
            Self::InternVl => &internvl::FILES,
        }
    }

    /// The family that `config.json` names.
    pub(super) fn of(root: &Object<'_>) -> Result<Self> {
        let model_type = root.text("model_type")?.ok_or_else(|| root.missing("model_type"))?;
        let named = Self::ALL.into_iter().find(|family| family.files().model_types.contains(&model_type));
        named.ok_or_else(|| {
            let known: Vec<&str> =
                Self::ALL.iter().flat_map(|family| family.files().model_types).copied().collect();
            root.unsupported("model_type", &known, &Value::from(model_type))
        })
    }

    /// `model_type` that it is written with.
    pub fn model_type(self) -> &'static str {
        self.files().model_types[0]
    }
}
