//! The vision tower of `InternVL` (`InternVLVisionModel` with `InternVLMultiModalProjector`): square tiles on
//! one fixed grid, each behind a class token.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::checks::Checks;
use super::linear::linears;
use super::merger::Merger;
use super::observer::{Observer, Stage};
use super::vision::{Gelu, PatchEmbed, PositionTable, VisionBlock, VisionFeatures, merge_block_order};
use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::ops::check::Finish;

/// What layer scales start with (`InternVLVisionConfig.layer_scale_init_value`).
const LAYER_SCALE: f64 = 0.1;

/// The whole tower and the projector behind it.
#[derive(Module, Debug)]
pub struct InternVlTower {
    patch_embed: PatchEmbed,
    /// `[Dv]`.
    cls_token: Param<Tensor<1>>,
    pos_embed: PositionTable,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    #[module(skip)]
    config: VisionConfig,
}

impl InternVlTower {
    pub(super) fn new(config: &VisionConfig, device: &Device) -> Self {
        let block = |_| VisionBlock::new(config, Gelu::Erf, Some(LAYER_SCALE), device);
        Self {
            patch_embed: PatchEmbed::new(config, device),
            cls_token: Initializer::Zeros.init([config.hidden_size], device),
            pos_embed: PositionTable::new(config, device),
            blocks: (0..config.depth).map(block).collect(),
            merger: Merger::projector(config, device),
            config: config.clone(),
        }
    }

    /// Tiles go through the tower one after the other: the attention of one is what a browser's device can hold.
    pub(super) async fn forward(
        &self,
        patches: Tensor<3>,
        grid_thw: [usize; 3],
        observer: &impl Observer,
    ) -> Result<VisionFeatures> {
        let [tiles, h, w] = grid_thw;
        if h * w + 1 != self.config.num_position_embeddings {
            return Err(Error::internal(format!(
                "tiles of {h} by {w} patches, but {} positions",
                self.config.num_position_embeddings
            )));
        }
        let positions = self.positions([h, w]);
        let mut tokens = Vec::with_capacity(tiles);
        for tile in 0..tiles {
            let patches = patches.clone().narrow(1, tile * h * w, h * w);
            tokens.push(self.encode(patches, positions.clone(), observer).await?);
        }
        Ok(VisionFeatures { tokens: Tensor::cat(tokens, 1), deepstack: Vec::new() })
    }

    /// # Shapes
    /// - `patches`: `[B, N, C * p * p]`
    /// - `positions`: `[1, 1 + N, Dv]`
    /// - output: `[B, N / merge², D]`
    async fn encode(
        &self,
        patches: Tensor<3>,
        positions: Tensor<3>,
        observer: &impl Observer,
    ) -> Result<Tensor<3>> {
        let mut hidden = self.patch_embed.proj.forward(patches);
        observer.stage(Stage::PatchEmbed, &hidden);
        let [b, n, width] = hidden.dims();
        let class = self.cls_token.val().unsqueeze::<3>().repeat_dim(0, b);
        hidden = Tensor::cat(vec![class, hidden], 1) + positions;
        observer.stage(Stage::PosEmbed, &hidden);
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(hidden, None);
            observer.stage(Stage::VisionBlock(index), &hidden);
            observer.between_layers().await?;
        }
        // In merge-block order the patches of a token are neighbours: the pixel shuffle is a change of shape
        // (`InternVLModel.pixel_shuffle`), and the class token has no part in it.
        let merge = self.config.spatial_merge_size.pow(2);
        let shuffled = hidden.narrow(1, 1, n).reshape([b, n / merge, merge * width]);
        observer.stage(Stage::PixelShuffle, &shuffled);
        let tokens = self.merger.forward(shuffled);
        observer.stage(Stage::Merger, &tokens);
        Ok(tokens)
    }

    /// Positions of the class token and of the patches in merge-block order, `[1, 1 + N, Dv]`.
    fn positions(&self, [h, w]: [usize; 2]) -> Tensor<3> {
        let patches = merge_block_order([h, w], self.config.spatial_merge_size);
        let rows: Vec<i32> =
            std::iter::once(0).chain(patches.iter().map(|&[y, x]| (1 + y * w + x) as i32)).collect();
        let table = self.pos_embed.weight.val();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [1 + h * w]), &table.device());
        table.select(0, rows).unsqueeze()
    }
}

impl InternVlTower {
    /// What a device has to show before it computes this.
    pub(super) fn checks(&self, checks: &mut Checks) {
        checks.linear(&self.patch_embed.proj, Finish::default());
        self.blocks.iter().for_each(|block| block.checks(false, checks));
        self.merger.checks(checks);
    }
}

linears!(InternVlTower { patch_embed, blocks, merger });
