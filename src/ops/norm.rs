//! Norms of rows.

use burn::nn::{LayerNorm, RmsNorm};
use burn::tensor::Tensor;

/// `x / sqrt(mean(x²) + epsilon) * gamma`, row by row.
///
/// # Shapes
/// - input and output: `[.., D]`
pub fn rms_norm<const N: usize>(norm: &RmsNorm, x: Tensor<N>) -> Tensor<N> {
    #[cfg(feature = "kernels")]
    if let Some(normed) = super::wgsl::rms_norm(&x, &norm.gamma.val(), norm.epsilon) {
        return normed;
    }
    norm.forward(x)
}

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, row by row. `epsilon` is the norm's own, which burn keeps
/// to itself.
///
/// # Shapes
/// - input and output: `[.., D]`
pub fn layer_norm<const N: usize>(norm: &LayerNorm, epsilon: f64, x: Tensor<N>) -> Tensor<N> {
    #[cfg(feature = "kernels")]
    if let Some(beta) = &norm.beta
        && let Some(normed) = super::wgsl::layer_norm(&x, [&norm.gamma.val(), &beta.val()], epsilon)
    {
        return normed;
    }
    #[cfg(not(feature = "kernels"))]
    let _ = epsilon;
    norm.forward(x)
}
