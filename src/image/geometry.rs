//! Which size a picture is resized to.

use crate::config::Tiles;
use crate::error::{Error, Result};

/// Longest side over shortest side above which a picture is refused.
///
/// Source: `smart_resize` in transformers 5.23.0, `models/qwen2_vl/image_processing_pil_qwen2_vl.py`.
pub const MAX_ASPECT_RATIO: f64 = 200.0;

/// Height and width, both multiples of `factor`, nearest to the picture's own with
/// an area within `min_pixels..=max_pixels` and nearly the same aspect ratio.
///
/// Sides are rounded to the nearest multiple, halves to even as Python's `round`
/// does; only where that area is out of bounds are both sides scaled (rounded down
/// to shrink, up to grow). A side never shrinks below `factor`, so that a very
/// elongated picture may end above `max_pixels`.
///
/// # Errors
/// The aspect ratio is above [`MAX_ASPECT_RATIO`]; a side, `factor` or
/// `max_pixels` is zero; or the result would have a side of zero (only where
/// `min_pixels` is).
///
/// Source: as [`MAX_ASPECT_RATIO`].
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<(usize, usize)> {
    check_shape(height, width)?;
    if factor == 0 || max_pixels == 0 {
        return Err(Error::model(format!(
            "a resizing factor of {factor} with at most {max_pixels} pixels fits no picture"
        )));
    }
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let (mut h_bar, mut w_bar) = ((h / f).round_ties_even() * f, (w / f).round_ties_even() * f);
    if h_bar * w_bar > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        h_bar = f.max((h / beta / f).floor() * f);
        w_bar = f.max((w / beta / f).floor() * f);
    } else if h_bar * w_bar < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        h_bar = (h * beta / f).ceil() * f;
        w_bar = (w * beta / f).ceil() * f;
    }
    if h_bar < 1.0 || w_bar < 1.0 {
        return Err(Error::image(format!(
            "the picture of {width}x{height} pixels is too small for patches of {factor} pixels"
        )));
    }
    Ok((h_bar as usize, w_bar as usize))
}

/// Columns and rows of tiles whose shape is nearest to the picture's.
///
/// Grids of `min_tiles` to `max_tiles` tiles are tried in the order of their number, then of their
/// columns. Of two equally near ones the later is taken where the picture has more than half of
/// its pixels.
///
/// # Errors
/// The aspect ratio is above [`MAX_ASPECT_RATIO`] or a side is zero.
///
/// Source: `get_optimal_tiled_canvas` in transformers 5.23.0,
/// `models/got_ocr2/image_processing_pil_got_ocr2.py`.
pub fn tile_grid(height: usize, width: usize, tiles: &Tiles) -> Result<[usize; 2]> {
    check_shape(height, width)?;
    let Tiles { side, min_tiles, max_tiles, .. } = *tiles;
    let aspect = width as f64 / height as f64;
    let mut grids: Vec<[usize; 2]> = (1..=max_tiles)
        .flat_map(|columns| (1..=max_tiles / columns).map(move |rows| [columns, rows]))
        .filter(|[columns, rows]| columns * rows >= min_tiles)
        .collect();
    grids.sort_by_key(|[columns, rows]| columns * rows);
    let mut best = ([1, 1], f64::INFINITY);
    for grid in grids {
        let [columns, rows] = grid;
        let difference = (aspect - columns as f64 / rows as f64).abs();
        let is_large = (width * height) as f64 > 0.5 * (side * side * columns * rows) as f64;
        // Equal to the last bit, as in the source.
        let is_as_near = difference.total_cmp(&best.1).is_eq();
        if difference < best.1 || (is_as_near && is_large) {
            best = (grid, difference);
        }
    }
    Ok(best.0)
}

/// Refuses pictures that no size is right for.
fn check_shape(height: usize, width: usize) -> Result<()> {
    if height == 0 || width == 0 {
        return Err(Error::image(format!("the picture has no pixels: {width}x{height}")));
    }
    let aspect = height.max(width) as f64 / height.min(width) as f64;
    if aspect > MAX_ASPECT_RATIO {
        return Err(Error::image(format!(
            "the picture of {width}x{height} pixels has an aspect ratio of {aspect:.1}, above the limit of \
             {MAX_ASPECT_RATIO}"
        )));
    }
    Ok(())
}
