//! Neighbouring patches to one decoder token (`Qwen3VLVisionPatchMerger`, `InternVLMultiModalProjector`).

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use super::checks::Checks;
use super::linear::{Linear, linears};
use crate::config::VisionConfig;
use crate::ops::check::{Finish, Made};
use crate::ops::{Activation, Epilogue, layer_norm};

/// Epsilon of the projector's norm (`nn.LayerNorm` in `InternVLMultiModalProjector`, torch's default).
const PROJECTOR_EPSILON: f64 = 1e-5;

/// `fc2(gelu_erf(fc1(shuffle(x))))` with a norm before or after the shuffle.
///
/// The final merger norms each patch, the `DeepStack` mergers norm the merged vector;
/// which one it is shows in the norm's width.
#[derive(Module, Debug)]
pub(super) struct Merger {
    norm: LayerNorm,
    epsilon: f64,
    linear_fc1: Linear,
    linear_fc2: Linear,
}

impl Merger {
    /// The final merger: its norm runs over `Dv`, before the shuffle.
    pub(super) fn before_shuffle(config: &VisionConfig, device: &Device) -> Self {
        let merged = merged(config);
        Self::new([config.hidden_size, merged, merged, config.out_hidden_size], config.layer_norm_eps, device)
    }

    /// A `DeepStack` merger: its norm runs over `merge² * Dv`, after the shuffle.
    pub(super) fn after_shuffle(config: &VisionConfig, device: &Device) -> Self {
        let merged = merged(config);
        Self::new([merged, merged, merged, config.out_hidden_size], config.layer_norm_eps, device)
    }

    /// A projector: its norm runs over `merge² * Dv`, and it has the decoder's width inside too.
    pub(super) fn projector(config: &VisionConfig, device: &Device) -> Self {
        let (merged, width) = (merged(config), config.out_hidden_size);
        Self::new([merged, merged, width, width], PROJECTOR_EPSILON, device)
    }

    fn new([norm, merged, inner, out]: [usize; 4], epsilon: f64, device: &Device) -> Self {
        Self {
            norm: LayerNormConfig::new(norm).with_epsilon(epsilon).init(device),
            epsilon,
            linear_fc1: Linear::new(merged, inner, true, device),
            linear_fc2: Linear::new(inner, out, true, device),
        }
    }

    /// # Shapes
    /// - input: `[B, N, Dv]` in merge-block order
    /// - output: `[B, N / merge², D]`
    pub(super) fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = hidden.dims();
        let [width, _] = self.linear_fc1.widths();
        let [norm_width] = self.norm.gamma.lazy_shape().dims();
        let merged = [b, n * d / width, width];
        let hidden = if norm_width == d {
            layer_norm(&self.norm, self.epsilon, hidden).reshape(merged)
        } else {
            layer_norm(&self.norm, self.epsilon, hidden.reshape(merged))
        };
        let gelu = Epilogue { activation: Activation::GeluErf, ..Epilogue::default() };
        self.linear_fc2.forward(self.linear_fc1.forward_then(hidden, gelu))
    }
}

impl Merger {
    /// What a device has to show before it computes this.
    pub(super) fn checks(&self, checks: &mut Checks) {
        let [width] = self.norm.gamma.lazy_shape().dims();
        checks.norm(true, width);
        checks.linear(&self.linear_fc1, Finish { made: Made::GeluErf, ..Finish::default() });
        checks.linear(&self.linear_fc2, Finish::default());
    }
}

linears!(Merger { linear_fc1, linear_fc2 });

/// Width of the patches of a token side by side.
fn merged(config: &VisionConfig) -> usize {
    config.hidden_size * config.spatial_merge_size.pow(2)
}
