//! Rotary positions: 2-D for patches, interleaved M-RoPE for the decoder.
//!
//! Both use the `rotate_half` convention (first half against second half of a
//! head), never neighbouring pairs. Tables are computed on the host in f64 and
//! uploaded once per pass.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::TextConfig;

/// Cosines and sines, one row a token.
#[derive(Debug, Clone)]
pub struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

/// Base of the vision tower's rotary frequencies (`Qwen3VLVisionRotaryEmbedding`, `theta=10000.0`).
const VISION_THETA: f64 = 10_000.0;

impl Rotary {
    /// From one angle per token and frequency, `B` sequences of `T` rows of `head_dim / 2` angles.
    fn from_angles(angles: &[f32], batch: usize, head_dim: usize, device: &Device) -> Self {
        let half = head_dim / 2;
        let tokens = angles.len() / (half * batch);
        let table = |f: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(angles.len() * 2);
            for row in angles.chunks_exact(half) {
                values.extend(row.iter().map(|&angle| f(angle)));
                values.extend(row.iter().map(|&angle| f(angle)));
            }
            Tensor::from_data(TensorData::new(values, [batch, 1, tokens, head_dim]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// Positions of patches in merge-block order: a quarter of the head turns with the
    /// row, a quarter with the column, duplicated to the other half
    /// (`Qwen3VLVisionModel.rot_pos_emb`).
    pub fn for_patches(positions: &[[usize; 2]], head_dim: usize, device: &Device) -> Self {
        let quarter = head_dim / 4;
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|axes| {
                axes.map(|position| {
                    (0..quarter).map(move |i| {
                        let frequency = VISION_THETA.powf(-(i as f64) / quarter as f64);
                        (position as f64 * f64::from(frequency as f32)) as f32
                    })
                })
                .into_iter()
                .flatten()
            })
            .collect();
        Self::from_angles(&angles, 1, head_dim, device)
    }

    /// Positions (time, height, width) of decoder tokens, interleaved as `mrope_section`
    /// says: frequency `i` belongs to height where `i % 3 == 1` and `i < 3 * section[1]`, to
    /// width where `i % 3 == 2` and `i < 3 * section[2]`, else to time
    /// (`Qwen3VLTextRotaryEmbedding.apply_interleaved_mrope`). Equal positions on all axes make it the plain
    /// rotary embedding of one axis (`Qwen2RotaryEmbedding`).
    pub fn for_tokens(positions: &[Vec<[usize; 3]>], config: &TextConfig, device: &Device) -> Self {
        let half = config.head_dim / 2;
        let frequencies: Vec<(usize, f64)> = (0..half)
            .map(|i| {
                let axis = match i % 3 {
                    1 if i < 3 * config.mrope_section[1] => 1,
                    2 if i < 3 * config.mrope_section[2] => 2,
                    _ => 0,
                };
                (axis, f64::from(config.rope_theta.powf(-(i as f64) / half as f64) as f32))
            })
            .collect();
        let angles: Vec<f32> = positions
            .iter()
            .flatten()
            .flat_map(|token| {
                frequencies.iter().map(|&(axis, frequency)| (token[axis] as f64 * frequency) as f32)
            })
            .collect();
        Self::from_angles(&angles, positions.len(), config.head_dim, device)
    }

    /// Turns queries or keys.
    ///
    /// # Shapes
    /// - input and output: `[B, H, T, Dh]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.clone().narrow(3, half, half);
        let rotated = Tensor::cat(vec![second.neg(), first], 3);
        x * self.cos.clone() + rotated * self.sin.clone()
    }
}
