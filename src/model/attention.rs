//! Scaled dot-product attention with grouped queries, written out in f32.

use burn::tensor::{Tensor, activation::softmax};

/// Added to the score of a key that a query must not see: its probability is exactly zero
/// in f32, and no back end has to cope with infinities.
pub const HIDDEN: f32 = -1e9;

/// Most attention scores at a time, 64 MiB of them: a picture of 4,096 patches has 268 million in 16 heads,
/// which is more than many adapters bind.
const MAX_SCORES: usize = 16 << 20;

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
    attend_in_parts(query, key, value, mask, MAX_SCORES)
}

/// [`attend`] with at most `max_scores` scores at a time. Every row of scores belongs to one query, so
/// the parts are exact.
fn attend_in_parts(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<3>>,
    max_scores: usize,
) -> Tensor<3> {
    let [b, h, t, _] = query.dims();
    let [_, _, s, _] = key.dims();
    let step = (max_scores / (b * h * s)).max(1);
    if step >= t {
        return attend_at_once(query, key, value, mask);
    }
    let parts = (0..t).step_by(step).map(|start| {
        let rows = step.min(t - start);
        let query = query.clone().narrow(2, start, rows);
        let mask = mask.clone().map(|mask| mask.narrow(1, start, rows));
        attend_at_once(query, key.clone(), value.clone(), mask)
    });
    Tensor::cat(parts.collect(), 1)
}

fn attend_at_once(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, mask: Option<Tensor<3>>) -> Tensor<3> {
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn attention_in_parts_is_attention_at_once() {
        let device = Device::flex();
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (query, key, value) = (random([2, 4, 7, 8]), random([2, 2, 9, 8]), random([2, 2, 9, 8]));
        let hidden: Vec<f32> = (0..63).map(|i| if i % 9 > 2 + i / 9 { HIDDEN } else { 0.0 }).collect();
        let mask = Tensor::<1>::from_floats(hidden.as_slice(), &device).reshape([1, 7, 9]);
        for mask in [None, Some(mask)] {
            let whole = attend_at_once(query.clone(), key.clone(), value.clone(), mask.clone()).into_data();
            // Three rows at a time, the last part shorter; and fewer scores than one row has.
            for max_scores in [3 * 2 * 4 * 9 + 5, 1] {
                let parts =
                    attend_in_parts(query.clone(), key.clone(), value.clone(), mask.clone(), max_scores);
                parts.into_data().assert_approx_eq::<f32>(&whole, burn::tensor::Tolerance::absolute(1e-6));
            }
        }
    }
}
