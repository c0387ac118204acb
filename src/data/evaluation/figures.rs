//! The figures of the challenge.

use serde::Serialize;

use crate::Result;
use crate::data::evalmuse::Record;
use crate::data::pairing::{Pair, pair};
use crate::data::submission::Prediction;
use crate::metrics::{self, PlccVariant};

/// Agreement of predictions with labels; what is undefined is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Spearman's rank correlation.
    pub srcc: Option<f64>,
    /// Pearson's correlation in the variant asked for.
    pub plcc: Option<f64>,
    /// Kendall's tau-b.
    pub krcc: Option<f64>,
    /// Root mean squared difference of the raw scores.
    pub rmse: Option<f64>,
    /// Share of elements on the right side of a half.
    pub accuracy: Option<f64>,
    /// `srcc / 4 + plcc / 4 + accuracy / 2`.
    #[serde(rename = "final")]
    pub final_score: Option<f64>,
}

impl Figures {
    /// The names, in the order of [`Figures::values`].
    pub const NAMES: [&str; 6] = ["srcc", "plcc", "krcc", "rmse", "accuracy", "final"];

    /// All figures from overall labels and predictions of the same length and the elements' accuracy.
    pub(super) fn new(
        labels: &[f64],
        predictions: &[f64],
        accuracy: Option<f64>,
        variant: PlccVariant,
    ) -> Self {
        let srcc = metrics::srcc(labels, predictions);
        let plcc = metrics::plcc(labels, predictions, variant);
        let final_score = match (srcc, plcc, accuracy) {
            (Some(srcc), Some(plcc), Some(accuracy)) => Some(metrics::final_score(srcc, plcc, accuracy)),
            _ => None,
        };
        let (krcc, rmse) = (metrics::krcc(labels, predictions), metrics::rmse(labels, predictions));
        Self { srcc, plcc, krcc, rmse, accuracy, final_score }
    }

    /// The figures in the order of [`Figures::NAMES`].
    pub fn values(&self) -> [Option<f64>; 6] {
        let Self { srcc, plcc, krcc, rmse, accuracy, final_score } = *self;
        [srcc, plcc, krcc, rmse, accuracy, final_score]
    }
}

/// The object of `eval --json`; what is undefined is `null`, and a warning says why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalReport {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Pictures compared.
    pub n_images: usize,
    /// Elements compared.
    pub n_elements: usize,
    /// Sentences for the reader; not part of the object.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Compares predictions with labels.
///
/// # Errors
/// As [`pair`].
pub fn evaluate(labels: &[Record], predictions: &[Prediction], variant: PlccVariant) -> Result<EvalReport> {
    Ok(report(&pair(labels, predictions)?, variant))
}

/// All figures over pictures, with a warning for each that is undefined or misleading.
pub fn report<'a>(pairs: impl IntoIterator<Item = &'a Pair<'a>>, variant: PlccVariant) -> EvalReport {
    let (mut labels, mut predictions, mut elements) = (Vec::new(), Vec::new(), Vec::new());
    for pair in pairs {
        labels.push(pair.label);
        predictions.push(pair.score);
        elements.extend(pair.elements.iter().map(|element| (element.label, element.score)));
    }
    let figures = Figures::new(&labels, &predictions, metrics::accuracy(&elements), variant);
    let mut warnings = why_undefined(&figures, &labels);
    let raw = metrics::pearson(&labels, &predictions).filter(|_| variant != PlccVariant::Raw);
    warnings.extend(raw.filter(|raw| *raw < 0.0).map(|raw| {
        format!(
            "predictions fall where labels rise (raw Pearson {raw:.4}), which the fitted plcc does not show"
        )
    }));
    EvalReport { figures, n_images: labels.len(), n_elements: elements.len(), warnings }
}

/// A sentence for every reason why a figure is undefined.
fn why_undefined(figures: &Figures, labels: &[f64]) -> Vec<String> {
    let (all, plcc) = ("srcc, plcc, krcc and final are", "plcc and final are");
    let correlation = match (figures.srcc, figures.plcc) {
        (None, _) if labels.len() < 2 => Some((all, "there is one picture")),
        (None, _) if !metrics::varies(labels) => Some((all, "all labels are equal")),
        (None, _) => Some((all, "all predictions are equal")),
        (_, None) if labels.len() < 4 => {
            Some((plcc, "the logistic needs four pictures (raw does without it)"))
        }
        (_, None) => Some((plcc, "the fitted logistic is flat (raw does without it)")),
        _ => None,
    };
    let rmse = figures.rmse.is_none().then_some(("rmse is", "the scores are too large"));
    let accuracy = figures.accuracy.is_none().then_some(("accuracy and final are", "there are no elements"));
    let reasons = [correlation, rmse, accuracy].into_iter().flatten();
    reasons.map(|(names, reason)| format!("{names} undefined: {reason}")).collect()
}
