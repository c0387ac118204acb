//! The vision tower: patches to features (`Qwen3VLVisionModel`).

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::{attend, heads};
use super::linear::Linear;
use super::merger::Merger;
use super::observer::{Observer, Stage};
use super::rope::Rotary;
use crate::config::VisionConfig;
use crate::error::Result;

/// Epsilon of the tower's layer norms (`Qwen3VLVisionBlock`, `eps=1e-6`).
pub(super) const EPSILON: f64 = 1e-6;

/// Pixels of one patch to a vector. A convolution whose kernel is its stride is a product.
#[derive(Module, Debug)]
pub(super) struct PatchEmbed {
    /// `[C * T * p * p, Dv]`.
    pub proj: Linear,
}

/// Learned positions of a square grid, resampled to the picture's grid.
#[derive(Module, Debug)]
pub(super) struct PositionTable {
    /// `[side², Dv]`.
    pub weight: Param<Tensor<2>>,
}

/// One block: attention, then feed-forward, each behind a norm.
#[derive(Module, Debug)]
pub(super) struct VisionBlock {
    norm1: LayerNorm,
    norm2: LayerNorm,
    attn: VisionAttention,
    mlp: VisionMlp,
}

/// Full attention among the patches of one picture.
#[derive(Module, Debug)]
pub(super) struct VisionAttention {
    qkv: Linear,
    proj: Linear,
    num_heads: usize,
}

/// `fc2(gelu_tanh(fc1(x)))`.
#[derive(Module, Debug)]
pub(super) struct VisionMlp {
    linear_fc1: Linear,
    linear_fc2: Linear,
}

/// The whole tower.
#[derive(Module, Debug)]
pub struct VisionTower {
    patch_embed: PatchEmbed,
    pos_embed: PositionTable,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    deepstack_merger_list: Vec<Merger>,
    #[module(skip)]
    config: VisionConfig,
}

/// What the decoder sees of a picture.
#[derive(Debug, Clone)]
pub struct VisionFeatures {
    /// Picture tokens, `[B, N / merge², D]`.
    pub tokens: Tensor<3>,
    /// `DeepStack` features, one set for each of the decoder's first layers, same shape.
    pub deepstack: Vec<Tensor<3>>,
}

impl VisionTower {
    /// A tower of random parameters that come to life when first used.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let patch = config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size;
        Self {
            patch_embed: PatchEmbed { proj: Linear::new(patch, width, true, device) },
            pos_embed: PositionTable {
                weight: Initializer::Normal { mean: 0.0, std: 0.02 }
                    .init([config.num_position_embeddings, width], device),
            },
            blocks: (0..config.depth).map(|_| VisionBlock::new(config, device)).collect(),
            merger: Merger::before_shuffle(config, device),
            deepstack_merger_list: config
                .deepstack_visual_indexes
                .iter()
                .map(|_| Merger::after_shuffle(config, device))
                .collect(),
            config: config.clone(),
        }
    }

    /// Encodes pictures that share one grid.
    ///
    /// # Shapes
    /// - `patches`: `[B, N, C * T * p * p]` in merge-block order, `N = grid_hw[0] * grid_hw[1]`
    pub async fn forward(
        &self,
        patches: Tensor<3>,
        grid_hw: [usize; 2],
        observer: &impl Observer,
    ) -> Result<VisionFeatures> {
        let device = patches.device();
        let order = merge_block_order(grid_hw, self.config.spatial_merge_size);
        let rotary = Rotary::for_patches(&order, self.config.hidden_size / self.config.num_heads, &device);

        let mut hidden = self.patch_embed.proj.forward(patches);
        observer.stage(Stage::PatchEmbed, &hidden);
        hidden = hidden + self.pos_embed.resample(&order, grid_hw).unsqueeze();
        observer.stage(Stage::PosEmbed, &hidden);

        let mut deepstack = Vec::with_capacity(self.deepstack_merger_list.len());
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(hidden, &rotary);
            observer.stage(Stage::VisionBlock(index), &hidden);
            if let Some(k) = self.config.deepstack_visual_indexes.iter().position(|&tap| tap == index) {
                let features = self.deepstack_merger_list[k].forward(hidden.clone());
                observer.stage(Stage::DeepStack(k), &features);
                deepstack.push(features);
            }
            observer.between_layers().await?;
        }
        let tokens = self.merger.forward(hidden);
        observer.stage(Stage::Merger, &tokens);
        Ok(VisionFeatures { tokens, deepstack })
    }
}

impl VisionBlock {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || LayerNormConfig::new(width).with_epsilon(EPSILON).init(device);
        Self {
            norm1: norm(),
            norm2: norm(),
            attn: VisionAttention {
                qkv: Linear::new(width, 3 * width, true, device),
                proj: Linear::new(width, width, true, device),
                num_heads: config.num_heads,
            },
            mlp: VisionMlp {
                linear_fc1: Linear::new(width, config.intermediate_size, true, device),
                linear_fc2: Linear::new(config.intermediate_size, width, true, device),
            },
        }
    }

    /// # Shapes
    /// - input and output: `[B, N, Dv]`
    fn forward(&self, hidden: Tensor<3>, rotary: &Rotary) -> Tensor<3> {
        let hidden = hidden.clone() + self.attn.forward(self.norm1.forward(hidden), rotary);
        hidden.clone() + self.mlp.forward(self.norm2.forward(hidden))
    }
}

impl VisionAttention {
    fn forward(&self, hidden: Tensor<3>, rotary: &Rotary) -> Tensor<3> {
        let [_, _, width] = hidden.dims();
        let qkv = self.qkv.forward(hidden);
        let part = |index: usize| heads(qkv.clone().narrow(2, index * width, width), width / self.num_heads);
        let (query, key) = (rotary.apply(part(0)), rotary.apply(part(1)));
        self.proj.forward(attend(query, key, part(2), None))
    }
}

impl VisionMlp {
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.linear_fc2.forward(gelu_tanh(self.linear_fc1.forward(hidden)))
    }
}

impl PositionTable {
    /// Bilinear resampling with aligned corners, in merge-block order
    /// (`Qwen3VLVisionModel.fast_pos_embed_interpolate`).
    ///
    /// # Shapes
    /// - output: `[N, Dv]`
    fn resample(&self, order: &[[usize; 2]], grid_hw: [usize; 2]) -> Tensor<2> {
        let [rows, _] = self.weight.lazy_shape().dims();
        let side = rows.isqrt();
        let taps = |position: usize, length: usize| {
            let source = position as f32 * ((side - 1) as f32 / (length.max(2) - 1) as f32);
            let low = source as usize;
            let fraction = source - low as f32;
            [(low, 1.0 - fraction), ((low + 1).min(side - 1), fraction)]
        };
        let table = self.weight.val();
        let device = table.device();
        let gather = |vertical: usize, horizontal: usize| {
            let (indices, weights): (Vec<i32>, Vec<f32>) = order
                .iter()
                .map(|&[y, x]| {
                    let (row, row_weight) = taps(y, grid_hw[0])[vertical];
                    let (column, column_weight) = taps(x, grid_hw[1])[horizontal];
                    ((row * side + column) as i32, row_weight * column_weight)
                })
                .unzip();
            let n = order.len();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [n]), &device);
            let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, 1]), &device);
            table.clone().select(0, indices) * weights
        };
        gather(0, 0) + gather(0, 1) + gather(1, 0) + gather(1, 1)
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
