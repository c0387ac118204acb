//! From answer logits to scores: closed softmax, levels, elements, and the result's types.
//!
//! A score is read off the logits of a few answer tokens at the first position of the answer;
//! nothing is generated. Wording is in [`crate::text`], all numbers are in [`ScoringOptions`].

mod elements;
mod levels;
mod options;
mod result;
mod tokens;
mod zero_shot;

pub use elements::{element, geometric_mean};
pub use levels::{LevelScale, closed_softmax, confidence, overall};
pub use options::{ElementOptions, OverallOptions, ScoringOptions};
pub use result::{ElementScore, LevelProbability, ModelIdentity, OverallScore, ScoreResult, Timings};
pub use tokens::AnswerTokens;
