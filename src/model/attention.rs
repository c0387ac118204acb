//! Scaled dot-product attention with grouped queries, written out in f32.

use burn::tensor::{Tensor, activation::softmax};

/// Added to the score of a key that a query must not see: its probability is exactly zero
/// in f32, and no back end has to cope with infinities.
pub const HIDDEN: f32 = -1e9;

/// `softmax(q kᵗ / sqrt(Dh) + mask) v` with `H / Hkv` query heads on each key head.
///
/// # Shapes
/// - `query`: `[B, H, T, Dh]`
/// - `key`, `value`: `[B, Hkv, S, Dh]`
/// - `mask`: `[B or 1, T, S]`, 0 where seen and [`HIDDEN`] where not
/// - output: `[B, T, H * Dh]`
pub(crate) fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<3>>,
) -> Tensor<3> {
    let [b, h, t, d] = query.dims();
    let [_, h_kv, s, _] = key.dims();
    let group = h / h_kv;
    let scale = (d as f64).powf(-0.5);
    let query = (query * scale).reshape([b, h_kv, group * t, d]);
    let mut scores = query.matmul(key.swap_dims(2, 3)); // [B, Hkv, G * T, S]
    if let Some(mask) = mask {
        let [mask_batch, _, _] = mask.dims();
        let mask = mask.reshape([mask_batch, 1, 1, t, s]);
        scores = (scores.reshape([b, h_kv, group, t, s]) + mask).reshape([b, h_kv, group * t, s]);
    }
    softmax(scores, 3).matmul(value).reshape([b, h, t, d]).swap_dims(1, 2).reshape([b, t, h * d])
}

/// Splits a projection into heads.
///
/// # Shapes
/// - input: `[B, T, H * Dh]`
/// - output: `[B, H, T, Dh]`
pub(crate) fn heads(x: Tensor<3>, head_dim: usize) -> Tensor<4> {
    let [b, t, width] = x.dims();
    x.reshape([b, t, width / head_dim, head_dim]).swap_dims(1, 2)
}
