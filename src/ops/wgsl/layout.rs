//! A stored matrix as the words that `stored/*.wgsl` read: the file's own bytes in another order, never widened.

use crate::format::DType;
use crate::format::tensor::BLOCK;

/// How a matrix lies in its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Values from one row to the next.
    pub(crate) stride: usize,
    /// Words before the scales of all blocks, where these lie apart from the values.
    pub(crate) scales: usize,
}

/// Bytes of whole words, and how to read them, of a matrix `[rows, width]` stored as `dtype`.
///
/// Blocks that are no whole number of words are taken apart: all values first, then all scales. Rows of floats are
/// padded to whole vectors of four.
pub(crate) fn words(dtype: DType, [rows, width]: [usize; 2], stored: Vec<u8>) -> (Vec<u8>, Layout) {
    let whole = Layout { stride: width, scales: 0 };
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => padded(dtype.block_bytes(), [rows, width], stored),
        DType::Q4K | DType::Q5K => (stored, whole),
        DType::Q8_0 => apart(&stored, [2, BLOCK], Scale::First, whole),
        DType::Q4_0 => apart(&stored, [2, BLOCK / 2], Scale::First, whole),
        DType::Q6K => apart(&stored, [2, DType::Q6K.block_bytes() - 2], Scale::Last, whole),
    }
}

/// Bytes that [`words`] gives for a matrix `[rows, width]`.
pub(crate) fn n_bytes(dtype: DType, [rows, width]: [usize; 2]) -> usize {
    let blocks = rows * width / dtype.block_len();
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => rows * width.next_multiple_of(4) * dtype.block_bytes(),
        DType::Q4K | DType::Q5K => blocks * dtype.block_bytes(),
        DType::Q8_0 | DType::Q4_0 | DType::Q6K => {
            blocks * (dtype.block_bytes() - 2) + (2 * blocks).next_multiple_of(4)
        }
    }
}

/// Where a block has its scale.
#[derive(Clone, Copy)]
enum Scale {
    First,
    Last,
}

/// All values, then all scales, of blocks of so many bytes of each.
fn apart(stored: &[u8], [scale, values]: [usize; 2], place: Scale, layout: Layout) -> (Vec<u8>, Layout) {
    let blocks = stored.len() / (scale + values);
    let mut bytes = Vec::with_capacity(blocks * values + (blocks * scale).next_multiple_of(4));
    for block in stored.chunks_exact(scale + values) {
        bytes.extend_from_slice(match place {
            Scale::First => &block[scale..],
            Scale::Last => &block[..values],
        });
    }
    let scales = bytes.len() / 4;
    for block in stored.chunks_exact(scale + values) {
        bytes.extend_from_slice(match place {
            Scale::First => &block[..scale],
            Scale::Last => &block[values..],
        });
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    (bytes, Layout { scales, ..layout })
}

/// Rows of values of so many bytes, each row padded with zeros to a multiple of four values.
fn padded(value: usize, [rows, width]: [usize; 2], stored: Vec<u8>) -> (Vec<u8>, Layout) {
    let stride = width.next_multiple_of(4);
    let layout = Layout { stride, scales: 0 };
    if stride == width {
        return (stored, layout);
    }
    let mut bytes = Vec::with_capacity(rows * stride * value);
    for row in stored.chunks_exact(width * value) {
        bytes.extend_from_slice(row);
        bytes.resize(bytes.len() + (stride - width) * value, 0);
    }
    (bytes, layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::TensorInfo;

    #[test]
    fn words_take_what_is_said_and_lose_no_byte() -> crate::Result<()> {
        for dtype in DType::ALL {
            // An odd number of blocks, so that scales need padding; and rows of floats that fill no vector.
            for width in [dtype.block_len(), 3 * dtype.block_len(), 5 * dtype.block_len()] {
                let info = TensorInfo::new("x", dtype, vec![3, width])?;
                let stored: Vec<u8> = (0..info.len).map(|at| (at * 167 % 251 + 1) as u8).collect();
                let (bytes, layout) = words(dtype, [3, width], stored.clone());
                assert_eq!(bytes.len(), n_bytes(dtype, [3, width]), "{dtype} {width}");
                assert!(bytes.len().is_multiple_of(4) && layout.stride >= width, "{dtype} {width}");
                let sorted = |bytes: &[u8]| {
                    let mut kept: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
                    kept.sort_unstable();
                    kept
                };
                assert_eq!(sorted(&bytes), sorted(&stored), "{dtype} {width}");
            }
        }
        Ok(())
    }

    #[test]
    fn scales_follow_the_values_of_all_blocks() {
        let block = |scale: u8, value: u8| [[scale; 2].as_slice(), &[value; 32]].concat();
        let (bytes, layout) = words(DType::Q8_0, [1, 64], [block(1, 8), block(2, 9)].concat());
        assert_eq!(layout, Layout { stride: 64, scales: 16 });
        assert_eq!(bytes, [[8; 32].as_slice(), &[9; 32], &[1, 1, 2, 2]].concat());
    }
}
