//! A learner as a Hugging Face folder: what `imatch convert` and transformers read.

use std::fs;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::objective::Learner;
use crate::error::{Error, Result};
use crate::weights::files::write_whole;
use crate::weights::layout::hf_shape;
use crate::weights::names::{EMBEDDING, HEAD, to_hf};
use crate::weights::{ModelFacts, safetensors, stored};

/// Writes `config.json`, `preprocessor_config.json`, `tokenizer.json` and `imatch.json`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_facts(facts: &ModelFacts, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    write_whole(&folder.join("config.json"), &pretty(&facts.config.to_json())?)?;
    write_whole(&folder.join("preprocessor_config.json"), &pretty(&facts.image.to_json())?)?;
    write_whole(&folder.join("imatch.json"), &pretty(&facts.scoring)?)?;
    write_whole(&folder.join("tokenizer.json"), &facts.tokenizer)
}

/// Writes the whole model in f32, adapters merged into the weights they adapt; the heads that only
/// training needs stay behind.
///
/// # Errors
/// When a parameter is not finite or a file cannot be written.
pub fn export(learner: &Learner, facts: &ModelFacts, folder: &Path) -> Result<()> {
    learner.check_finite()?;
    write_facts(facts, folder)?;
    let table = Outside::of(EMBEDDING, &learner.embed_tokens)?;
    let head = learner.lm_head.as_ref().map(|head| Outside::of(HEAD, head)).transpose()?;
    let parameters = stored(&learner.model.valid().materialize(), true);
    let inside = parameters.iter().map(|parameter| {
        let shape = hf_shape(&parameter.name, &parameter.shape, &facts.config.vision);
        (to_hf(&parameter.name), shape, parameter.values.as_slice())
    });
    let outside = std::iter::once(&table)
        .chain(&head)
        .map(|matrix| (to_hf(matrix.name), matrix.shape.clone(), matrix.values.as_slice()));
    write_whole(&folder.join("model.safetensors"), &safetensors::write_f32(inside.chain(outside))?)
}

/// A matrix of the model that is no part of its module.
struct Outside {
    name: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Outside {
    fn of(name: &'static str, parameter: &Param<Tensor<2>>) -> Result<Self> {
        let value = parameter.val();
        let shape = value.dims().to_vec();
        let values = value.into_data().try_into_vec();
        Ok(Self { name, shape, values: values.map_err(|error| Error::internal(format!("{error:?}")))? })
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| Error::internal("a configuration is no JSON").with_source(error))
}
