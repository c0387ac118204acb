//! Neighbouring patches to one decoder token (`Qwen3VLVisionPatchMerger`).

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};

use super::linear::Linear;
use super::vision::EPSILON;
use crate::config::VisionConfig;

/// `fc2(gelu_erf(fc1(shuffle(x))))` with a norm before or after the shuffle.
///
/// The final merger norms each patch, the `DeepStack` mergers norm the merged vector;
/// which one it is shows in the norm's width.
#[derive(Module, Debug)]
pub(super) struct Merger {
    norm: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
}

impl Merger {
    /// The final merger: its norm runs over `Dv`, before the shuffle.
    pub(super) fn before_shuffle(config: &VisionConfig, device: &Device) -> Self {
        Self::new(config, config.hidden_size, device)
    }

    /// A `DeepStack` merger: its norm runs over `merge² * Dv`, after the shuffle.
    pub(super) fn after_shuffle(config: &VisionConfig, device: &Device) -> Self {
        Self::new(config, config.hidden_size * config.spatial_merge_size.pow(2), device)
    }

    fn new(config: &VisionConfig, norm_width: usize, device: &Device) -> Self {
        let width = config.hidden_size * config.spatial_merge_size.pow(2);
        Self {
            norm: LayerNormConfig::new(norm_width).with_epsilon(EPSILON).init(device),
            linear_fc1: Linear::new(width, width, true, device),
            linear_fc2: Linear::new(width, config.out_hidden_size, true, device),
        }
    }

    /// # Shapes
    /// - input: `[B, N, Dv]` in merge-block order
    /// - output: `[B, N / merge², D]`
    pub(super) fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = hidden.dims();
        let [width, _] = self.linear_fc1.weight.lazy_shape().dims();
        let [norm_width] = self.norm.gamma.lazy_shape().dims();
        let merged = [b, n * d / width, width];
        let hidden = if norm_width == d {
            self.norm.forward(hidden).reshape(merged)
        } else {
            self.norm.forward(hidden.reshape(merged))
        };
        self.linear_fc2.forward(gelu(self.linear_fc1.forward(hidden)))
    }
}
