//! What the model is asked: the only place with prompt wording.
//!
//! The published wording of iMatch is not known; this is ours. A text is a part that all
//! questions of a request share, to the byte, and then one question. The shared part ends in a
//! line break and a question starts with a letter: byte-level BPE never merges across that, so
//! the shared part also has the same ids everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::tokenizer::excerpt;
use crate::{Error, Result};

/// Where a prompt comes from (`type` in the records of EvalMuse-40K).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptType {
    /// Written by a person for a generator.
    Real,
    /// Composed to test a generator.
    Synthetic,
}

impl PromptType {
    /// `real` or `synthetic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Synthetic => "synthetic",
        }
    }
}

impl FromStr for PromptType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "real" => Ok(Self::Real),
            "synthetic" => Ok(Self::Synthetic),
            _ => Err(Error::input(format!("prompt type {:?} is neither real nor synthetic", excerpt(name)))),
        }
    }
}

/// What an element is about: the 13 labels of EvalMuse-40K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the labels")]
pub enum Category {
    Object,
    Human,
    Animal,
    Food,
    Location,
    Activity,
    Attribute,
    Color,
    Material,
    Shape,
    Counting,
    Spatial,
    Other,
}

impl Category {
    /// Every category, in the order of the data set's card.
    pub const ALL: [Self; 13] = [
        Self::Object,
        Self::Human,
        Self::Animal,
        Self::Food,
        Self::Location,
        Self::Activity,
        Self::Attribute,
        Self::Color,
        Self::Material,
        Self::Shape,
        Self::Counting,
        Self::Spatial,
        Self::Other,
    ];

    /// The canonical label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Human => "human",
            Self::Animal => "animal",
            Self::Food => "food",
            Self::Location => "location",
            Self::Activity => "activity",
            Self::Attribute => "attribute",
            Self::Color => "color",
            Self::Material => "material",
            Self::Shape => "shape",
            Self::Counting => "counting",
            Self::Spatial => "spatial",
            Self::Other => "other",
        }
    }

    /// The category of a label as annotators wrote it: case and outer space do not count, and the
    /// label ends at the first `-` or `/` (`Object-other`, `animal/human`); anything unknown is
    /// [`Category::Other`].
    pub fn parse(label: &str) -> Self {
        let label = label.split(['-', '/']).next().unwrap_or_default().trim().to_lowercase();
        Self::ALL.into_iter().find(|category| category.name() == label).unwrap_or(Self::Other)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of a prompt that gets a score of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// The words, verbatim.
    pub text: String,
    /// What they are about.
    pub category: Category,
}

impl Element {
    /// Splits `red circle (color)` at the last opening parenthesis when the text ends in its
    /// closing one. One space before the parenthesis goes; the words keep every other character.
    /// Without such an ending the whole text is the words, of [`Category::Other`].
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) where no words are left.
    pub fn parse(text: &str) -> Result<Self> {
        let labelled = text.trim_end().strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
        let (words, category) = match labelled {
            Some((words, label)) if !label.contains(')') => {
                (words.strip_suffix(' ').unwrap_or(words), Category::parse(label))
            }
            _ => (text, Category::Other),
        };
        if words.trim().is_empty() {
            return Err(Error::input(format!("element {:?} has no words", excerpt(text))));
        }
        Ok(Self { text: words.to_owned(), category })
    }
}

impl fmt::Display for Element {
    /// `words (category)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.category)
    }
}

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

/// The whole text of the overall question.
pub fn overall(prompt: &str, prompt_type: Option<PromptType>, kind: Overall<'_>) -> String {
    let shared = shared(prompt, prompt_type);
    match kind {
        Overall::Levels { lowest, highest } => format!(
            "{shared}Rate from {lowest} (worst) to {highest} (best) how well this image matches the prompt. \
             Answer with the rating alone."
        ),
        Overall::YesNo => format!("{shared}Does this image show \"{prompt}\"? Answer Yes or No."),
    }
}

/// The whole text of an element's question; beside the words it adds at most 12 tokens.
///
/// The category is named in the question, the idea of element augmentation in iMatch (abstract of
/// arXiv:2504.12018); counts and relations are asked for by being right, since they are not things.
pub fn element(prompt: &str, prompt_type: Option<PromptType>, element: &Element) -> String {
    let words = &element.text;
    let question = match element.category {
        Category::Other => format!("Is \"{words}\" shown?"),
        Category::Location => format!("Is the place \"{words}\" shown?"),
        Category::Counting => format!("Is the count \"{words}\" right?"),
        Category::Spatial => format!("Is the position \"{words}\" right?"),
        category => format!("Is the {category} \"{words}\" shown?"),
    };
    format!("{}{question} Yes or No?", shared(prompt, prompt_type))
}

/// What all questions about one prompt start with.
fn shared(prompt: &str, prompt_type: Option<PromptType>) -> String {
    match prompt_type {
        Some(prompt_type) => {
            format!("Here is the {} prompt that this image was made for: \"{prompt}\"\n", prompt_type.name())
        }
        None => format!("Here is the prompt that this image was made for: \"{prompt}\"\n"),
    }
}
