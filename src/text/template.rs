//! The chat template of Qwen3-VL around one picture and one text.
//!
//! `<|im_start|>user\n<|vision_start|>` + `<|image_pad|>` x n + `<|vision_end|>` + text +
//! `<|im_end|>\n<|im_start|>assistant\n`: what `chat_template` in the checkpoints gives for one
//! user turn without a system turn, followed by the processor's expansion of the placeholder
//! (transformers 5.23.0, `models/qwen3_vl/processing_qwen3_vl.py`, `replace_image_token`).

use super::tokenizer::{Tokenizer, excerpt};
use crate::config::VisionTokens;
use crate::{Error, Result};

/// More merged tokens than the largest picture of any preprocessor has.
const MAX_IMAGE_TOKENS: usize = 1 << 20;

/// Wraps a text into the model's conversation; special tokens come in by id only.
pub struct ChatTemplate {
    tokenizer: Tokenizer,
    image: u32,
    head: Vec<u32>,
    vision_end: u32,
    tail: Vec<u32>,
}

impl ChatTemplate {
    /// Looks up every token of the template.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) where a special token is not among the
    /// tokenizer's added tokens or its id is not the one in `config.json`.
    pub fn new(tokenizer: Tokenizer, tokens: VisionTokens) -> Result<Self> {
        let id = |content: &str| {
            let missing = || Error::model(format!("tokenizer has no added token {content:?}"));
            tokenizer.added_id(content).ok_or_else(missing)
        };
        let agreed = |content: &str, key: &str, expected: u32| match id(content)? {
            id if id == expected => Ok(id),
            id => Err(Error::model(format!("token {content:?} has id {id}, but {key} is {expected}"))),
        };
        let (im_start, im_end) = (id("<|im_start|>")?, id("<|im_end|>")?);
        let vision_start = agreed("<|vision_start|>", "vision_start_token_id", tokens.start)?;
        let vision_end = agreed("<|vision_end|>", "vision_end_token_id", tokens.end)?;
        let image = agreed("<|image_pad|>", "image_token_id", tokens.image)?;
        let head = [&[im_start], tokenizer.encode("user\n")?.as_slice(), &[vision_start]].concat();
        let newline = tokenizer.encode("\n")?;
        let assistant = tokenizer.encode("assistant\n")?;
        let tail = [&[im_end], newline.as_slice(), &[im_start], assistant.as_slice()].concat();
        Ok(Self { tokenizer, image, head, vision_end, tail })
    }

    /// The complete input for one text: `n_image_tokens` placeholders (merged tokens of the
    /// picture), the text as one stretch, and the opening of the assistant's turn.
    ///
    /// # Errors
    /// Where the text cannot be encoded, see [`Tokenizer::encode`].
    pub fn sequence(&self, text: &str, n_image_tokens: usize) -> Result<Vec<u32>> {
        if n_image_tokens > MAX_IMAGE_TOKENS {
            return Err(Error::internal(format!(
                "a picture of {n_image_tokens} tokens, at most {MAX_IMAGE_TOKENS}"
            )));
        }
        let mut ids = self.head.clone();
        ids.resize(self.head.len() + n_image_tokens, self.image);
        ids.push(self.vision_end);
        ids.extend(self.tokenizer.encode(text)?);
        ids.extend(&self.tail);
        Ok(ids)
    }

    /// Where the text starts in [`ChatTemplate::sequence`].
    pub fn text_start(&self, n_image_tokens: usize) -> usize {
        self.head.len() + n_image_tokens + 1
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// Refuses a sequence of `n_tokens` that is longer than the model's positions
/// (`max_position_embeddings`), naming the prompt it belongs to.
///
/// # Errors
/// [`Kind::Input`](crate::error::Kind::Input) where it is longer.
pub fn check_length(prompt: &str, n_tokens: usize, max_positions: usize) -> Result<()> {
    if n_tokens <= max_positions {
        return Ok(());
    }
    let n_characters = prompt.chars().count();
    Err(Error::input(format!(
        "prompt {:?} ({n_characters} characters) makes a sequence of {n_tokens} tokens, but the model has \
         {max_positions} positions",
        excerpt(prompt)
    )))
}
