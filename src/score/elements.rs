//! An element's score: the probability of yes over yes and no alone.

use super::levels::closed_softmax;
use super::options::ElementOptions;
use super::result::ElementScore;
use crate::Result;
use crate::text::Element;

/// The geometric mean of the elements' scores: one score of a whole prompt by its parts, for checkpoints
/// that were never tuned to give one; none without elements.
///
/// `Soft-TIFA` of `GenEval` 2 (arXiv:2512.16853) agrees better with people so than with one question about
/// the whole.
pub fn geometric_mean(elements: &[ElementScore]) -> Option<f64> {
    if elements.is_empty() {
        return None;
    }
    let logarithms: f64 = elements.iter().map(|element| element.score.ln()).sum();
    Some((logarithms / elements.len() as f64).exp())
}

/// The score of one element from the logits of yes and no, present from the threshold on.
///
/// Closed to the two answers it stays comparable with the official cut at 0.5; over the whole
/// vocabulary P(yes) would be smaller by whatever other words take.
///
/// # Errors
/// As [`closed_softmax`].
pub fn element(options: &ElementOptions, element: &Element, yes_no_logits: [f32; 2]) -> Result<ElementScore> {
    let score = closed_softmax(&yes_no_logits, options.temperature)?[0];
    Ok(ElementScore {
        element: element.text.clone(),
        category: element.category,
        score,
        present: score >= options.threshold,
    })
}
