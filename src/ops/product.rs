//! Products of rows with a matrix, and what is done with the sums at once.

use burn::tensor::Tensor;

use super::composed;
use super::matrix::StoredMatrix;

/// The right side of a product.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// A parameter, `[d_in, d_out]`.
    Dense(&'a Tensor<2>),
    /// A matrix as it was stored, `[d_out, d_in]`.
    Stored(&'a StoredMatrix),
}

/// What becomes of the sums, in the order of the fields; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// Added to each row, `[d_out]`.
    pub bias: Option<Tensor<1>>,
    /// What is made of them.
    pub activation: Activation,
    /// Multiplied with each row, `[d_out]`.
    pub scale: Option<Tensor<1>>,
    /// Added, `[rows, d_out]`.
    pub residual: Option<Tensor<2>>,
}

impl Epilogue {
    /// Sums added to `residual`, whose leading axes are folded into rows.
    pub fn adding(residual: Tensor<3>) -> Self {
        Self { residual: Some(residual.flatten(0, 1)), ..Self::default() }
    }
}

/// What an epilogue makes of a sum `z`.
#[derive(Debug, Clone, Default)]
#[allow(clippy::large_enum_variant, reason = "it lives for one call")]
pub enum Activation {
    /// `z`.
    #[default]
    None,
    /// `gelu(z)`, by the error function.
    GeluErf,
    /// `gelu(z)` in its tanh form (`gelu_pytorch_tanh`).
    GeluTanh,
    /// `silu(gate) * z` with a gate `[rows, d_out]`.
    Gate(Tensor<2>),
}

/// `epilogue(x w)`.
///
/// # Shapes
/// - `x`: `[rows, d_in]`
/// - output: `[rows, d_out]`
pub fn product(x: Tensor<2>, matrix: Matrix<'_>, epilogue: Epilogue) -> Tensor<2> {
    #[cfg(feature = "kernels")]
    if let Matrix::Stored(stored) = matrix
        && let Some(words) = stored.words()
    {
        return super::wgsl::product(x, words, epilogue);
    }
    let sums = match matrix {
        Matrix::Dense(weight) => x.matmul(weight.clone()),
        Matrix::Stored(stored) => stored.multiply_decoded(&x),
    };
    composed::finish(sums, epilogue)
}
