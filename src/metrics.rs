//! Agreement of predictions with human labels: SRCC, PLCC, KRCC, RMSE, element accuracy, final score.
//!
//! All in f64. A coefficient that is not defined (too few items, a constant side) is `None`, never a NaN. Formulas:
//! Spearman is Pearson on average ranks; Kendall is tau-b; PLCC is Pearson after a logistic of four parameters, as in
//! the scorer of <https://github.com/DYEvaLab/EvalMuse> (commit 0fa141b), with either direction of the fit.

#![allow(clippy::float_cmp, reason = "ties are exact equality")]

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
    pearson(&logistic_fit(from, to)?, to)
}

/// Least-squares values of `b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))` at every x, up to an affine map of y.
///
/// The start is b1 = max y, b2 = min y, b3 = mean x, b4 = std x, as in the scorer. Both sides are standardised
/// first, which moves neither the optimum nor the start and makes one set of tolerances fit all data.
fn logistic_fit(x: &[f64], y: &[f64]) -> Option<Vec<f64>> {
    let standard = |values: &[f64]| {
        let d = deviations(values)?;
        let std = (d.iter().map(|d| d * d).sum::<f64>() / d.len() as f64).sqrt();
        Some(d.into_iter().map(|d| d / std).collect::<Vec<f64>>())
    };
    let (x, y) = (standard(x)?, standard(y)?);
    let highest = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = y.iter().copied().fold(f64::INFINITY, f64::min);
    let best = levenberg_marquardt(&x, &y, [highest, lowest, 0.0, 1.0]);
    Some(x.iter().map(|&x| logistic(x, &best).0).collect())
}

/// Value and gradient of the logistic at `x`.
fn logistic(x: f64, [b1, b2, b3, b4]: &[f64; 4]) -> (f64, [f64; 4]) {
    let width = b4.abs().max(1e-9);
    let u = (x - b3) / width;
    let s = if u >= 0.0 { 1.0 / (1.0 + (-u).exp()) } else { u.exp() / (1.0 + u.exp()) };
    let slope = (b1 - b2) * s * (1.0 - s) / width;
    (b2 + (b1 - b2) * s, [s, 1.0 - s, -slope, -slope * u * b4.signum()])
}

/// Levenberg and Marquardt's damped Gauss-Newton steps with Marquardt's scaling (SIAM J. Appl. Math. 11, 1963), until
/// the sum of squares falls no further.
fn levenberg_marquardt(x: &[f64], y: &[f64], start: [f64; 4]) -> [f64; 4] {
    const ROUNDS: usize = 2000;
    let squares = |b: &[f64; 4]| x.iter().zip(y).map(|(&x, y)| (y - logistic(x, b).0).powi(2)).sum::<f64>();
    let mut best = start;
    let mut least = squares(&best);
    let mut damping = 1e-3;
    let mut idle = 0;
    for _ in 0..ROUNDS {
        let (normal, right) = normal_equations(x, y, &best);
        let mut damped = normal;
        for axis in 0..4 {
            damped[axis][axis] += damping * normal[axis][axis].max(1e-12);
        }
        let trial = solve(damped, right).map(|step| std::array::from_fn(|axis| best[axis] + step[axis]));
        match trial.map(|trial: [f64; 4]| (trial, squares(&trial))) {
            Some((trial, sum)) if sum < least => {
                idle = if least - sum <= 1e-14 * least { idle + 1 } else { 0 };
                (best, least) = (trial, sum);
                damping = (damping / 10.0).max(1e-15);
            }
            _ if damping > 1e15 => break,
            _ => damping *= 10.0,
        }
        if idle == 3 || least == 0.0 {
            break;
        }
    }
    best
}

/// J'J and J'(y - f) at `b`.
fn normal_equations(x: &[f64], y: &[f64], b: &[f64; 4]) -> ([[f64; 4]; 4], [f64; 4]) {
    let mut normal = [[0.0; 4]; 4];
    let mut right = [0.0; 4];
    for (&x, &y) in x.iter().zip(y) {
        let (value, gradient) = logistic(x, b);
        for row in 0..4 {
            right[row] += gradient[row] * (y - value);
            for column in 0..4 {
                normal[row][column] += gradient[row] * gradient[column];
            }
        }
    }
    (normal, right)
}

/// Solves `a z = b` by elimination with row exchange; `None` where the matrix is singular or a result is not finite.
fn solve(mut a: [[f64; 4]; 4], mut b: [f64; 4]) -> Option<[f64; 4]> {
    for pivot in 0..4 {
        let row = (pivot..4).max_by(|&p, &q| a[p][pivot].abs().total_cmp(&a[q][pivot].abs()))?;
        a.swap(pivot, row);
        b.swap(pivot, row);
        let head = a[pivot];
        for row in pivot + 1..4 {
            let factor = a[row][pivot] / head[pivot];
            for column in pivot..4 {
                a[row][column] -= factor * head[column];
            }
            b[row] -= factor * b[pivot];
        }
    }
    let mut z = [0.0; 4];
    for row in (0..4).rev() {
        let known: f64 = (row + 1..4).map(|column| a[row][column] * z[column]).sum();
        z[row] = (b[row] - known) / a[row][row];
    }
    z.iter().all(|value| value.is_finite()).then_some(z)
}
