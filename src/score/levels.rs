//! `QAlign` of iMatch: an overall score as the expectation over ordered level tokens.

use super::options::ScoringOptions;
use super::result::{LevelProbability, OverallScore};
use crate::text::OverallKind;
use crate::{Error, Result};

/// More levels than anyone has single tokens for.
const MAX_LEVELS: usize = 1000;

/// Probabilities over the answers alone: `p_i = exp(x_i / T) / sum_j exp(x_j / T)`.
///
/// Computed in f64 after subtracting the largest logit; adding a constant to all logits changes
/// nothing. The vocabulary's other tokens take no part (closed-set softmax of iMatch,
/// arXiv:2504.12018).
///
/// # Errors
/// [`Kind::Device`](crate::error::Kind::Device) for a logit that is not finite,
/// [`Kind::Internal`](crate::error::Kind::Internal) for no logits at all or a temperature that is
/// not positive.
pub fn closed_softmax(logits: &[f32], temperature: f64) -> Result<Vec<f64>> {
    if logits.is_empty() || !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::internal(format!(
            "softmax of {} logits at temperature {temperature}",
            logits.len()
        )));
    }
    if let Some(index) = logits.iter().position(|logit| !logit.is_finite()) {
        let (number, n) = (index + 1, logits.len());
        return Err(Error::device(format!(
            "answer logit {number} of {n} is {}, not a number",
            logits[index]
        )));
    }
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|logit| ((f64::from(*logit) - f64::from(largest)) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Ok(weights.into_iter().map(|weight| weight / sum).collect())
}

/// One minus the expected distance to the most likely level (the lowest of equals), over the
/// distance for a uniform answer, at least 0.
///
/// `c = max(0, 1 - sum_i p_i |i - best| / u)` with `u = sum_i |i - (n - 1) / 2| / n`, the mean
/// distance of n uniform levels to their middle. 1 for a certain answer and for a single level; for
/// two levels it is `|2 p - 1|`. Source: transformers 5.23.0, `decision/template_utils.py`,
/// `Question.answer` for questions of type `score`.
pub fn confidence(probabilities: &[f64]) -> f64 {
    let n = probabilities.len();
    if n < 2 {
        return 1.0;
    }
    let mut best = 0;
    for (level, probability) in probabilities.iter().enumerate() {
        if *probability > probabilities[best] {
            best = level;
        }
    }
    let distance: f64 =
        probabilities.iter().enumerate().map(|(level, p)| p * level.abs_diff(best) as f64).sum();
    let middle = (n - 1) as f64 / 2.0;
    let uniform = (0..n).map(|level| (level as f64 - middle).abs()).sum::<f64>() / n as f64;
    (1.0 - distance / uniform).clamp(0.0, 1.0)
}

/// Levels 1 to n spread evenly over a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelScale {
    n_levels: usize,
    lowest: f64,
    highest: f64,
}

impl Default for LevelScale {
    /// 15 levels on [1, 5], iMatch on EvalMuse-40K.
    fn default() -> Self {
        Self { n_levels: 15, lowest: 1.0, highest: 5.0 }
    }
}

impl LevelScale {
    /// `n_levels` levels from `scale[0]` to `scale[1]`.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) for fewer than two levels and for a scale that is
    /// not finite or does not increase.
    pub fn new(n_levels: usize, scale: [f64; 2]) -> Result<Self> {
        let [lowest, highest] = scale;
        if !(2..=MAX_LEVELS).contains(&n_levels) {
            return Err(Error::model(format!(
                "scoring options have {n_levels} levels, expected 2 to {MAX_LEVELS}"
            )));
        }
        if !(lowest.is_finite() && highest.is_finite() && lowest < highest && (highest - lowest).is_finite())
        {
            return Err(Error::model(format!(
                "scoring scale is {lowest} to {highest}, expected it to increase"
            )));
        }
        Ok(Self { n_levels, lowest, highest })
    }

    /// Number of levels.
    pub fn n_levels(&self) -> usize {
        self.n_levels
    }

    /// The level (1 to n) nearest to a score, the upper one of two:
    /// `round_half_up((s - lo) / (hi - lo) * (n - 1)) + 1`.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) for a score outside the scale.
    pub fn encode(&self, score: f64) -> Result<usize> {
        let Self { n_levels, lowest, highest } = *self;
        if !(lowest..=highest).contains(&score) {
            return Err(Error::input(format!("score {score} is outside its scale, {lowest} to {highest}")));
        }
        let steps = (score - lowest) / (highest - lowest) * (n_levels - 1) as f64;
        let up = usize::from(steps - steps.floor() >= 0.5);
        Ok((steps.floor() as usize + up).min(n_levels - 1) + 1)
    }

    /// The score of a level, fractional ones too: `lo + (level - 1) * (hi - lo) / (n - 1)`.
    pub fn decode(&self, level: f64) -> f64 {
        self.lowest + (level - 1.0) * (self.highest - self.lowest) / (self.n_levels - 1) as f64
    }
}

/// The expected level, `E = sum_i p_i * i` for i = 1..n.
fn expected_level(probabilities: &[f64]) -> f64 {
    probabilities.iter().enumerate().map(|(index, p)| p * (index + 1) as f64).sum()
}

/// The overall score from the logits of the closed set: of the levels in order, or of yes and no.
///
/// A `yes_no` score is `lo + P(yes) * (hi - lo)`, without levels; its confidence is that of the
/// two levels no and yes.
///
/// # Errors
/// As [`closed_softmax`]; [`Kind::Internal`](crate::error::Kind::Internal) where the number of
/// logits is not that of the options' tokens.
pub fn overall(options: &ScoringOptions, logits: &[f32]) -> Result<OverallScore> {
    let options = &options.overall;
    let scale = options.level_scale()?;
    let expected = match options.kind {
        OverallKind::Levels => scale.n_levels(),
        OverallKind::YesNo => 2,
    };
    if logits.len() != expected {
        return Err(Error::internal(format!(
            "{} logits of the overall answer, expected {expected}",
            logits.len()
        )));
    }
    let probabilities = closed_softmax(logits, options.temperature)?;
    let confidence = confidence(&probabilities);
    if options.kind == OverallKind::YesNo {
        let yes = probabilities[0];
        let [lowest, highest] = options.scale;
        let score = lowest + yes * (highest - lowest);
        let (expected_level, levels) = (None, Vec::new());
        let probability = Some(yes);
        return Ok(OverallScore {
            score,
            scale: options.scale,
            confidence,
            expected_level,
            levels,
            probability,
        });
    }
    let level = expected_level(&probabilities);
    let levels = options.tokens.iter().zip(probabilities);
    Ok(OverallScore {
        score: scale.decode(level).clamp(options.scale[0], options.scale[1]),
        scale: options.scale,
        confidence,
        expected_level: Some(level),
        levels: levels
            .map(|(token, probability)| LevelProbability { token: token.clone(), probability })
            .collect(),
        probability: None,
    })
}
