//! The vision-language model: tensors in, tensors out.
//!
//! ```text
//! patches -> VisionTower -> picture tokens + DeepStack features (of some families)
//!                              |
//! token rows -> [ text | picture tokens | text ] -> Decoder -> hidden -> answer logits
//! ```
//!
//! Legend for every shape in this folder: `B` sequences, `N` patches, `T` tokens of this
//! pass, `S` tokens seen (cached ones first), `H` heads, `Hkv` key heads, `Dh` width of a
//! head, `Dv` width of the vision tower, `D` width of the decoder.
//!
//! A family is a configuration of these parts, and a vision tower of its own made of them. Embedding table and output head are not
//! part of the module: only the rows of a prompt and of the answer tokens ever reach the
//! device.

mod checks;
mod decoder;
mod internvl;
mod linear;
mod merger;
mod observer;
mod positions;
mod qwen3_vl;
mod rope;
mod tower;
mod vision;

pub use decoder::{Decoder, DecoderInput, KvCache};
pub use linear::Linear;
pub use observer::{Observer, Phase, Stage};
pub use positions::token_positions;
pub use rope::for_tokens;
pub use tower::VisionTower;
pub use vision::VisionFeatures;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::ops::{Epilogue, Matrix, StoredMatrix, check_width, product};
use linear::{Linears, linears};

/// A vision-language model without its embedding table and head.
///
/// Parameter paths are the canonical names of tensors (`weights::names`).
#[derive(Module, Debug)]
pub struct VisionLanguageModel {
    /// Pictures to features.
    pub visual: VisionTower,
    /// Embeddings to hidden states.
    pub language_model: Decoder,
}

impl VisionLanguageModel {
    /// A model of random parameters that come to life when first used.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        Self { visual: VisionTower::new(config, device), language_model: Decoder::new(&config.text, device) }
    }

    /// Refuses a model that a device's kernels cannot compute.
    pub(crate) fn check_device(config: &ModelConfig, device: &Device) -> Result<()> {
        check_width(config.text.head_dim, device)?;
        check_width(config.vision.hidden_size / config.vision.num_heads, device)
    }

    /// Calls `visit` with every linear layer and the canonical name of its module.
    pub(crate) fn each_linear(&mut self, mut visit: impl FnMut(&str, &mut Linear)) {
        self.linears("", &mut visit);
    }
}

linears!(VisionLanguageModel { visual, language_model });

/// Logits of a few answer tokens only.
///
/// # Shapes
/// - `hidden`: `[Q, D]`, after the final norm
/// - `rows`: `[A, D]`, the output head's rows of the answer tokens
/// - output: `[Q, A]`
pub fn answer_logits(hidden: Tensor<2>, rows: &StoredMatrix) -> Tensor<2> {
    product(hidden, Matrix::Stored(rows), Epilogue::default())
}
