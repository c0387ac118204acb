//! The logistic of four parameters that PLCC is taken after.

use super::deviations;

/// Items with the same x: their number and the mean of their y.
///
/// Their squared errors are `n (mean y - f(x))^2` and a rest that no f changes, so that the best f is the same for
/// the groups as for the items. Labels have a few dozen different values, whatever the number of pictures.
#[derive(Debug, Clone, Copy)]
struct Group {
    x: f64,
    y: f64,
    n: f64,
}

/// Least-squares values of `b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))` at every x, up to an affine map of y.
///
/// The start is b1 = max y, b2 = min y, b3 = mean x, b4 = std x, as in the challenge's scorer. Both sides are
/// standardised first, which moves neither the optimum nor the start and makes one set of tolerances fit all data.
pub(super) fn fit(x: &[f64], y: &[f64]) -> Option<Vec<f64>> {
    let standard = |values: &[f64]| {
        let d = deviations(values)?;
        let std = (d.iter().map(|d| d * d).sum::<f64>() / d.len() as f64).sqrt();
        Some(d.into_iter().map(|d| d / std).collect::<Vec<f64>>())
    };
    let (x, y) = (standard(x)?, standard(y)?);
    let highest = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = y.iter().copied().fold(f64::INFINITY, f64::min);
    let best = levenberg_marquardt(&groups(&x, &y), [highest, lowest, 0.0, 1.0]);
    Some(x.iter().map(|&x| logistic(x, &best).0).collect())
}

fn groups(x: &[f64], y: &[f64]) -> Vec<Group> {
    let mut pairs: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let group = |run: &[(f64, f64)]| {
        let n = run.len() as f64;
        Group { x: run[0].0, y: run.iter().map(|pair| pair.1).sum::<f64>() / n, n }
    };
    pairs.chunk_by(|a, b| a.0 == b.0).map(group).collect()
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
fn levenberg_marquardt(groups: &[Group], start: [f64; 4]) -> [f64; 4] {
    const ROUNDS: usize = 2000;
    let squares = |b: &[f64; 4]| {
        groups.iter().map(|group| group.n * (group.y - logistic(group.x, b).0).powi(2)).sum::<f64>()
    };
    let mut best = start;
    let mut least = squares(&best);
    let mut damping = 1e-3;
    let mut idle = 0;
    for _ in 0..ROUNDS {
        let (normal, right) = normal_equations(groups, &best);
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

/// J'J and J'(y - f) at `b`, over the items of all groups.
fn normal_equations(groups: &[Group], b: &[f64; 4]) -> ([[f64; 4]; 4], [f64; 4]) {
    let mut normal = [[0.0; 4]; 4];
    let mut right = [0.0; 4];
    for Group { x, y, n } in groups {
        let (value, gradient) = logistic(*x, b);
        for row in 0..4 {
            right[row] += n * gradient[row] * (y - value);
            for column in 0..4 {
                normal[row][column] += n * gradient[row] * gradient[column];
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
