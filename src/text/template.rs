//! The chat template around one picture and one text.
//!
//! `<|im_start|>user\n` + picture + text + `<|im_end|>\n<|im_start|>assistant\n`: what `chat_template` in
//! the checkpoints gives for one user turn without a system turn, followed by the processor's
//! expansion of the placeholder. The picture is its placeholder, once for each token, between two
//! tokens of the family.

use super::tokenizer::{Tokenizer, excerpt};
use crate::config::{Family, VisionTokens};
use crate::{Error, Result};

/// More merged tokens than the largest picture of any preprocessor has.
const MAX_IMAGE_TOKENS: usize = 1 << 20;

/// How a family writes a picture.
struct PictureWords {
    open: &'static str,
    placeholder: &'static str,
    close: &'static str,
    /// Ordinary text between picture and text.
    between: &'static str,
}

/// The table of families.
fn picture_words(family: Family) -> PictureWords {
    match family {
        // `replace_image_token` in transformers 5.23.0, models/qwen3_vl/processing_qwen3_vl.py.
        Family::Qwen3Vl => PictureWords {
            open: "<|vision_start|>",
            placeholder: "<|image_pad|>",
            close: "<|vision_end|>",
            between: "",
        },
        // The same in models/internvl/processing_internvl.py; the line feed is the published template's
        // (`chat_template` in transformers' convert_internvl_weights_to_hf.py).
        Family::InternVl => {
            PictureWords { open: "<img>", placeholder: "<IMG_CONTEXT>", close: "</img>", between: "\n" }
        }
    }
}

/// Wraps a text into the model's conversation; special tokens come in by id only.
pub struct ChatTemplate {
    tokenizer: Tokenizer,
    image: u32,
    head: Vec<u32>,
    close: u32,
    between: &'static str,
    tail: Vec<u32>,
}

impl ChatTemplate {
    /// Looks up every token of the template.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) where a special token is not among the
    /// tokenizer's added tokens or its id is not the one in `config.json`.
    pub fn new(tokenizer: Tokenizer, family: Family, tokens: VisionTokens) -> Result<Self> {
        let id = |content: &str| {
            let missing = || Error::model(format!("tokenizer has no added token {content:?}"));
            tokenizer.added_id(content).ok_or_else(missing)
        };
        let agreed = |content: &str, key: &str, expected: Option<u32>| match (id(content)?, expected) {
            (id, Some(expected)) if id != expected => {
                Err(Error::model(format!("token {content:?} has id {id}, but {key} is {expected}")))
            }
            (id, _) => Ok(id),
        };
        let words = picture_words(family);
        let (im_start, im_end) = (id("<|im_start|>")?, id("<|im_end|>")?);
        let open = agreed(words.open, "vision_start_token_id", tokens.start)?;
        let close = agreed(words.close, "vision_end_token_id", tokens.end)?;
        let image = agreed(words.placeholder, "image_token_id", Some(tokens.image))?;
        let head = [&[im_start], tokenizer.encode("user\n")?.as_slice(), &[open]].concat();
        let newline = tokenizer.encode("\n")?;
        let assistant = tokenizer.encode("assistant\n")?;
        let tail = [&[im_end], newline.as_slice(), &[im_start], assistant.as_slice()].concat();
        Ok(Self { tokenizer, image, head, close, between: words.between, tail })
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
        ids.push(self.close);
        // One stretch with what stands before it, as the tokenizer of transformers sees it.
        ids.extend(self.tokenizer.encode(&format!("{}{text}", self.between))?);
        ids.extend(&self.tail);
        Ok(ids)
    }

    /// Where the text, and what stands between it and the picture, starts in [`ChatTemplate::sequence`].
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
