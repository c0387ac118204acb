//! ggml's k-quants: super-blocks of 256 values whose block scales are quantised too. Read, never written.
//!
//! Source: `block_q4_K`, `block_q5_K`, `block_q6_K` in ggml-common.h, `get_scale_min_k4` and
//! `dequantize_row_*` in ggml-quants.c.

use half::f16;

use super::tensor::{DType, SUPER_BLOCK};

/// Values that share a scale and a minimum in `Q4_K` and `Q5_K`.
const SUB_BLOCK: usize = 32;

/// Bytes of the packed 6-bit scales and minima in `Q4_K` and `Q5_K`.
const PACKED_SCALES: usize = 12;

/// Where the f16 scales of a block lie, which must be finite.
pub(crate) const fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q6K => &[208],
        _ => &[0],
    }
}

/// The f16 at an offset.
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale and minimum of sub-block `index`, 6 bits each: the first four pairs lie in the low bits of
/// bytes 0 to 7, the others in bytes 8 to 11 with their upper two bits above those.
fn scale_and_minimum(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        return (packed[index] & 63, packed[index + 4] & 63);
    }
    let low = packed[index + 4];
    ((low & 15) | (packed[index - 4] >> 6) << 4, (low >> 4) | (packed[index] >> 6) << 4)
}

/// `x = d * scale * q - m * minimum`; `q` gives the quants of 32 values of sub-block `index`.
fn affine(block: &[u8], values: &mut Vec<f32>, quant: impl Fn(usize, usize) -> u8) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for index in 0..SUPER_BLOCK / SUB_BLOCK {
        let (s, m) = scale_and_minimum(&block[4..4 + PACKED_SCALES], index);
        let (step, base) = (scale * f32::from(s), minimum * f32::from(m));
        values.extend((0..SUB_BLOCK).map(|value| step * f32::from(quant(index, value)) - base));
    }
}

/// The nibble of a value: two sub-blocks share 32 bytes, the even one has the low halves.
fn nibble(quants: &[u8], index: usize, value: usize) -> u8 {
    quants[index / 2 * SUB_BLOCK + value] >> (4 * (index % 2)) & 15
}

/// Appends the values of one `Q4_K` block.
pub(super) fn q4_k(block: &[u8], values: &mut Vec<f32>) {
    let quants = &block[4 + PACKED_SCALES..];
    affine(block, values, |index, value| nibble(quants, index, value));
}

/// Appends the values of one `Q5_K` block: the fifth bits of sub-block `n` are bits `n` of 32 bytes.
pub(super) fn q5_k(block: &[u8], values: &mut Vec<f32>) {
    let (fifth, quants) = block[4 + PACKED_SCALES..].split_at(SUPER_BLOCK / 8);
    affine(block, values, |index, value| nibble(quants, index, value) | (fifth[value] >> index & 1) << 4);
}

/// Appends the values of one `Q6_K` block, `x = d * scale * (q - 32)`: in each half of 128 values, four
/// runs of 32 share 64 bytes of low nibbles and 32 bytes of upper bit pairs.
pub(super) fn q6_k(block: &[u8], values: &mut Vec<f32>) {
    let (low, rest) = block.split_at(SUPER_BLOCK / 2);
    let (high, rest) = rest.split_at(SUPER_BLOCK / 4);
    let scale = half(block, scale_offsets(DType::Q6K)[0]);
    for value in 0..SUPER_BLOCK {
        let (part, run, at) = (value / 128, value % 128 / 32, value % 32);
        let nibble = low[64 * part + 32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
        let pair = high[32 * part + at] >> (2 * run) & 3;
        let step = scale * f32::from(rest[value / 16].cast_signed());
        values.push(step * (f32::from(nibble | pair << 4) - 32.0));
    }
}
