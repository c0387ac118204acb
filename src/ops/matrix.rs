//! Matrices as they were stored, on the device that multiplies with them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::format::quant::decode_blocks;
use crate::format::{DType, TensorInfo};

/// Most decoded values at a time on the CPU, 16 MiB of them.
const DECODED: usize = 4 << 20;

/// A matrix `[d_out, d_in]` in the bytes of its file: a linear weight, or rows of a table.
#[derive(Debug, Clone)]
pub struct StoredMatrix {
    dtype: DType,
    shape: [usize; 2],
    bytes: Place,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
enum Place {
    /// In host memory, in the file's own order.
    Host { bytes: Arc<Vec<u8>>, device: Device },
    /// On the CPU, `[d_in, d_out]`: what is stored in f32 needs no decoding.
    Decoded(Tensor<2>),
    /// On a GPU, as the words that its kernels read.
    #[cfg(feature = "kernels")]
    Gpu(super::wgsl::Words),
}

impl StoredMatrix {
    /// Whether matrices of this device stay as stored. On others (CUDA) they become parameters.
    pub fn suits(device: &Device) -> bool {
        #[cfg(feature = "kernels")]
        if super::wgsl::runs_on(device) {
            return true;
        }
        *device == Device::flex()
    }

    /// Brings stored bytes to a device: to a GPU that runs WGSL as words, to the CPU as they are.
    ///
    /// # Errors
    /// Where the tensor is no matrix, or bytes are missing.
    pub fn new(info: &TensorInfo, bytes: Vec<u8>, device: &Device) -> Result<Self> {
        let shape = <[usize; 2]>::try_from(info.shape.as_slice()).map_err(|_| {
            Error::model(format!("tensor {} has shape {:?}, expected a matrix", info.name, info.shape))
        })?;
        if bytes.len() as u64 != info.len {
            return Err(Error::model(format!(
                "tensor {} has {} bytes, expected {}",
                info.name,
                bytes.len(),
                info.len
            )));
        }
        #[cfg(feature = "kernels")]
        if super::wgsl::runs_on(device) {
            let words = super::wgsl::Words::new(info.dtype, shape, bytes, device);
            return Ok(Self { dtype: info.dtype, shape, bytes: Place::Gpu(words) });
        }
        let bytes = if info.dtype == DType::F32 {
            let values = TensorData::new(decode_blocks(info.dtype, &bytes), shape);
            Place::Decoded(Tensor::<2>::from_data(values, device).transpose())
        } else {
            Place::Host { bytes: Arc::new(bytes), device: device.clone() }
        };
        Ok(Self { dtype: info.dtype, shape, bytes })
    }

    /// A matrix of which only type and shape are known, which nothing can be multiplied with.
    pub fn planned(dtype: DType, shape: [usize; 2], device: &Device) -> Self {
        Self { dtype, shape, bytes: Place::Host { bytes: Arc::default(), device: device.clone() } }
    }

    /// Rows of numbers, `[d_out, d_in]`.
    ///
    /// # Errors
    /// Where `values` do not fill the shape.
    pub fn from_values(values: &[f32], shape: [usize; 2], device: &Device) -> Result<Self> {
        let info = TensorInfo::new("rows", DType::F32, shape.to_vec())?;
        Self::new(&info, values.iter().flat_map(|value| value.to_le_bytes()).collect(), device)
    }

    /// How its values are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[d_out, d_in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The words on a GPU.
    #[cfg(feature = "kernels")]
    pub(super) fn words(&self) -> Option<&super::wgsl::Words> {
        match &self.bytes {
            Place::Gpu(words) => Some(words),
            Place::Host { .. } | Place::Decoded(_) => None,
        }
    }

    /// `x wᵗ` on the host: some rows at a time are decoded and multiplied.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    /// - output: `[rows, d_out]`
    pub(super) fn multiply_decoded(&self, x: &Tensor<2>) -> Tensor<2> {
        let [d_out, d_in] = self.shape;
        let (bytes, device) = match &self.bytes {
            Place::Host { bytes, device } => (bytes, device),
            Place::Decoded(matrix) => return x.clone().matmul(matrix.clone()),
            #[cfg(feature = "kernels")]
            Place::Gpu(_) => unreachable!("the words of a GPU are multiplied there"),
        };
        let row = bytes.len() / d_out;
        let step = (DECODED / d_in).max(1);
        let parts = bytes.chunks(step * row).map(|bytes| {
            let rows = bytes.len() / row;
            let decoded = TensorData::new(decode_blocks(self.dtype, bytes), [rows, d_in]);
            x.clone().matmul(Tensor::from_data(decoded, device).transpose())
        });
        match parts.collect::<Vec<_>>() {
            mut one if one.len() == 1 => one.remove(0),
            parts => Tensor::cat(parts, 1),
        }
    }
}
