//! Vision towers: patches to features. Each family has its own, made of the parts below.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::{Device, Tensor};

use super::attention::{attend, heads};
use super::internvl::InternVlTower;
use super::linear::Linear;
use super::observer::Observer;
use super::qwen3_vl::Qwen3VlTower;
use super::rope::Rotary;
use super::tower::{VisionTower, each};
use crate::config::{Family, ModelConfig, VisionConfig};
use crate::error::Result;

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
            ls1: scale(),
            ls2: scale(),
        }
    }

    /// # Shapes
    /// - input and output: `[B, N, Dv]`
    pub(super) fn forward(&self, hidden: Tensor<3>, rotary: Option<&Rotary>) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(hidden.clone()), rotary);
        let hidden = hidden + scaled(attended, self.ls1.as_ref());
        let fed = self.mlp.forward(self.norm2.forward(hidden.clone()));
        hidden + scaled(fed, self.ls2.as_ref())
    }
}

fn scaled(branch: Tensor<3>, scale: Option<&Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(scale) => branch * scale.val().unsqueeze(),
        None => branch,
    }
}

impl VisionAttention {
    fn forward(&self, hidden: Tensor<3>, rotary: Option<&Rotary>) -> Tensor<3> {
        let [_, _, width] = hidden.dims();
        let qkv = self.qkv.forward(hidden);
        let part = |index: usize| heads(qkv.clone().narrow(2, index * width, width), width / self.num_heads);
        let turned = |x: Tensor<4>| match rotary {
            Some(rotary) => rotary.apply(x),
            None => x,
        };
        self.proj.forward(attend(turned(part(0)), turned(part(1)), part(2), None))
    }
}

impl VisionMlp {
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let wide = self.linear_fc1.forward(hidden);
        self.linear_fc2.forward(match self.gelu {
            Gelu::Erf => gelu(wide),
            Gelu::Tanh => gelu_tanh(wide),
        })
    }
}

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

/// GELU in its tanh form (`gelu_pytorch_tanh`), written as `x sigmoid(2 z)` because
/// `(1 + tanh z) / 2 = sigmoid(2 z)`: one exponential instead of a power and a tanh.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let cubic = x.clone() * x.clone() * (0.044_715 * scale) + scale;
    x.clone() * sigmoid(x * cubic)
}
