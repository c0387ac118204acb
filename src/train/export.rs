//! A learner as a Hugging Face folder: what `imatch convert` and transformers read.

use std::fs;
use std::path::Path;

use super::blueprint::Blueprint;
use super::objective::Learner;
use crate::error::{Error, Result};
use crate::weights::layout::hf_shape;
use crate::weights::names::{EMBEDDING, to_hf};
use crate::weights::{safetensors, stored};

/// Writes `config.json`, `preprocessor_config.json`, `tokenizer.json` and `imatch.json`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_blueprint(blueprint: &Blueprint, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    write(folder, "config.json", &pretty(&blueprint.config.to_json())?)?;
    write(folder, "preprocessor_config.json", &pretty(&blueprint.image.to_json())?)?;
    write(folder, "imatch.json", &pretty(&blueprint.scoring)?)?;
    write(folder, "tokenizer.json", &blueprint.tokenizer)
}

/// Writes the whole model; the heads that only training needs stay behind.
///
/// # Errors
/// When a parameter is not finite or a file cannot be written.
pub fn export(learner: &Learner, blueprint: &Blueprint, folder: &Path) -> Result<()> {
    learner.check_finite()?;
    write_blueprint(blueprint, folder)?;
    let table = learner.embed_tokens.val();
    let shape = table.dims().to_vec();
    let table: Vec<f32> =
        table.into_data().try_into_vec().map_err(|error| Error::internal(format!("{error:?}")))?;
    let parameters = stored(&learner.model, true);
    let tensors = parameters
        .iter()
        .map(|parameter| {
            let shape = hf_shape(&parameter.name, &parameter.shape, &blueprint.config.vision);
            (to_hf(&parameter.name), shape, parameter.values.as_slice())
        })
        .chain(std::iter::once((to_hf(EMBEDDING), shape, table.as_slice())));
    write(folder, "model.safetensors", &safetensors::write_f32(tensors)?)
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| Error::internal("a configuration is no JSON").with_source(error))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, partial) = (folder.join(name), folder.join(format!("{name}.part")));
    fs::write(&partial, bytes).map_err(|error| Error::io(&partial, error))?;
    fs::rename(&partial, &path).map_err(|error| Error::io(&path, error))
}
