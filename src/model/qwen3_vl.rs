//! The vision tower of Qwen3-VL (`Qwen3VLVisionModel`): a picture in one piece on a grid of its own shape,
//! positions resampled from a table and turned into rotations, features tapped on the way.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::checks::Checks;
use super::linear::linears;
use super::merger::Merger;
use super::observer::{Observer, Stage};
use super::rope::for_patches;
use super::vision::{Gelu, PatchEmbed, PositionTable, VisionBlock, VisionFeatures, merge_block_order};
use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::ops::check::Finish;

/// The whole tower.
#[derive(Module, Debug)]
pub struct Qwen3VlTower {
    patch_embed: PatchEmbed,
    pos_embed: PositionTable,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    deepstack_merger_list: Vec<Merger>,
    #[module(skip)]
    config: VisionConfig,
}

impl Qwen3VlTower {
    pub(super) fn new(config: &VisionConfig, device: &Device) -> Self {
        let block = |_| VisionBlock::new(config, Gelu::Tanh, None, device);
        let tapped = &config.deepstack_visual_indexes;
        Self {
            patch_embed: PatchEmbed::new(config, device),
            pos_embed: PositionTable::new(config, device),
            blocks: (0..config.depth).map(block).collect(),
            merger: Merger::before_shuffle(config, device),
            deepstack_merger_list: tapped.iter().map(|_| Merger::after_shuffle(config, device)).collect(),
            config: config.clone(),
        }
    }

    pub(super) async fn forward(
        &self,
        patches: Tensor<3>,
        [tiles, h, w]: [usize; 3],
        observer: &impl Observer,
    ) -> Result<VisionFeatures> {
        if tiles != 1 {
            return Err(Error::internal(format!("a picture of {tiles} tiles, expected 1")));
        }
        let (device, grid_hw) = (patches.device(), [h, w]);
        let order = merge_block_order(grid_hw, self.config.spatial_merge_size);
        let rotary = for_patches(&order, self.config.hidden_size / self.config.num_heads, &device);

        let mut hidden = self.patch_embed.proj.forward(patches);
        observer.stage(Stage::PatchEmbed, &hidden);
        hidden = hidden + self.pos_embed.resample(&order, grid_hw).unsqueeze();
        observer.stage(Stage::PosEmbed, &hidden);

        let mut deepstack = Vec::with_capacity(self.deepstack_merger_list.len());
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(hidden, Some(&rotary));
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

impl Qwen3VlTower {
    /// What a device has to show before it computes this.
    pub(super) fn checks(&self, checks: &mut Checks) {
        checks.linear(&self.patch_embed.proj, Finish::default());
        self.blocks.iter().for_each(|block| block.checks(true, checks));
        self.merger.checks(checks);
        self.deepstack_merger_list.iter().for_each(|merger| merger.checks(checks));
    }
}

linears!(Qwen3VlTower { patch_embed, blocks, merger, deepstack_merger_list });

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
