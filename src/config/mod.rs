//! Model configuration, parsed once from the checkpoint's own JSON.
//!
//! Every number names the key it comes from; nothing has a silent default that a
//! checkpoint could contradict. Files are `config.json` (the model),
//! `preprocessor_config.json` (the picture) and `imatch.json` (scoring options).
//!
//! - `ModelConfig::from_json` and `ImageConfig::from_json` read every form that
//!   published checkpoints use and refuse what contradicts itself;
//! - `to_json` writes one form that every version of transformers reads.
//!
//! What differs between families of models is in a file of each and in one row of
//! [`family`]'s table; the rest is shared.

mod decoder;
mod family;
mod image;
mod internvl;
mod json;
mod model;
mod qwen3_vl;

pub use family::Family;
pub(crate) use model::MAX_DEPTH;

/// How pictures become patches (`preprocessor_config.json`).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// Side of a square patch in pixels (`patch_size`).
    pub patch_size: usize,
    /// Frames that one patch spans (`temporal_patch_size`); a picture is repeated that often.
    pub temporal_patch_size: usize,
    /// Patches merged per side into one token (`merge_size`).
    pub merge_size: usize,
    /// Which pixels the patches are cut from.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Per-channel mean in [0, 1] (`image_mean`).
    pub mean: [f64; 3],
    /// Per-channel standard deviation in [0, 1] (`image_std`).
    pub std: [f64; 3],
    /// Factor that takes bytes to [0, 1] (`rescale_factor`, 1/255 where absent).
    pub rescale_factor: f64,
    /// Resampling filter as Pillow's number (`resample`): 1 Lanczos, 2 bilinear, 3 bicubic (where absent).
    pub resample: u8,
}

/// Which pixels of a picture the patches are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Geometry {
    /// The whole picture, nearly in its own shape.
    Scaled {
        /// Fewest pixels after resizing (`size.shortest_edge` or `min_pixels`).
        min_pixels: usize,
        /// Most pixels after resizing (`size.longest_edge` or `max_pixels`).
        max_pixels: usize,
    },
    /// Square tiles of the picture, squeezed to the grid nearest to its shape.
    Tiled(Tiles),
}

/// How a picture is cut into square tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tiles {
    /// Side of a tile in pixels (`size.height` and `size.width`; `force_image_size`).
    pub side: usize,
    /// Fewest tiles (`min_patches`; `min_dynamic_patch`), the thumbnail not counted.
    pub min_tiles: usize,
    /// Most tiles (`max_patches`; `max_dynamic_patch`), the thumbnail not counted.
    pub max_tiles: usize,
    /// Whether the whole picture follows as one more tile where there are several (`use_thumbnail`).
    pub thumbnail: bool,
}

/// The vision tower (`vision_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Number of blocks (`depth`).
    pub depth: usize,
    /// Width of the residual stream (`hidden_size`).
    pub hidden_size: usize,
    /// Width of the feed-forward part (`intermediate_size`).
    pub intermediate_size: usize,
    /// Attention heads (`num_heads`).
    pub num_heads: usize,
    /// Colour channels (`in_channels`), always 3.
    pub in_channels: usize,
    /// Side of a patch in pixels (`patch_size`).
    pub patch_size: usize,
    /// Frames that one patch spans (`temporal_patch_size`).
    pub temporal_patch_size: usize,
    /// Patches merged per side into one token (`spatial_merge_size`).
    pub spatial_merge_size: usize,
    /// Rows of the learned position table: a square number, and one more where there is a class token
    /// (`num_position_embeddings`; from `image_size` and `patch_size`).
    pub num_position_embeddings: usize,
    /// Whether queries, keys and values have a bias (`attention_bias`, `qkv_bias`).
    pub attention_bias: bool,
    /// Epsilon of the blocks' layer norms (`layer_norm_eps`).
    pub layer_norm_eps: f64,
    /// Blocks after which features are tapped for the decoder (`deepstack_visual_indexes`).
    pub deepstack_visual_indexes: Vec<usize>,
    /// Width of a merged token, the decoder's width (`out_hidden_size`).
    pub out_hidden_size: usize,
}

/// The decoder (`text_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding table (`vocab_size`), often padded beyond the tokenizer's.
    pub vocab_size: usize,
    /// Width of the residual stream (`hidden_size`).
    pub hidden_size: usize,
    /// Width of the feed-forward part (`intermediate_size`).
    pub intermediate_size: usize,
    /// Number of layers (`num_hidden_layers`).
    pub num_hidden_layers: usize,
    /// Query heads (`num_attention_heads`).
    pub num_attention_heads: usize,
    /// Key and value heads (`num_key_value_heads`).
    pub num_key_value_heads: usize,
    /// Width of one head (`head_dim`); heads times width need not equal `hidden_size`.
    pub head_dim: usize,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Whether every query and key head has a norm.
    pub qk_norm: bool,
    /// Epsilon of every RMS norm (`rms_norm_eps`).
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies (`rope_theta`).
    pub rope_theta: f64,
    /// Rotary frequencies per axis time, height, width (`mrope_section`); they sum to half of `head_dim`.
    /// All of them belong to the first axis where a picture's positions are those of a text.
    pub mrope_section: [usize; 3],
    /// Longest sequence (`max_position_embeddings`).
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding table (`tie_word_embeddings`, at the top or inside `text_config`).
    pub tie_word_embeddings: bool,
}

/// Ids of the tokens that surround and stand for a picture, as far as `config.json` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionTokens {
    /// The placeholder, one per merged token (`image_token_id`).
    pub image: u32,
    /// Its counterpart for video, never used (`video_token_id`).
    pub video: Option<u32>,
    /// Opens a picture (`vision_start_token_id`).
    pub start: Option<u32>,
    /// Closes a picture (`vision_end_token_id`).
    pub end: Option<u32>,
}

/// A whole vision-language model (`config.json`).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which parts it is made of.
    pub family: Family,
    /// `model_type` that the family is written with, for instance `qwen3_vl`.
    pub architecture: String,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The decoder.
    pub text: TextConfig,
    /// The picture's tokens.
    pub tokens: VisionTokens,
    /// How pictures are cut into tiles, where `config.json` says so and not `preprocessor_config.json`.
    pub tiles: Option<Tiles>,
}
