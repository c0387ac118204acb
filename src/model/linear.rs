//! The one linear layer; precision is a property of its parameter.

use burn::module::{LoraAdapter, Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

/// `y = x W + b`.
///
/// The weight may be quantised or carry a low-rank adapter: both are properties
/// of the parameter, so there is no second layer type for them.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`; checkpoints store its transpose.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer of normal weights with deviation `1 / sqrt(d_in)`; parameters come to life when first used.
    pub fn new(d_in: usize, d_out: usize, bias: bool, device: &Device) -> Self {
        Self::with_gain(d_in, d_out, bias, 1.0, device)
    }

    /// The same with weights `gain` times as large.
    pub fn with_gain(d_in: usize, d_out: usize, bias: bool, gain: f64, device: &Device) -> Self {
        let initializer = Initializer::Normal { mean: 0.0, std: gain * (d_in as f64).powf(-0.5) };
        Self {
            weight: initializer.init([d_in, d_out], device),
            bias: bias.then(|| Initializer::Zeros.init([d_out], device)),
        }
    }

    /// Applies the layer to the last axis.
    ///
    /// The leading axes are folded into rows first: a quantised weight must not be
    /// reshaped, because some back ends would requantise it.
    ///
    /// # Shapes
    /// - input: `[.., d_in]`
    /// - output: `[.., d_out]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let mut dims = input.dims();
        let [d_in, d_out] = self.weight.lazy_shape().dims();
        let rows = dims.iter().product::<usize>() / d_in;
        let input = input.reshape([rows, d_in]);
        let mut output = match self.weight.adapter() {
            // Through the narrow middle: neither the sum of the matrices nor its gradient is ever made.
            Some(LoraAdapter { a, b, scale }) => {
                let change = input.clone().matmul(a.val()).matmul(b.val()) * *scale;
                input.matmul(self.weight.base()) + change
            }
            None => input.matmul(self.weight.val()),
        };
        if let Some(bias) = &self.bias {
            output = output + bias.val().reshape([1, d_out]);
        }
        dims[D - 1] = d_out;
        output.reshape(dims)
    }
}
