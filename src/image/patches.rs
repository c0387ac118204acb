//! From a picture to the rows that the vision tower reads.

use super::Picture;
use super::geometry::smart_resize;
use super::resize::{Filter, resize};
use crate::config::ImageConfig;
use crate::error::{Error, Result};

/// Most pixels after resizing, whatever a configuration allows: 2^25 pixels are 0.8 GB of patches.
const MAX_RESIZED_PIXELS: usize = 1 << 25;

/// Largest patch side, merge side and frame count: far above any published model's.
const MAX_PATCH_PARAMETER: usize = 1024;

/// A picture cut into flattened, normalised patches (`pixel_values` and `image_grid_thw` in transformers).
///
/// Rows come in merge-block order: block row, block column, row in the block,
/// column in the block, so that the patches of one token are neighbours. Columns
/// are channel, frame, y, x.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[n_rows, row_len]`, row-major.
    pub data: Vec<f32>,
    /// Patches along time, height and width; time is 1 for a picture.
    pub grid_thw: [usize; 3],
    /// Numbers in a row: 3 channels times frames times the patch's area.
    pub row_len: usize,
}

impl Patches {
    /// Number of patches.
    pub fn n_rows(&self) -> usize {
        self.grid_thw.iter().product()
    }

    /// Number of tokens when `merge_size` by `merge_size` patches make one.
    pub fn n_tokens(&self, merge_size: usize) -> usize {
        let [t, h, w] = self.grid_thw;
        let merge_size = merge_size.max(1);
        t * (h / merge_size) * (w / merge_size)
    }
}

/// Resizes, normalises and cuts a picture.
///
/// A level `x` becomes `(f32(x * rescale_factor) - f32(mean)) / f32(std)`, the
/// product in f64 and the rest in f32, which is what the Pillow processor of
/// transformers does; the values are equal to its bit for bit.
///
/// # Errors
/// The picture's aspect ratio is above 200 ([`Kind::Image`](crate::error::Kind::Image)); the
/// configuration has a zero, absurd or non-finite number, or leads to more
/// than 2^25 pixels ([`Kind::Model`](crate::error::Kind::Model)); the filter is
/// not supported.
///
/// Source: `Qwen2VLImageProcessorPil` and `image_transforms.py` in transformers 5.23.0.
pub fn preprocess(picture: &Picture, config: &ImageConfig) -> Result<Patches> {
    let ImageConfig { patch_size, merge_size, temporal_patch_size, .. } = *config;
    for (name, value) in
        [("patch_size", patch_size), ("merge_size", merge_size), ("temporal_patch_size", temporal_patch_size)]
    {
        if value == 0 || value > MAX_PATCH_PARAMETER {
            return Err(Error::model(format!("{name} is {value}, expected 1 to {MAX_PATCH_PARAMETER}")));
        }
    }
    let levels = levels(config)?;
    let filter = Filter::from_pillow(config.resample)?;
    let factor = patch_size * merge_size;
    let (height, width) =
        smart_resize(picture.height, picture.width, factor, config.min_pixels, config.max_pixels)?;
    let row_len = 3 * temporal_patch_size * patch_size * patch_size;
    let numbers = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3 * temporal_patch_size));
    if numbers.is_none_or(|numbers| numbers > MAX_RESIZED_PIXELS * 3 * 2) {
        return Err(Error::model(format!(
            "min_pixels {} and max_pixels {} ask for {width}x{height} pixels in {temporal_patch_size} frames, \
             more than the limit of {MAX_RESIZED_PIXELS} in 2",
            config.min_pixels, config.max_pixels
        )));
    }
    let resized = resize(picture, width, height, filter)?;
    let data = cut(&resized, &levels, config);
    Ok(Patches { data, grid_thw: [1, height / patch_size, width / patch_size], row_len })
}

/// What each of the 256 levels becomes, per channel.
fn levels(config: &ImageConfig) -> Result<[[f32; 256]; 3]> {
    let mut table = [[0.0; 256]; 3];
    for (channel, values) in table.iter_mut().enumerate() {
        let (mean, std) = (config.mean[channel] as f32, config.std[channel] as f32);
        for (level, value) in values.iter_mut().enumerate() {
            *value = ((level as f64 * config.rescale_factor) as f32 - mean) / std;
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::model(format!(
                "image_mean {}, image_std {} and rescale_factor {} do not give finite pixel values",
                config.mean[channel], config.std[channel], config.rescale_factor
            )));
        }
    }
    Ok(table)
}

/// The patches of a picture whose sides are multiples of patch times merge size.
fn cut(picture: &Picture, levels: &[[f32; 256]; 3], config: &ImageConfig) -> Vec<f32> {
    let ImageConfig { patch_size, merge_size, temporal_patch_size, .. } = *config;
    let block = patch_size * merge_size;
    let mut data = Vec::with_capacity(picture.rgb.len() * temporal_patch_size);
    for block_y in (0..picture.height).step_by(block) {
        for block_x in (0..picture.width).step_by(block) {
            for top in (block_y..block_y + block).step_by(patch_size) {
                for left in (block_x..block_x + block).step_by(patch_size) {
                    push_patch(&mut data, picture, levels, (top, left, config));
                }
            }
        }
    }
    data
}

/// Appends the row of the patch whose first pixel is at `(top, left)`.
fn push_patch(
    data: &mut Vec<f32>,
    picture: &Picture,
    levels: &[[f32; 256]; 3],
    (top, left, config): (usize, usize, &ImageConfig),
) {
    let patch_size = config.patch_size;
    for (channel, values) in levels.iter().enumerate() {
        let frame = data.len();
        for y in top..top + patch_size {
            let start = 3 * (y * picture.width + left);
            let row = &picture.rgb[start..start + 3 * patch_size];
            data.extend(row.iter().skip(channel).step_by(3).map(|&level| values[usize::from(level)]));
        }
        let area = frame..data.len();
        for _ in 1..config.temporal_patch_size {
            data.extend_from_within(area.clone());
        }
    }
}
