//! Text: tokenizer, chat template, and the wording of the questions.

mod element;
mod questions;
mod template;
mod tokenizer;

pub use element::{Category, Element, PromptType};
pub use questions::{Overall, OverallKind, Wording, element, overall};
pub use template::{ChatTemplate, check_length};
pub use tokenizer::Tokenizer;

use crate::{Error, Result};

/// Most elements of one request; the longest prompt of EvalMuse-40K has a few dozen.
pub const MAX_ELEMENTS: usize = 256;
/// Longest prompt or element in bytes, well above what any model has positions for.
pub const MAX_TEXT_BYTES: usize = 256 << 10;

/// What is asked about a picture: a prompt and its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The text that the picture should show, verbatim.
    pub prompt: String,
    /// The parts of the prompt that get a score of their own, in the order given.
    pub elements: Vec<Element>,
    /// Where the prompt comes from, when known.
    pub prompt_type: Option<PromptType>,
    /// How questions are worded.
    pub wording: Wording,
}

impl Request {
    /// Checks a prompt and parses its elements (see [`Element::parse`]).
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) for a prompt or an element without words, more
    /// than [`MAX_ELEMENTS`] elements and texts over [`MAX_TEXT_BYTES`].
    pub fn new(
        prompt: impl Into<String>,
        elements: &[String],
        prompt_type: Option<PromptType>,
    ) -> Result<Self> {
        let prompt = prompt.into();
        if prompt.trim().is_empty() {
            return Err(Error::input("prompt is empty"));
        }
        if elements.len() > MAX_ELEMENTS {
            return Err(Error::input(format!(
                "{} elements given, at most {MAX_ELEMENTS} allowed",
                elements.len()
            )));
        }
        for text in std::iter::once(&prompt).chain(elements) {
            if text.len() > MAX_TEXT_BYTES {
                return Err(Error::input(format!(
                    "text {:?} has {} bytes, at most {MAX_TEXT_BYTES} allowed",
                    tokenizer::excerpt(text),
                    text.len()
                )));
            }
        }
        let elements = elements.iter().map(|text| Element::parse(text)).collect::<Result<_>>()?;
        Ok(Self { prompt, elements, prompt_type, wording: Wording::default() })
    }

    /// The text of the overall question.
    pub fn overall_text(&self, kind: Overall<'_>) -> String {
        self.wording.overall(&self.prompt, self.prompt_type, kind)
    }

    /// The texts of the elements' questions, in order.
    pub fn element_texts(&self) -> impl Iterator<Item = String> {
        self.elements.iter().map(|part| self.wording.element(&self.prompt, self.prompt_type, part))
    }
}
