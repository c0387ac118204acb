//! The meaning of the operations: compositions of burn's, for every device, with gradients.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, sigmoid, silu, softmax};

use super::product::{Activation, Epilogue};

/// Most attention scores at a time, 64 MiB of them: a picture of 4,096 patches has 268 million in 16 heads.
const MAX_SCORES: usize = 16 << 20;

/// Takes sums through an epilogue.
///
/// # Shapes
/// - `sums` and output: `[rows, d_out]`
pub fn finish(sums: Tensor<2>, epilogue: Epilogue) -> Tensor<2> {
    let Epilogue { bias, activation, scale, residual } = epilogue;
    let mut value = match bias {
        Some(bias) => sums + bias.unsqueeze(),
        None => sums,
    };
    value = match activation {
        Activation::None => value,
        Activation::GeluErf => gelu(value),
        Activation::GeluTanh => gelu_tanh(value),
        Activation::Gate(gate) => silu(gate) * value,
    };
    if let Some(scale) = scale {
        value = value * scale.unsqueeze();
    }
    match residual {
        Some(residual) => residual + value,
        None => value,
    }
}

/// GELU in its tanh form (`gelu_pytorch_tanh`), written as `x sigmoid(2 z)` because
/// `(1 + tanh z) / 2 = sigmoid(2 z)`: one exponential instead of a power and a tanh.
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let cubic = x.clone() * x.clone() * (0.044_715 * scale) + scale;
    x.clone() * sigmoid(x * cubic)
}

/// `softmax(q kᵗ / sqrt(Dh) + mask) v` with `H / Hkv` query heads on each key head, written out in f32.
///
/// # Shapes
/// - `query`: `[B, H, T, Dh]`
/// - `key`, `value`: `[B, Hkv, S, Dh]`
/// - `mask`: `[B or 1, T, S]`, 0 where seen and [`HIDDEN`](super::HIDDEN) where not
/// - output: `[B, T, H * Dh]`
pub(super) fn attend(
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
pub(super) fn heads(x: Tensor<3>, head_dim: usize) -> Tensor<4> {
    let [b, t, width] = x.dims();
    x.reshape([b, t, width / head_dim, head_dim]).swap_dims(1, 2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::super::HIDDEN;
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
