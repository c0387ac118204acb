//! Vision towers: patches to features. Each family has its own, made of the parts below.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use super::checks::Checks;
use super::internvl::InternVlTower;
use super::linear::{Linear, linears};
use super::observer::Observer;
use super::qwen3_vl::Qwen3VlTower;
use super::tower::{VisionTower, each};
use crate::config::{Family, ModelConfig, VisionConfig};
use crate::error::Result;
use crate::ops::check::{Finish, Made};
use crate::ops::{Activation, Epilogue, Rotary, attend_joint, layer_norm};

/// What the decoder sees of a picture.
#[derive(Debug, Clone)]
pub struct VisionFeatures {
    /// Picture tokens, `[B, M, D]`.
    pub tokens: Tensor<3>,
    /// `DeepStack` features, one set for each of the decoder's first layers, same shape; none in families
    /// without them.
    pub deepstack: Vec<Tensor<3>>,
}

impl VisionTower {
    /// A tower of random parameters that come to life when first used.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config.family {
            Family::Qwen3Vl => Self::Qwen3Vl(Qwen3VlTower::new(&config.vision, device)),
            Family::InternVl => Self::InternVl(InternVlTower::new(&config.vision, device)),
        }
    }

    /// What a device has to show before it computes this.
    pub(super) fn checks(&self, checks: &mut Checks) {
        each!(self, tower => tower.checks(checks));
    }

    /// Encodes pictures that share one grid.
    ///
    /// # Shapes
    /// - `patches`: `[B, N, C * T * p * p]`, tile by tile in merge-block order, `N` the product of `grid_thw`
    pub async fn forward(
        &self,
        patches: Tensor<3>,
        grid_thw: [usize; 3],
        observer: &impl Observer,
    ) -> Result<VisionFeatures> {
        each!(self, tower => tower.forward(patches, grid_thw, observer).await)
    }
}

/// Pixels of one patch to a vector. A convolution whose kernel is its stride is a product.
#[derive(Module, Debug)]
pub(super) struct PatchEmbed {
    /// `[C * T * p * p, Dv]`.
    pub proj: Linear,
}

/// Learned positions of a square grid, behind that of the class token where there is one.
#[derive(Module, Debug)]
pub(super) struct PositionTable {
    /// `[side² or side² + 1, Dv]`.
    pub weight: Param<Tensor<2>>,
}

/// One block: attention, then feed-forward, each behind a norm and, in some families, a scale.
#[derive(Module, Debug)]
pub(super) struct VisionBlock {
    norm1: LayerNorm,
    norm2: LayerNorm,
    attn: VisionAttention,
    mlp: VisionMlp,
    epsilon: f64,
    /// `[Dv]`.
    ls1: Option<Param<Tensor<1>>>,
    /// `[Dv]`.
    ls2: Option<Param<Tensor<1>>>,
}

/// Full attention among the patches of one picture.
#[derive(Module, Debug)]
pub(super) struct VisionAttention {
    qkv: Linear,
    proj: Linear,
    num_heads: usize,
}

/// `fc2(gelu(fc1(x)))`.
#[derive(Module, Debug)]
pub(super) struct VisionMlp {
    linear_fc1: Linear,
    linear_fc2: Linear,
    #[module(skip)]
    gelu: Gelu,
}

/// The two forms of GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gelu {
    /// `gelu`: by the error function.
    Erf,
    /// `gelu_pytorch_tanh`.
    Tanh,
}

impl PatchEmbed {
    pub(super) fn new(config: &VisionConfig, device: &Device) -> Self {
        let patch = config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size;
        Self { proj: Linear::new(patch, config.hidden_size, true, device) }
    }
}

impl PositionTable {
    pub(super) fn new(config: &VisionConfig, device: &Device) -> Self {
        let initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
        Self { weight: initializer.init([config.num_position_embeddings, config.hidden_size], device) }
    }
}

