//! Types of stored tensors and the numbers that their bytes stand for.

pub(crate) mod kquant;
pub mod quant;
pub mod tensor;

pub use tensor::{DType, TensorInfo};
