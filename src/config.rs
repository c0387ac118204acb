//! Model configuration, parsed once from the checkpoint's own JSON.
//!
//! Every number names the key it comes from; nothing has a silent default that a
//! checkpoint could contradict. Files are `config.json` (the model),
//! `preprocessor_config.json` (the picture) and `imatch.json` (scoring options).

/// How pictures become patches (`preprocessor_config.json`).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// Side of a square patch in pixels (`patch_size`).
    pub patch_size: usize,
    /// Frames that one patch spans (`temporal_patch_size`); a picture is repeated that often.
    pub temporal_patch_size: usize,
    /// Patches merged per side into one token (`merge_size`).
    pub merge_size: usize,
    /// Fewest pixels after resizing (`size.shortest_edge` or `min_pixels`).
    pub min_pixels: usize,
    /// Most pixels after resizing (`size.longest_edge` or `max_pixels`).
    pub max_pixels: usize,
    /// Per-channel mean in [0, 1] (`image_mean`).
    pub mean: [f64; 3],
    /// Per-channel standard deviation in [0, 1] (`image_std`).
    pub std: [f64; 3],
    /// Factor that takes bytes to [0, 1] (`rescale_factor`, 1/255 where absent).
    pub rescale_factor: f64,
    /// Resampling filter as Pillow's number (`resample`): 1 Lanczos, 2 bilinear, 3 bicubic (where absent).
    pub resample: u8,
}
