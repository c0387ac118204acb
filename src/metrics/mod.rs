//! Agreement of predictions with human labels: SRCC, PLCC, KRCC, RMSE, element accuracy, final score.
//!
//! All in f64. A coefficient that is not defined (too few items, a constant side) is `None`, never a NaN. Formulas:
//! Spearman is Pearson on average ranks; Kendall is tau-b; PLCC is Pearson after a logistic of four parameters, as in
//! the scorer of <https://github.com/DYEvaLab/EvalMuse> (commit 0fa141b), with either direction of the fit.

#![allow(clippy::float_cmp, reason = "ties are exact equality")]

mod calibration;
mod logistic;

pub use calibration::{
    Answer, Bin, NoTemperature, Reliability, TemperatureFit, fit_temperature, reliability,
};

use crate::{Error, Result};

/// Which Pearson coefficient PLCC means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlccVariant {
    /// As the challenge's scorer computes it: the logistic is fitted from labels to predictions.
    #[default]
    Official,
    /// As the challenge describes it: the logistic is fitted from predictions to labels.
    Documented,
    /// Without a logistic.
    Raw,
}

impl std::str::FromStr for PlccVariant {
    type Err = Error;

    /// `official`, `documented` or `raw`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "official" => Ok(Self::Official),
            "documented" => Ok(Self::Documented),
            "raw" => Ok(Self::Raw),
            _ => {
                Err(Error::input(format!("PLCC variant: expected official, documented or raw, got {text:?}")))
            }
        }
    }
}

/// Whether a sample has a spread: two different values, all finite.
pub fn varies(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite()) && values.windows(2).any(|pair| pair[0] != pair[1])
}

/// Deviations from the mean in units of the largest, so that no square over- or underflows; `None` if constant or not finite.
fn deviations(values: &[f64]) -> Option<Vec<f64>> {
    if !varies(values) {
        return None;
    }
    let scaled = |values: &[f64]| {
        let largest = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        values.iter().map(|value| value / largest).collect::<Vec<f64>>()
    };
    let unit = scaled(values);
    let mean = unit.iter().sum::<f64>() / unit.len() as f64;
    let centered: Vec<f64> = unit.iter().map(|value| value - mean).collect();
    varies(&centered).then(|| scaled(&centered))
}

/// Pearson's r = sum(dx dy) / sqrt(sum(dx^2) sum(dy^2)).
///
/// `None` when the lengths differ, either side is constant or holds a number that is not finite.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() {
        return None;
    }
    let (dx, dy) = (deviations(x)?, deviations(y)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = dot(&dx, &dy) / (dot(&dx, &dx).sqrt() * dot(&dy, &dy).sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Ranks from 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = (2 * start + run.len() + 1) as f64 / 2.0;
        for &index in run {
            ranks[index] = rank;
        }
        start += run.len();
    }
    ranks
}

/// Spearman's rank correlation: [`pearson`] of the [`ranks`].
///
/// `None` as for [`pearson`].
pub fn srcc(x: &[f64], y: &[f64]) -> Option<f64> {
    if !varies(x) || !varies(y) {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}

/// Kendall's tau-b = (C - D) / sqrt((n0 - ties in x) (n0 - ties in y)) with n0 = n (n - 1) / 2.
///
/// C and D count concordant and discordant pairs, by merge sort in O(n log n): W. R. Knight, "A computer method for
/// calculating Kendall's tau with ungrouped data", JASA 61 (1966). `None` as for [`pearson`].
pub fn krcc(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || !varies(x) || !varies(y) {
        return None;
    }
    // Ranks make -0 equal to 0 for the sort too.
    let (x, y) = (ranks(x), ranks(y));
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]).then(y[a].total_cmp(&y[b])));
    let pairs = |n: usize| n as f64 * (n as f64 - 1.0) / 2.0;
    let ties_x: f64 = order.chunk_by(|&a, &b| x[a] == x[b]).map(|run| pairs(run.len())).sum();
    let ties_both: f64 =
        order.chunk_by(|&a, &b| x[a] == x[b] && y[a] == y[b]).map(|run| pairs(run.len())).sum();
    let mut sorted: Vec<f64> = order.iter().map(|&index| y[index]).collect();
    let discordant = sort_counting(&mut sorted);
    let ties_y: f64 = sorted.chunk_by(|a, b| a == b).map(|run| pairs(run.len())).sum();
    let all = pairs(x.len());
    let difference = all - ties_x - ties_y + ties_both - 2.0 * discordant as f64;
    let tau = difference / ((all - ties_x).sqrt() * (all - ties_y).sqrt());
    tau.is_finite().then(|| tau.clamp(-1.0, 1.0))
}

/// Sorts by merging and returns how many pairs were in the wrong order.
fn sort_counting(values: &mut [f64]) -> u64 {
    if values.len() < 2 {
        return 0;
    }
    let middle = values.len() / 2;
    let (left, right) = values.split_at_mut(middle);
    let mut swaps = sort_counting(left) + sort_counting(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if r == right.len() || (l < left.len() && left[l] <= right[r]) {
            merged.push(left[l]);
            l += 1;
        } else {
            swaps += (left.len() - l) as u64;
            merged.push(right[r]);
            r += 1;
        }
    }
    values.copy_from_slice(&merged);
    swaps
}

/// Root of the mean squared difference, on the raw scores; `None` for no items, unequal lengths or a result that is
/// not finite.
pub fn rmse(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.is_empty() {
        return None;
    }
    let sum: f64 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
    let rmse = (sum / x.len() as f64).sqrt();
    rmse.is_finite().then_some(rmse)
}

/// Share of elements on which (label, prediction) agree after both are cut at `>= 0.5`; `None` for no elements.
///
/// The mean is over all elements of all pictures, as in the challenge's scorer.
pub fn accuracy(pairs: &[(f64, f64)]) -> Option<f64> {
    let agree = pairs.iter().filter(|(label, prediction)| (*label >= 0.5) == (*prediction >= 0.5)).count();
    (!pairs.is_empty()).then(|| agree as f64 / pairs.len() as f64)
}

/// The challenge's figure: `srcc / 4 + plcc / 4 + accuracy / 2`.
pub fn final_score(srcc: f64, plcc: f64, accuracy: f64) -> f64 {
    srcc / 4.0 + plcc / 4.0 + accuracy / 2.0
}

/// Pearson's coefficient of predictions with labels in the chosen variant.
///
/// With a logistic the sign is lost: it may fall as well as rise. `None` as for [`pearson`], for fewer than four
/// items (the logistic has four parameters), and where the best logistic is flat.
pub fn plcc(labels: &[f64], predictions: &[f64], variant: PlccVariant) -> Option<f64> {
    let (from, to) = match variant {
        PlccVariant::Raw => return pearson(labels, predictions),
        PlccVariant::Official => (labels, predictions),
        PlccVariant::Documented => (predictions, labels),
    };
    if from.len() != to.len() || from.len() < 4 {
        return None;
    }
    pearson(&logistic::fit(from, to)?, to)
}
