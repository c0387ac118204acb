//! Features added to some rows.

use burn::tensor::{Int, Tensor, TensorData};

/// Adds `features` to the rows from `start` on.
///
/// # Shapes
/// - `hidden` and output: `[B, T, D]`
/// - `features`: `[B, M, D]` with `start + M <= T`
pub fn add_rows(hidden: Tensor<3>, features: &Tensor<3>, start: usize) -> Tensor<3> {
    #[cfg(feature = "kernels")]
    if let Some(sum) = super::wgsl::add_rows(&hidden, features, start) {
        return sum;
    }
    let [_, t, _] = hidden.dims();
    let [_, m, _] = features.dims();
    let end = start + m;
    let mut parts = Vec::with_capacity(3);
    if start > 0 {
        parts.push(hidden.clone().narrow(1, 0, start));
    }
    parts.push(hidden.clone().narrow(1, start, m) + features.clone());
    if end < t {
        parts.push(hidden.narrow(1, end, t - end));
    }
    Tensor::cat(parts, 1)
}

/// Some rows of each sequence.
///
/// # Shapes
/// - input: `[B, T, D]`
/// - output: `[B, rows, D]`
pub fn select(x: Tensor<3>, rows: &[usize]) -> Tensor<3> {
    let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &x.device());
    x.select(1, indices)
}
