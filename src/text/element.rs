//! What a prompt consists of: its type, and elements with their categories.

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
