//! What the model is asked: the only place with prompt wording.
//!
//! The published wording of iMatch is not known; this is ours. A text is a part that all
//! questions of a request share, to the byte, and then one question. The shared part ends in a
//! line break and a question starts with a letter: byte-level BPE never merges across that, so
//! the shared part also has the same ids everywhere.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::element::{Category, Element, PromptType};
use super::tokenizer::excerpt;
use crate::{Error, Result};

/// How the overall score is read off (`overall.kind` of the scoring options).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverallKind {
    /// From the probabilities of ordered level tokens; needs a model tuned to them.
    #[default]
    Levels,
    /// From the probability of yes.
    YesNo,
}

impl FromStr for OverallKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "levels" => Ok(Self::Levels),
            "yes_no" => Ok(Self::YesNo),
            _ => Err(Error::input(format!("overall kind {:?} is neither levels nor yes_no", excerpt(name)))),
        }
    }
}

/// The overall question to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall<'a> {
    /// For a level, between the tokens of the lowest and of the highest.
    Levels {
        /// The lowest level's token.
        lowest: &'a str,
        /// The highest level's token.
        highest: &'a str,
    },
    /// For yes or no.
    YesNo,
}

/// One of several ways to say the same; the first is what scoring asks.
///
/// Training on all of them (paraphrased instructions) keeps a model from hanging on the letter of
/// one. The paper does not publish its wordings; these are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wording(usize);

impl Wording {
    /// Every wording, the usual one first.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// The whole text of the overall question.
    pub fn overall(self, prompt: &str, prompt_type: Option<PromptType>, kind: Overall<'_>) -> String {
        let shared = self.shared(prompt, prompt_type);
        let question = match kind {
            Overall::Levels { lowest, highest } => match self.0 {
                0 => format!(
                    "Rate from {lowest} (worst) to {highest} (best) how well this image matches the prompt. \
                     Answer with the rating alone."
                ),
                1 => format!(
                    "How well does this image match the prompt, from {lowest} (worst) to {highest} (best)? \
                     Answer with the rating alone."
                ),
                2 => format!(
                    "On a scale from {lowest} (worst) to {highest} (best), grade how well the prompt is \
                     shown. Reply with the grade only."
                ),
                _ => format!(
                    "Judge the match of image and prompt, {lowest} being worst and {highest} best. \
                     Give the rating alone."
                ),
            },
            Overall::YesNo => match self.0 {
                0 => format!("Does this image show \"{prompt}\"? Answer Yes or No."),
                1 => format!("Is \"{prompt}\" what this image shows? Answer Yes or No."),
                2 => format!("Can \"{prompt}\" be seen in this image? Answer Yes or No."),
                _ => format!("Does the image match \"{prompt}\"? Answer Yes or No."),
            },
        };
        format!("{shared}{question}")
    }

    /// The whole text of an element's question; beside the words it adds at most 12 tokens.
    ///
    /// The category is named in the question, the idea of element augmentation in iMatch (abstract
    /// of arXiv:2504.12018); counts and relations are asked for by being right, since they are not
    /// things.
    pub fn element(self, prompt: &str, prompt_type: Option<PromptType>, element: &Element) -> String {
        let words = &element.text;
        let named = match element.category {
            Category::Other => String::new(),
            Category::Location => "the place ".to_owned(),
            Category::Spatial => "position".to_owned(),
            Category::Counting => "count".to_owned(),
            category => format!("the {category} "),
        };
        let question = match (element.category, self.0) {
            (Category::Counting | Category::Spatial, 0) => format!("Is the {named} \"{words}\" right?"),
            (Category::Counting | Category::Spatial, 1) => format!("Does the {named} \"{words}\" hold?"),
            (Category::Counting | Category::Spatial, 2) => format!("Is \"{words}\" the right {named}?"),
            (Category::Counting | Category::Spatial, _) => format!("Is the {named} correct: \"{words}\"?"),
            (_, 0) => format!("Is {named}\"{words}\" shown?"),
            (_, 1) => format!("Does the image show {named}\"{words}\"?"),
            (_, 2) => format!("Can {named}\"{words}\" be seen?"),
            (_, _) => format!("Is there {named}\"{words}\" here?"),
        };
        format!("{}{question} Yes or No?", self.shared(prompt, prompt_type))
    }

    /// What all questions about one prompt start with.
    fn shared(self, prompt: &str, prompt_type: Option<PromptType>) -> String {
        let kind = prompt_type.map(|kind| format!("{} ", kind.name())).unwrap_or_default();
        match self.0 {
            0 => format!("Here is the {kind}prompt that this image was made for: \"{prompt}\"\n"),
            1 => format!("This image was generated from the {kind}prompt \"{prompt}\"\n"),
            2 => format!("The image should show what this {kind}prompt asks for: \"{prompt}\"\n"),
            _ => format!("Someone drew this image after the {kind}prompt: \"{prompt}\"\n"),
        }
    }
}

/// The whole text of the overall question in the usual wording.
pub fn overall(prompt: &str, prompt_type: Option<PromptType>, kind: Overall<'_>) -> String {
    Wording::default().overall(prompt, prompt_type, kind)
}

/// The whole text of an element's question in the usual wording, see [`Wording::element`].
pub fn element(prompt: &str, prompt_type: Option<PromptType>, element: &Element) -> String {
    Wording::default().element(prompt, prompt_type, element)
}
