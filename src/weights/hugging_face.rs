//! What the files of a Hugging Face folder say only together.

use std::collections::BTreeSet;

use super::checkpoint::Checkpoint;
use super::layout::expected;
use super::names::{HEAD, is_canonical};
use super::source::ByteSource;
use crate::config::{ImageConfig, ModelConfig};
use crate::error::{Context, Error, Result};
use crate::format::tensor::shown;
use crate::text::Tokenizer;

/// Both configurations, from the bytes of `config.json`, `preprocessor_config.json` and
/// `tokenizer.json`; the tokenizer is read only where `config.json` leaves a token to it.
///
/// # Errors
/// What [`ModelConfig::from_json`], [`ImageConfig::from_json`] and [`Tokenizer::from_json`] say, with
/// the file's name.
pub fn configurations(
    config_json: &[u8],
    preprocessor_json: &[u8],
    tokenizer_json: &[u8],
) -> Result<(ModelConfig, ImageConfig)> {
    let config = ModelConfig::with_added_tokens(config_json, |content| {
        let tokenizer = Tokenizer::from_json(tokenizer_json).context(|| "tokenizer.json")?;
        Ok(tokenizer.added_id(content))
    });
    let config = config.context(|| "config.json")?;
    let image = ImageConfig::from_json(preprocessor_json, &config).context(|| "preprocessor_config.json")?;
    Ok((config, image))
}

/// Compares a configuration with the names of the tensors that it is about.
///
/// A head that is there is used, whatever the configuration says of it, as in transformers 5
/// (`PreTrainedModel.tie_weights`): saved files carry defaults that are not the model's.
///
/// # Errors
/// [`Kind::Model`](crate::error::Kind::Model) names a tensor that belongs into the model and that the
/// configuration has no place for, a layer past the last or a bias for instance: without it, the
/// model would be another. Tensors of no known part are other models' business.
pub fn settle<S: ByteSource>(config: &mut ModelConfig, checkpoint: &Checkpoint<S>) -> Result<()> {
    config.text.tie_word_embeddings &= checkpoint.info(HEAD).is_none();
    let expected: BTreeSet<String> = expected(config).into_iter().map(|(name, _)| name).collect();
    let is_extra = |name: &str| is_canonical(name) && !expected.contains(name);
    match checkpoint.tensors().find(|tensor| is_extra(&tensor.name)) {
        Some(tensor) => Err(Error::model(format!(
            "tensor {} is there, but config.json has no place for it",
            shown(&tensor.name)
        ))),
        None => Ok(()),
    }
}
