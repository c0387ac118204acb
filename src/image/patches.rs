//! From a picture to the rows that the vision tower reads.

use super::Picture;
use super::geometry::{smart_resize, tile_grid};
use super::resize::{Filter, resize};
use crate::config::{Geometry, ImageConfig, Tiles};
use crate::error::{Error, Result};

/// Most pixels after resizing, whatever a configuration allows: 2^25 pixels are 0.8 GB of patches.
const MAX_RESIZED_PIXELS: usize = 1 << 25;

/// Largest patch side, merge side and frame count: far above any published model's.
const MAX_PATCH_PARAMETER: usize = 1024;

/// A picture cut into flattened, normalised patches (`pixel_values` and `image_grid_thw` in transformers).
///
/// Rows come tile by tile and in merge-block order: block row, block column, row in
/// the block, column in the block, so that the patches of one token are neighbours.
/// Columns are channel, frame, y, x.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[n_rows, row_len]`, row-major.
    pub data: Vec<f32>,
    /// Tiles, and patches along the height and width of each; 1 tile for a picture in one piece.
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
    let grid_thw = grid(picture, config)?;
    let row_len = 3 * temporal_patch_size * patch_size * patch_size;
    let [width, height] = [grid_thw[2] * patch_size, grid_thw[1] * patch_size];
    let numbers = height
        .checked_mul(width)
        .and_then(|pixels| pixels.checked_mul(3 * temporal_patch_size))
        .and_then(|numbers| numbers.checked_mul(grid_thw[0]));
    if numbers.is_none_or(|numbers| numbers > MAX_RESIZED_PIXELS * 3 * 2) {
        return Err(Error::model(format!(
            "the configuration asks for {} times {width}x{height} pixels in {temporal_patch_size} frames, \
             more than the limit of {MAX_RESIZED_PIXELS} in 2",
            grid_thw[0]
        )));
    }
    let mut data = Vec::with_capacity(grid_thw.iter().product::<usize>() * row_len);
    match &config.geometry {
        Geometry::Scaled { .. } => cut(&mut data, &resize(picture, width, height, filter)?, &levels, config),
        Geometry::Tiled(tiles) => {
            for tile in self::tiles(picture, tiles, filter)? {
                cut(&mut data, &tile, &levels, config);
            }
        }
    }
    Ok(Patches { data, grid_thw, row_len })
}

/// What [`Patches::grid_thw`] will be.
///
/// # Errors
/// As [`preprocess`], as far as the picture's shape is concerned.
pub fn grid(picture: &Picture, config: &ImageConfig) -> Result<[usize; 3]> {
    let ImageConfig { patch_size, merge_size, .. } = *config;
    match config.geometry {
        Geometry::Scaled { min_pixels, max_pixels } => {
            let factor = patch_size * merge_size;
            let (height, width) =
                smart_resize(picture.height, picture.width, factor, min_pixels, max_pixels)?;
            Ok([1, height / patch_size, width / patch_size])
        }
        Geometry::Tiled(tiles) => {
            let Tiles { side, min_tiles, max_tiles, thumbnail } = tiles;
            let fits = side > 0 && side.is_multiple_of(patch_size * merge_size);
            if !fits || min_tiles == 0 || min_tiles > max_tiles || max_tiles > MAX_PATCH_PARAMETER {
                return Err(Error::model(format!(
                    "{min_tiles} to {max_tiles} tiles with sides of {side} pixels, expected 1 to \
                     {MAX_PATCH_PARAMETER} with sides of a multiple of {}",
                    patch_size * merge_size
                )));
            }
            let [columns, rows] = tile_grid(picture.height, picture.width, &tiles)?;
            let thumbnail = usize::from(thumbnail && columns * rows > 1);
            Ok([columns * rows + thumbnail, side / patch_size, side / patch_size])
        }
    }
}

/// The tiles of a picture row by row, the whole picture last where there are several.
///
/// Source: `GotOcr2ImageProcessorPil.crop_image_to_patches` in transformers 5.23.0.
fn tiles(picture: &Picture, tiles: &Tiles, filter: Filter) -> Result<Vec<Picture>> {
    let Tiles { side, thumbnail, .. } = *tiles;
    let [columns, rows] = tile_grid(picture.height, picture.width, tiles)?;
    let canvas = resize(picture, columns * side, rows * side, filter)?;
    let mut pieces = Vec::with_capacity(columns * rows + 1);
    for top in (0..canvas.height).step_by(side) {
        for left in (0..canvas.width).step_by(side) {
            let row = |y: usize| &canvas.rgb[3 * (y * canvas.width + left)..][..3 * side];
            let rgb = (top..top + side).flat_map(row).copied().collect();
            pieces.push(Picture { width: side, height: side, rgb });
        }
    }
    if thumbnail && pieces.len() > 1 {
        pieces.push(resize(picture, side, side, filter)?);
    }
    Ok(pieces)
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

/// Appends the patches of a picture whose sides are multiples of patch times merge size.
fn cut(data: &mut Vec<f32>, picture: &Picture, levels: &[[f32; 256]; 3], config: &ImageConfig) {
    let ImageConfig { patch_size, merge_size, .. } = *config;
    let block = patch_size * merge_size;
    for block_y in (0..picture.height).step_by(block) {
        for block_x in (0..picture.width).step_by(block) {
            for top in (block_y..block_y + block).step_by(patch_size) {
                for left in (block_x..block_x + block).step_by(patch_size) {
                    push_patch(data, picture, levels, (top, left, config));
                }
            }
        }
    }
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
