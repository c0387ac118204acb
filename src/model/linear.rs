//! The one linear layer; precision is a property of its weight.

use burn::module::{LoraAdapter, Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use crate::ops::{Epilogue, Matrix, StoredMatrix, finish, product};

/// `y = x W + b`.
///
/// The weight may carry a low-rank adapter, or lie on the device as it was stored: both are properties
/// of the weight, so there is no second layer type for them.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`; checkpoints store its transpose.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The weight as it was stored; the parameter is then never brought to life.
    #[module(skip)]
    stored: Option<StoredMatrix>,
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
            stored: None,
        }
    }

    /// `[d_in, d_out]`.
    pub fn widths(&self) -> [usize; 2] {
        self.weight.lazy_shape().dims()
    }

    /// Multiplies with `stored` from now on.
    pub fn store(&mut self, stored: StoredMatrix) {
        self.stored = Some(stored);
    }

    /// The weight as it was stored.
    pub(super) fn stored(&self) -> Option<&StoredMatrix> {
        self.stored.as_ref()
    }

    /// Applies the layer to the last axis.
    ///
    /// # Shapes
    /// - input: `[.., d_in]`
    /// - output: `[.., d_out]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_then(input, Epilogue::default())
    }

    /// Applies the layer to the last axis, and `epilogue`, whose bias is the layer's own, to its result.
    ///
    /// The leading axes are folded into rows first: a quantised weight must not be
    /// reshaped, because some back ends would requantise it.
    ///
    /// # Shapes
    /// - input: `[.., d_in]`
    /// - output: `[.., d_out]`
    pub fn forward_then<const D: usize>(&self, input: Tensor<D>, epilogue: Epilogue) -> Tensor<D> {
        let mut dims = input.dims();
        let [d_in, d_out] = self.widths();
        let rows = dims.iter().product::<usize>() / d_in;
        let input = input.reshape([rows, d_in]);
        let epilogue = Epilogue { bias: self.bias.as_ref().map(Param::val), ..epilogue };
        let base = |input: Tensor<2>, epilogue| match &self.stored {
            Some(stored) => product(input, Matrix::Stored(stored), epilogue),
            None => product(input, Matrix::Dense(&self.weight.base()), epilogue),
        };
        let output = match self.weight.adapter() {
            // Through the narrow middle: neither the sum of the matrices nor its gradient is ever made.
            Some(LoraAdapter { a, b, scale }) => {
                let change = input.clone().matmul(a.val()).matmul(b.val()) * *scale;
                finish(base(input, Epilogue::default()) + change, epilogue)
            }
            None => base(input, epilogue),
        };
        dims[D - 1] = d_out;
        output.reshape(dims)
    }
}

/// Every linear layer of a module, in any order.
pub(crate) trait Linears {
    /// Calls `visit` with each layer and the path of its fields below `path`, parted by dots.
    fn linears(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear));
}

impl Linears for Linear {
    fn linears(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
        visit(path, self);
    }
}

impl<T: Linears> Linears for Vec<T> {
    fn linears(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
        for (index, item) in self.iter_mut().enumerate() {
            item.linears(&format!("{path}.{index}"), visit);
        }
    }
}

/// Says which fields of a module have linear layers.
macro_rules! linears {
    ($module:ty { $($field:ident),* }) => {
        impl $crate::model::linear::Linears for $module {
            fn linears(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut $crate::model::Linear)) {
                let dot = if path.is_empty() { "" } else { "." };
                $(self.$field.linears(&format!("{path}{dot}{}", stringify!($field)), visit);)*
            }
        }
    };
}
pub(crate) use linears;
