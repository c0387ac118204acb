//! What the files of a Hugging Face folder say only together.

use super::checkpoint::Checkpoint;
use super::names::HEAD;
use super::source::ByteSource;
use crate::config::{ImageConfig, ModelConfig};
use crate::error::{Context, Result};
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

/// A head that is there is used, whatever the configuration says of it, as in transformers 5
/// (`PreTrainedModel.tie_weights`): saved files carry defaults that are not the model's.
pub fn settle_head<S: ByteSource>(config: &mut ModelConfig, checkpoint: &Checkpoint<S>) {
    config.text.tie_word_embeddings &= checkpoint.info(HEAD).is_none();
}
