//! Turning the halves of a head against each other (`rotate_half`), never neighbouring pairs.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines, one row a token.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[B, T, Dh]`: the cosines of `Dh / 2` angles, then their sines.
    table: Tensor<3>,
    /// Both for whole heads, `[B, 1, T, Dh]`, made when burn's operations first ask for them.
    whole: OnceLock<[Tensor<4>; 2]>,
}

impl Rotary {
    /// From one angle per token and frequency, `B` sequences of `T` rows of `head_dim / 2` angles.
    pub fn from_angles(angles: &[f32], batch: usize, head_dim: usize, device: &Device) -> Self {
        let half = head_dim / 2;
        let mut values = Vec::with_capacity(angles.len() * 2);
        for row in angles.chunks_exact(half) {
            values.extend(row.iter().map(|angle| angle.cos()));
            values.extend(row.iter().map(|angle| angle.sin()));
        }
        let tokens = angles.len() / (half * batch);
        let table = Tensor::from_data(TensorData::new(values, [batch, tokens, head_dim]), device);
        Self { table, whole: OnceLock::new() }
    }

    /// Of some tokens only.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { table: super::rows::select(self.table.clone(), rows), whole: OnceLock::new() }
    }

    /// `[B, T, Dh]`: cosines, then sines.
    #[cfg(feature = "kernels")]
    pub(super) fn table(&self) -> &Tensor<3> {
        &self.table
    }

    /// Turns queries or keys, by burn's operations.
    ///
    /// # Shapes
    /// - input and output: `[B, H, T, Dh]`
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let [cos, sin] = self.whole.get_or_init(|| {
            [0, half].map(|start| {
                let part = self.table.clone().narrow(2, start, half);
                Tensor::cat(vec![part.clone(), part], 2).unsqueeze_dim(1)
            })
        });
        let first = x.clone().narrow(3, 0, half);
        let second = x.clone().narrow(3, half, half);
        let rotated = Tensor::cat(vec![second.neg(), first], 3);
        x * cos.clone() + rotated * sin.clone()
    }
}