impl VisionBlock {
    /// `layer_scale`: what the scales of both branches start with, where there are any.
    pub(super) fn new(config: &VisionConfig, gelu: Gelu, layer_scale: Option<f64>, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || LayerNormConfig::new(width).with_epsilon(config.layer_norm_eps).init(device);
        let scale = || layer_scale.map(|value| Initializer::Constant { value }.init([width], device));
        Self {
            norm1: norm(),
            norm2: norm(),
            attn: VisionAttention {
                qkv: Linear::new(width, 3 * width, config.attention_bias, device),
                proj: Linear::new(width, width, true, device),
                num_heads: config.num_heads,
            },
            mlp: VisionMlp {
                linear_fc1: Linear::new(width, config.intermediate_size, true, device),
                linear_fc2: Linear::new(config.intermediate_size, width, true, device),
                gelu,
            },
            epsilon: config.layer_norm_eps,
            ls1: scale(),
            ls2: scale(),
        }
    }

    /// # Shapes
    /// - input and output: `[B, N, Dv]`
    pub(super) fn forward(&self, hidden: Tensor<3>, rotary: Option<&Rotary>) -> Tensor<3> {
        let after = |scale: Option<&Param<Tensor<1>>>, residual| Epilogue {
            scale: scale.map(Param::val),
            ..Epilogue::adding(residual)
        };
        let normed = layer_norm(&self.norm1, self.epsilon, hidden.clone());
        let hidden = self.attn.forward(normed, rotary, after(self.ls1.as_ref(), hidden));
        let normed = layer_norm(&self.norm2, self.epsilon, hidden.clone());
        self.mlp.forward(normed, after(self.ls2.as_ref(), hidden))
    }
}

impl VisionAttention {
    fn forward(&self, hidden: Tensor<3>, rotary: Option<&Rotary>, then: Epilogue) -> Tensor<3> {
        let [_, _, width] = hidden.dims();
        let attended = attend_joint(self.qkv.forward(hidden), width / self.num_heads, rotary);
        self.proj.forward_then(attended, then)
    }
}

impl VisionMlp {
    fn forward(&self, hidden: Tensor<3>, then: Epilogue) -> Tensor<3> {
        let activation = match self.gelu {
            Gelu::Erf => Activation::GeluErf,
            Gelu::Tanh => Activation::GeluTanh,
        };
        let wide = self.linear_fc1.forward_then(hidden, Epilogue { activation, ..Epilogue::default() });
        self.linear_fc2.forward_then(wide, then)
    }
}

impl VisionBlock {
    /// What a device has to show before it computes this; `turned` is whether queries and keys are.
    pub(super) fn checks(&self, turned: bool, checks: &mut Checks) {
        let [width, _] = self.attn.qkv.widths();
        let end = |scale: &Option<Param<Tensor<1>>>| Finish {
            scale: scale.is_some(),
            residual: true,
            ..Finish::default()
        };
        checks.norm(true, width);
        checks.linear(&self.attn.qkv, Finish::default());
        checks.joint(self.attn.num_heads, width / self.attn.num_heads, turned);
        checks.linear(&self.attn.proj, end(&self.ls1));
        let made = match self.mlp.gelu {
            Gelu::Erf => Made::GeluErf,
            Gelu::Tanh => Made::GeluTanh,
        };
        checks.linear(&self.mlp.linear_fc1, Finish { made, ..Finish::default() });
        checks.linear(&self.mlp.linear_fc2, end(&self.ls2));
    }
}

linears!(PatchEmbed { proj });
linears!(VisionBlock { attn, mlp });
linears!(VisionAttention { qkv, proj });
linears!(VisionMlp { linear_fc1, linear_fc2 });

/// Row and column of each patch in the order in which patches are emitted: blocks of
/// `merge x merge` row by row, and row by row inside a block.
pub(crate) fn merge_block_order([h, w]: [usize; 2], merge: usize) -> Vec<[usize; 2]> {
    let mut order = Vec::with_capacity(h * w);
    for block_y in (0..h).step_by(merge) {
        for block_x in (0..w).step_by(merge) {
            for y in block_y..block_y + merge {
                order.extend((block_x..block_x + merge).map(|x| [y, x]));
            }
        }
    }
    order
}
