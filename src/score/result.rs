//! The object of `score --json` and of `picture.score()`; field order is part of the contract.

use serde::Serialize;

use super::options::{ScoringOptions, as_short_numbers};
use crate::text::Category;

/// A whole result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreResult {
    /// What scored.
    pub model: ModelIdentity,
    /// The score of the whole prompt.
    pub overall: OverallScore,
    /// The scores of its elements, in the order of the request.
    pub elements: Vec<ElementScore>,
    /// What it ran on: `cpu`, or the name of the GPU.
    pub device: String,
    /// How long the stages took.
    pub timings_ms: Timings,
    /// The geometric mean of the elements' scores, see [`geometric_mean`](super::geometric_mean); null
    /// without elements.
    pub elements_geometric_mean: Option<f64>,
    /// The options behind the numbers.
    pub scoring: ScoringOptions,
}

/// Which weights gave a score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelIdentity {
    /// The model's name.
    pub name: String,
    /// `model_type` of its configuration, for instance `qwen3_vl`.
    pub architecture: String,
    /// `f32`, `f16`, `q8_0` or `q4_0`.
    pub quantization: String,
    /// SHA-256 over the weights, lower-case hexadecimal.
    pub sha256: String,
}

/// The overall score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverallScore {
    /// On `scale`.
    pub score: f64,
    /// Lowest and highest possible score.
    #[serde(serialize_with = "as_short_numbers")]
    pub scale: [f64; 2],
    /// In [0, 1], see [`confidence`](super::confidence).
    pub confidence: f64,
    /// In [1, n] for n levels; null for `yes_no`.
    pub expected_level: Option<f64>,
    /// The distribution from the lowest level to the highest; empty for `yes_no`.
    pub levels: Vec<LevelProbability>,
    /// P(yes) over yes and no; only for `yes_no`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

/// One level of the distribution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LevelProbability {
    /// The level's token.
    pub token: String,
    /// Its probability among the levels.
    pub probability: f64,
}

/// The score of an element.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ElementScore {
    /// The words, without the category.
    pub element: String,
    /// The canonical category.
    pub category: Category,
    /// P(yes) over yes and no.
    pub score: f64,
    /// Whether the score reaches the threshold.
    pub present: bool,
}

/// Milliseconds of each stage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timings {
    /// Reading the model.
    pub load: f64,
    /// Decoding, resizing and encoding the picture; on a GPU until its work is queued.
    pub image: f64,
    /// The part that all questions share: 0, because one pass reads it with the first questions.
    pub prefix: f64,
    /// All questions, with what they share where it was not read before; on a GPU also what was still queued.
    pub questions: f64,
}
