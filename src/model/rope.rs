//! Rotary positions: 2-D for patches, interleaved M-RoPE for the decoder.
//!
//! Angles are computed on the host in f64 and uploaded once per pass.

use burn::tensor::Device;

use crate::config::TextConfig;
use crate::ops::Rotary;

/// Base of the vision tower's rotary frequencies (`Qwen3VLVisionRotaryEmbedding`, `theta=10000.0`).
const VISION_THETA: f64 = 10_000.0;

/// Positions of patches in merge-block order: a quarter of the head turns with the
/// row, a quarter with the column, duplicated to the other half
/// (`Qwen3VLVisionModel.rot_pos_emb`).
pub(super) fn for_patches(positions: &[[usize; 2]], head_dim: usize, device: &Device) -> Rotary {
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
    Rotary::from_angles(&angles, 1, head_dim, device)
}

/// Positions (time, height, width) of decoder tokens, interleaved as `mrope_section`
/// says: frequency `i` belongs to height where `i % 3 == 1` and `i < 3 * section[1]`, to
/// width where `i % 3 == 2` and `i < 3 * section[2]`, else to time
/// (`Qwen3VLTextRotaryEmbedding.apply_interleaved_mrope`). Equal positions on all axes make it the plain
/// rotary embedding of one axis (`Qwen2RotaryEmbedding`).
pub fn for_tokens(positions: &[Vec<[usize; 3]>], config: &TextConfig, device: &Device) -> Rotary {
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
    Rotary::from_angles(&angles, positions.len(), config.head_dim, device)
}
