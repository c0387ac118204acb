//! Scoring options: `imatch.json`, and `scoring` in a manifest.

use std::collections::HashSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::levels::LevelScale;
use crate::text::{Overall, OverallKind};
use crate::{Error, Result};

/// Everything that turns logits into scores, beside the wording; travels with the weights and is
/// printed with every result. Every field is optional in JSON, unknown ones are errors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoringOptions {
    /// The overall question.
    pub overall: OverallOptions,
    /// The elements' questions.
    pub element: ElementOptions,
    /// What the options were chosen for, where none came with the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
}

/// How the overall score is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverallOptions {
    /// Levels, or the probability of yes.
    pub kind: OverallKind,
    /// The levels' tokens from the lowest to the highest (iMatch: the letters a to o); unused for
    /// `yes_no`, which takes the elements' tokens.
    pub tokens: Vec<String>,
    /// Score of the lowest and of the highest level (mean opinion scores of EvalMuse-40K: 1 to 5).
    #[serde(serialize_with = "as_short_numbers", deserialize_with = "pair")]
    pub scale: [f64; 2],
    /// Divides the logits before the softmax.
    pub temperature: f64,
}

/// How an element's score is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElementOptions {
    /// Yes and no.
    #[serde(deserialize_with = "pair")]
    pub tokens: [String; 2],
    /// Least probability of yes that counts as present (official metric of EvalMuse-40K: 0.5).
    pub threshold: f64,
    /// Divides the logits before the softmax.
    pub temperature: f64,
}

impl Default for OverallOptions {
    fn default() -> Self {
        let tokens = ('a'..='o').map(String::from).collect();
        Self { kind: OverallKind::Levels, tokens, scale: [1.0, 5.0], temperature: 1.0 }
    }
}

impl Default for ElementOptions {
    fn default() -> Self {
        Self { tokens: ["Yes".into(), "No".into()], threshold: 0.5, temperature: 1.0 }
    }
}

impl OverallOptions {
    /// The question that fits the options.
    pub fn question(&self) -> Overall<'_> {
        match (self.kind, self.tokens.first(), self.tokens.last()) {
            (OverallKind::Levels, Some(lowest), Some(highest)) => Overall::Levels { lowest, highest },
            _ => Overall::YesNo,
        }
    }

    /// The scale of the levels.
    pub fn level_scale(&self) -> Result<LevelScale> {
        LevelScale::new(self.tokens.len(), self.scale)
    }
}

impl ScoringOptions {
    /// The same options with another kind of overall question.
    pub fn with_overall(mut self, kind: OverallKind) -> Self {
        if self.overall.kind != kind {
            self.preset = None;
        }
        self.overall.kind = kind;
        self
    }

    /// Reads and checks `imatch.json`.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) for malformed JSON, unknown fields or kinds, and
    /// whatever [`ScoringOptions::validate`] refuses.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let options: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::model("scoring options are not what imatch reads").with_source(e))?;
        options.validate()?;
        Ok(options)
    }

    /// Checks what JSON's types cannot say.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) for fewer than two level tokens, empty or repeated
    /// tokens, a scale that does not increase, a temperature that is not positive, a threshold
    /// outside (0, 1), and anything not finite.
    pub fn validate(&self) -> Result<()> {
        let Self { overall, element, .. } = self;
        overall.level_scale()?;
        check_tokens("overall.tokens", &overall.tokens)?;
        check_tokens("element.tokens", &element.tokens)?;
        for (name, value) in
            [("overall.temperature", overall.temperature), ("element.temperature", element.temperature)]
        {
            if !value.is_normal() || value < 0.0 {
                return Err(Error::model(format!(
                    "scoring option {name} is {value}, expected a positive number"
                )));
            }
        }
        if !(element.threshold > 0.0 && element.threshold < 1.0) {
            return Err(Error::model(format!(
                "scoring option element.threshold is {}, expected a number between 0 and 1",
                element.threshold
            )));
        }
        Ok(())
    }
}

fn check_tokens(name: &str, tokens: &[String]) -> Result<()> {
    let mut seen = HashSet::new();
    match tokens.iter().find(|token| token.is_empty() || !seen.insert(*token)) {
        None => Ok(()),
        Some(token) => {
            Err(Error::model(format!("scoring option {name} has {token:?} twice or an empty token")))
        }
    }
}

/// Exactly two values; serde's own arrays call a third one trailing characters.
fn pair<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<[T; 2], D::Error> {
    let values = Vec::deserialize(deserializer)?;
    values.try_into().map_err(|values: Vec<T>| D::Error::invalid_length(values.len(), &"two values"))
}

/// `[1, 5]` rather than `[1.0, 5.0]`, the spelling of the contract.
pub(super) fn as_short_numbers<S: Serializer>(scale: &[f64; 2], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Number {
        Integer(i64),
        Float(f64),
    }
    // Below 2^53 a float without fraction is an exact integer.
    let is_integer = |value: f64| value.fract() == 0.0 && value.abs() < 9.0e15;
    scale
        .map(|value| if is_integer(value) { Number::Integer(value as i64) } else { Number::Float(value) })
        .serialize(serializer)
}
