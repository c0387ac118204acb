//! Whether probabilities mean what they say, and the temperature that makes them.

use std::fmt;

use serde::Serialize;

/// Probabilities closer to 0 or 1 than this are taken as this far away, for the log of 0 has no temperature.
///
/// At 1e-9 the logit is 20.7, more than a model is ever sure of with reason, and 1 - p still has seven digits in f64.
const CLOSEST: f64 = 1e-9;

/// Highest temperature that is looked for, and the inverse of the lowest.
const HOTTEST: f64 = 32.0;

/// A share of the range of probabilities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// Lowest prediction in the bin.
    pub from: f64,
    /// The prediction at which the next bin starts; the last one includes it.
    pub to: f64,
    /// Predictions in the bin.
    pub n: usize,
    /// Their mean, if there are any.
    pub predicted: Option<f64>,
    /// The mean of their labels.
    pub observed: Option<f64>,
}

/// Predictions and labels in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// From 0 to 1.
    pub bins: Vec<Bin>,
    /// Expected calibration error: the mean over predictions of their bin's |predicted - observed|.
    pub ece: f64,
}

/// The reliability of (label, prediction) pairs, both in [0, 1], in `n_bins` bins.
///
/// Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, with the mean label, the
/// share of raters who said yes, as what is observed. `None` without pairs or bins, and where a prediction is no
/// probability.
pub fn reliability(pairs: &[(f64, f64)], n_bins: usize) -> Option<Reliability> {
    if pairs.is_empty() || n_bins == 0 || !pairs.iter().all(|(_, p)| (0.0..=1.0).contains(p)) {
        return None;
    }
    let mut sums = vec![(0_usize, 0.0, 0.0); n_bins];
    for (label, prediction) in pairs {
        let bin = ((prediction * n_bins as f64) as usize).min(n_bins - 1);
        let (n, predicted, observed) = &mut sums[bin];
        *n += 1;
        *predicted += prediction;
        *observed += label;
    }
    let edge = |index: usize| index as f64 / n_bins as f64;
    let ece = sums.iter().map(|(_, predicted, observed)| f64::abs(predicted - observed)).sum::<f64>();
    let bins = sums.iter().enumerate().map(|(index, &(n, predicted, observed))| Bin {
        from: edge(index),
        to: edge(index + 1),
        n,
        predicted: (n > 0).then(|| predicted / n as f64),
        observed: (n > 0).then(|| observed / n as f64),
    });
    Some(Reliability { bins: bins.collect(), ece: ece / pairs.len() as f64 })
}

/// What was answered to one question, and what should have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The probability of each answer.
    pub probabilities: Vec<f64>,
    /// The probability that each answer should have: 1 for a single one, or shares of raters.
    pub target: Vec<f64>,
}

impl Answer {
    /// Of a question that is answered yes with `probability`, and by a share `label` of the raters.
    pub fn yes_no(probability: f64, label: f64) -> Self {
        Self { probabilities: vec![probability, 1.0 - probability], target: vec![label, 1.0 - label] }
    }

    fn logs(&self) -> Vec<f64> {
        self.probabilities.iter().map(|p| p.clamp(CLOSEST, 1.0 - CLOSEST).ln()).collect()
    }
}

/// A temperature and what it gains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TemperatureFit {
    /// Divides the logarithms of the probabilities, and so the logits behind them.
    pub temperature: f64,
    /// Mean negative log-likelihood of the targets as predicted, in nats.
    pub nll_before: f64,
    /// The same at the temperature.
    pub nll_after: f64,
    /// Questions.
    pub n: usize,
}

/// Why no temperature is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTemperature {
    /// There are no answers.
    Empty,
    /// The hotter the better: the predictions say nothing about the labels, or the contrary.
    Uninformative,
    /// The colder the better: the most probable answer is always the right one.
    Faultless,
}

impl fmt::Display for NoTemperature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "there are none",
            Self::Uninformative => "the predictions do not agree with the labels",
            Self::Faultless => "the predictions are without fault",
        })
    }
}

/// The temperature T at which `softmax(ln p / T)` gives the targets the least mean negative log-likelihood.
///
/// Temperature scaling of Guo and others (ICML 2017). A closed softmax is known from its probabilities up to a
/// constant that it does not depend on, so the logits are not needed. In 1 / T the likelihood is convex: its slope,
/// the mean of `E_softmax[ln p] - E_target[ln p]`, has one root, found by bisection.
///
/// # Errors
/// [`NoTemperature`] where the best is beyond 1/32 to 32.
pub fn fit_temperature(answers: &[Answer]) -> Result<TemperatureFit, NoTemperature> {
    if answers.is_empty() {
        return Err(NoTemperature::Empty);
    }
    let cases: Vec<(Vec<f64>, &[f64])> =
        answers.iter().map(|answer| (answer.logs(), answer.target.as_slice())).collect();
    let mean = |inverse: f64, of: fn(&[f64], &[f64], f64) -> f64| {
        cases.iter().map(|(logs, target)| of(logs, target, inverse)).sum::<f64>() / cases.len() as f64
    };
    let (mut low, mut high) = (1.0 / HOTTEST, HOTTEST);
    // What is flat up to rounding has no best temperature either.
    if mean(low, slope) > -1e-12 {
        return Err(NoTemperature::Uninformative);
    }
    if mean(high, slope) < 1e-12 {
        return Err(NoTemperature::Faultless);
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if mean(middle, slope) < 0.0 { low = middle } else { high = middle }
    }
    let inverse = f64::midpoint(low, high);
    let (nll_before, nll_after) = (mean(1.0, nll), mean(inverse, nll));
    Ok(TemperatureFit { temperature: 1.0 / inverse, nll_before, nll_after, n: answers.len() })
}

/// `ln sum_i exp(b l_i) - b sum_i y_i l_i`.
fn nll(logs: &[f64], target: &[f64], inverse: f64) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (inverse * (log - largest)).exp()).sum();
    sum.ln() - inverse * target.iter().zip(logs).map(|(y, log)| y * (log - largest)).sum::<f64>()
}

/// The derivative of [`nll`] by the inverse temperature.
fn slope(logs: &[f64], target: &[f64], inverse: f64) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (inverse * (log - largest)).exp()).collect();
    let dot = |weights: &[f64]| weights.iter().zip(logs).map(|(weight, log)| weight * log).sum::<f64>();
    dot(&weights) / weights.iter().sum::<f64>() - dot(target)
}
