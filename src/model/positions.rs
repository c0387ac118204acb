//! Positions of decoder tokens, as plain numbers.

use crate::config::{Family, ModelConfig};

/// Positions (time, height, width) of a sequence with one picture of `grid_thw` patches, and the
/// position of the token after the last.
///
/// Text advances all three axes by one a token. How a picture does is its family's business.
pub fn token_positions(ids: &[u32], config: &ModelConfig, grid_thw: [usize; 3]) -> (Vec<[usize; 3]>, usize) {
    match config.family {
        Family::Qwen3Vl => {
            let merged = [1, 2].map(|axis| grid_thw[axis] / config.vision.spatial_merge_size);
            spread(ids, config.tokens.image, merged)
        }
        Family::InternVl => ((0..ids.len()).map(|position| [position; 3]).collect(), ids.len()),
    }
}

/// Positions of a sequence in which every run of `image_token` is one picture of `grid_hw` merged
/// tokens (`Qwen3VLModel.get_rope_index`).
///
/// A picture keeps time at its start, spreads height and width over its merged grid, and moves the
/// text after it on by the longer side.
fn spread(ids: &[u32], image_token: u32, grid_hw: [usize; 2]) -> (Vec<[usize; 3]>, usize) {
    let [h, w] = grid_hw;
    let mut positions = Vec::with_capacity(ids.len());
    let mut next = 0;
    let mut index = 0;
    while index < ids.len() {
        if ids[index] == image_token && index + h * w <= ids.len() {
            positions.extend((0..h * w).map(|cell| [next, next + cell / w, next + cell % w]));
            next += h.max(w);
            index += h * w;
        } else {
            positions.push([next; 3]);
            next += 1;
            index += 1;
        }
    }
    (positions, next)
}
