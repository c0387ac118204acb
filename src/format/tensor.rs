//! What a stored tensor is: name, type, shape, place; nothing about its meaning.

use crate::{Error, Result};

/// Values of one quantisation block in [`DType::Q8_0`] and [`DType::Q4_0`].
///
/// Source: `QK8_0` and `QK4_0` in ggml-common.h.
pub const BLOCK: usize = 32;

/// Values of one block of the k-quants (`QK_K` in ggml-common.h).
pub const SUPER_BLOCK: usize = 256;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision, little-endian.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// Blocks of 32: an f16 scale `d`, 32 signed bytes `q`; `x = d * q`. 34 bytes.
    Q8_0,
    /// Blocks of 32: an f16 scale `d`, 16 bytes of two 4-bit `q` (values 0..16 in the low,
    /// 16..32 in the high halves); `x = d * (q - 8)`. 18 bytes.
    Q4_0,
    /// Blocks of 256: f16 scales `d` and `m`, eight 6-bit pairs, 4-bit `q`; see [`super::kquant`]. 144 bytes.
    Q4K,
    /// The same with 5-bit `q`. 176 bytes.
    Q5K,
    /// Blocks of 256: 6-bit `q`, sixteen signed scales, an f16 scale `d`. 210 bytes.
    Q6K,
}

impl DType {
    /// Every type, in declaration order.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q5K, Self::Q6K];

    /// The lower-case name, as in file names and `--quant`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// The type of that [`DType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Values that are stored together; a row holds a whole number of them.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 => BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER_BLOCK,
        }
    }

    /// Bytes of [`DType::block_len`] values.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q4K => 2 + 2 + 12 + SUPER_BLOCK / 2,
            Self::Q5K => 2 + 2 + 12 + SUPER_BLOCK / 2 + SUPER_BLOCK / 8,
            Self::Q6K => SUPER_BLOCK / 2 + SUPER_BLOCK / 4 + 16 + 2,
        }
    }

    /// Whether values share a scale.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of `values` values in whole blocks; `None` where they do not fill blocks or
    /// the count leaves 64 bits.
    pub const fn byte_len(self, values: u64) -> Option<u64> {
        if !values.is_multiple_of(self.block_len() as u64) {
            return None;
        }
        (values / self.block_len() as u64).checked_mul(self.block_bytes() as u64)
    }

    /// The type that `shape` is really stored in when `self` is asked for: vectors
    /// (norms, biases) stay `F32`, rows that are no whole number of blocks become `F16`.
    pub fn storable(self, shape: &[usize]) -> Self {
        match shape {
            [] | [_] => Self::F32,
            [.., row] if !row.is_multiple_of(self.block_len()) => Self::F16,
            _ => self,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor and where it lies in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How values are stored.
    pub dtype: DType,
    /// Sizes in the order of `PyTorch`: the last one is contiguous.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl TensorInfo {
    /// A tensor that has no place yet.
    ///
    /// # Errors
    /// When the shape does not fill whole blocks or its size leaves 64 bits.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Vec<usize>) -> Result<Self> {
        let name = name.into();
        let len = stored_len(dtype, &shape).ok_or_else(|| {
            Error::model(format!("tensor {} of shape {shape:?} cannot be stored as {dtype}", shown(&name)))
        })?;
        Ok(Self { name, dtype, shape, offset: 0, len })
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one row, that is of one run along the last dimension.
    pub fn row_bytes(&self) -> usize {
        let rows: usize = self.shape.iter().rev().skip(1).product();
        if rows == 0 { 0 } else { (self.len / rows as u64) as usize }
    }
}

/// Bytes of a tensor; `None` where rows do not fill blocks or a size leaves 64 bits
/// (on wasm: values leave 32 bits).
pub fn stored_len(dtype: DType, shape: &[usize]) -> Option<u64> {
    let row = shape.last().copied().unwrap_or(1);
    let values = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    row.is_multiple_of(dtype.block_len()).then_some(())?;
    dtype.byte_len(values as u64)
}

/// A name for an error message: printable and at most 80 characters.
pub(crate) fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() { format!("{short}...") } else { short }
}

/// Refuses ranges that overlap; `tensors` come in any order.
///
/// # Errors
/// Names the two tensors.
pub(crate) fn check_disjoint(tensors: &[TensorInfo]) -> Result<()> {
    let mut order: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.len > 0).collect();
    order.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].len > pair[1].offset {
            return Err(Error::model(format!(
                "tensors {} and {} overlap",
                shown(&pair[0].name),
                shown(&pair[1].name)
            )));
        }
    }
    Ok(())
}
