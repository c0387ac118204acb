//! The forms of an operation compared: on a device, and by burn's operations on the CPU, with the same operands.

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use super::{
    Activation, Epilogue, Heads, KeyValues, Matrix, Projected, Rotary, SHARED, Seen, StoredMatrix, add_rows,
    attend_cached, attend_joint, layer_norm, product, rms_norm,
};
use crate::error::{Error, Kind, Result};
use crate::format::kquant::scale_offsets;
use crate::format::{DType, TensorInfo};

/// Largest difference of the two forms, divided by the largest value: f32 sums in another order stay far below.
pub const TOLERANCE: f32 = 1e-4;

const EPSILON: f64 = 1e-6;

/// An operation and the sizes that it is compared at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// [`product`] with a stored matrix `[d_out, d_in]`.
    Product {
        /// Name of the type that the matrix is stored in.
        stored: String,
        /// Rows of the left side.
        rows: usize,
        /// Columns of the left side.
        d_in: usize,
        /// Columns of the result.
        d_out: usize,
        /// What is done with the sums.
        #[serde(default)]
        finish: Finish,
    },
    /// [`rms_norm`] or [`layer_norm`].
    Norm {
        /// Which.
        layer: bool,
        /// Rows.
        rows: usize,
        /// Their width.
        width: usize,
    },
    /// [`attend_joint`] of `tokens` patches.
    Joint {
        /// Heads.
        heads: usize,
        /// Width of a head.
        width: usize,
        /// Patches.
        tokens: usize,
        /// Whether heads turn.
        turned: bool,
    },
    /// [`attend_cached`]: a pass that fills the cache, and one behind it.
    Cached {
        /// Heads of queries.
        heads: usize,
        /// Heads of keys.
        key_heads: usize,
        /// Width of a head.
        width: usize,
        /// Whether heads are normed.
        normed: bool,
        /// Tokens of the first pass, which all others see.
        past: usize,
        /// Tokens of each segment of the second pass.
        segments: Vec<usize>,
    },
    /// [`add_rows`].
    AddRows {
        /// Rows.
        rows: usize,
        /// Their width.
        width: usize,
        /// The first that something is added to.
        start: usize,
        /// How many.
        features: usize,
    },
}

/// An [`Epilogue`] without its operands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finish {
    /// A bias is added.
    pub bias: bool,
    /// What is made of the sum.
    pub made: Made,
    /// It is multiplied with a scale.
    pub scale: bool,
    /// It is added to a residual.
    pub residual: bool,
}

/// An [`Activation`] without its operands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// Nothing.
    #[default]
    None,
    /// GELU by the error function.
    GeluErf,
    /// GELU by the hyperbolic tangent.
    GeluTanh,
    /// A product with a gate.
    Gate,
}

impl Check {
    /// Runs both forms and gives their largest difference, divided by the largest value.
    ///
    /// # Errors
    /// [`Kind::SelfTest`] where the difference is larger than [`TOLERANCE`] or no number; what the device says.
    pub async fn run(&self, device: &Device) -> Result<f32> {
        let got = read(self.outputs(device)?).await?;
        let want = read(self.outputs(&Device::flex())?).await?;
        let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let mut difference = 0.0;
        for (index, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = (got - want).abs() / largest;
            // Not a number is larger than nothing, so it is asked for.
            if off.is_nan() || off > TOLERANCE {
                return Err(Error::new(
                    Kind::SelfTest,
                    format!("{self:?} is {got} at value {index}, expected {want}"),
                ));
            }
            difference = off.max(difference);
        }
        if got.len() == want.len() {
            Ok(difference)
        } else {
            Err(Error::new(
                Kind::SelfTest,
                format!("{self:?} gave {} values, expected {}", got.len(), want.len()),
            ))
        }
    }

    /// The same kernels with as little work as they do.
    pub fn smallest(self) -> Self {
        // Widths decide whether rows are read as whole vectors of four.
        let width = |width: usize| if width.is_multiple_of(4) { 4 } else { 1 };
        match self {
            Self::Product { stored, rows, d_in, d_out, finish } => {
                let block = DType::from_name(&stored).map_or(1, DType::block_len);
                Self::Product { d_in: block.max(width(d_in)), d_out: width(d_out), stored, rows, finish }
            }
            Self::Norm { layer, width: all, .. } => Self::Norm { layer, rows: 1, width: width(all) },
            Self::Joint { width, turned, .. } => Self::Joint { heads: 1, width, tokens: 1, turned },
            Self::Cached { width, normed, .. } => {
                Self::Cached { heads: 1, key_heads: 1, width, normed, past: 1, segments: vec![1] }
            }
            Self::AddRows { width: all, .. } => {
                Self::AddRows { rows: 1, width: width(all), start: 0, features: 1 }
            }
        }
    }

    fn outputs(&self, device: &Device) -> Result<Vec<Tensor<1>>> {
        let mut operands = Operands { state: 0x9e37_79b9, device };
        match *self {
            Self::Product { ref stored, rows, d_in, d_out, finish } => {
                let dtype = DType::from_name(stored)
                    .ok_or_else(|| Error::input(format!("{stored} is no type of stored values")))?;
                let x = operands.tensor([rows, d_in]);
                let matrix = operands.matrix(dtype, [d_out, d_in])?;
                let epilogue = operands.epilogue(finish, [rows, d_out]);
                Ok(vec![product(x, Matrix::Stored(&matrix), epilogue).flatten(0, 1)])
            }
            Self::Norm { layer, rows, width } => {
                // Far from zero, where a careless variance is lost.
                let x = operands.tensor([rows, width]) + 3.0;
                let normed = if layer {
                    layer_norm(&operands.layer_norm(width), EPSILON, x)
                } else {
                    rms_norm(&operands.rms_norm(width), x)
                };
                Ok(vec![normed.flatten(0, 1)])
            }
            Self::Joint { heads, width, tokens, turned } => {
                let qkv = operands.tensor([1, tokens, 3 * heads * width]) * 2.0;
                let rotary = turned.then(|| operands.rotary(tokens, width));
                Ok(vec![attend_joint(qkv, width, rotary.as_ref()).flatten(0, 2)])
            }
            Self::Cached { heads, key_heads, width, normed, past, ref segments } => {
                let norms = normed.then(|| [operands.rms_norm(width), operands.rms_norm(width)]);
                let norms = norms.as_ref();
                let heads_of = Heads {
                    width,
                    query_norm: norms.map(|norms| &norms[0]),
                    key_norm: norms.map(|norms| &norms[1]),
                };
                let mut pass = |tokens: usize, seen: &Seen, before: Option<KeyValues>| {
                    let projected = Projected {
                        query: operands.tensor([1, tokens, heads * width]) * 2.0,
                        key: operands.tensor([1, tokens, key_heads * width]) * 2.0,
                        value: operands.tensor([1, tokens, key_heads * width]),
                    };
                    let rotary = operands.rotary(tokens, width);
                    attend_cached(projected, heads_of, [&rotary, &rotary], before, seen)
                };
                let (first, cache) = pass(past, &Seen::causal(0, past, device), None);
                let parts = segments.iter().enumerate();
                let own: Vec<i32> =
                    parts.flat_map(|(segment, &tokens)| vec![segment as i32; tokens]).collect();
                let keys: Vec<i32> = std::iter::repeat_n(SHARED, past).chain(own.iter().copied()).collect();
                let queries = (past..).zip(&own).map(|(last, &segment)| [segment, last as i32]).collect();
                let (second, _) = pass(own.len(), &Seen::new(1, queries, keys, device), Some(cache));
                Ok(vec![first.flatten(0, 2), second.flatten(0, 2)])
            }
            Self::AddRows { rows, width, start, features } => {
                let hidden = operands.tensor([1, rows, width]);
                let features = operands.tensor([1, features, width]);
                Ok(vec![add_rows(hidden, &features, start).flatten(0, 2)])
            }
        }
    }
}

async fn read(tensors: Vec<Tensor<1>>) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for tensor in tensors {
        let data = tensor.into_data_async().await.map_err(|error| {
            Error::device("the device did not return its results").with_source(format!("{error:?}"))
        })?;
        values.extend(data.try_into_vec::<f32>().map_err(|error| Error::internal(format!("{error:?}")))?);
    }
    Ok(values)
}

/// Operands that are the same on every device: numbers of a linear congruential generator (Numerical Recipes).
struct Operands<'a> {
    state: u32,
    device: &'a Device,
}

impl Operands<'_> {
    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.state >> 8
    }

    /// Between -1 and 1.
    fn value(&mut self) -> f32 {
        self.next() as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.value()).collect();
        Tensor::from_data(TensorData::new(values, shape), self.device)
    }

    /// Random blocks. Scales are halves of either sign, one in four of them subnormal, as those of small weights are.
    fn matrix(&mut self, dtype: DType, shape: [usize; 2]) -> Result<StoredMatrix> {
        let info = TensorInfo::new("check", dtype, shape.to_vec())?;
        let mut bytes: Vec<u8> = Vec::with_capacity(info.len as usize);
        while bytes.len() < info.len as usize {
            match dtype {
                DType::F32 => bytes.extend(self.value().to_le_bytes()),
                DType::F16 => bytes.extend(half::f16::from_f32(self.value()).to_le_bytes()),
                DType::BF16 => bytes.extend(half::bf16::from_f32(self.value()).to_le_bytes()),
                _ => bytes.push(self.next() as u8),
            }
        }
        if dtype.is_quantised() {
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                for &at in scale_offsets(dtype) {
                    let exponent = if self.next().is_multiple_of(4) { 0 } else { 0x20 };
                    block[at + 1] = block[at + 1] & 0x83 | exponent;
                }
            }
        }
        StoredMatrix::new(&info, bytes, self.device)
    }

    fn epilogue(&mut self, finish: Finish, [rows, columns]: [usize; 2]) -> Epilogue {
        let Finish { bias, made, scale, residual } = finish;
        Epilogue {
            bias: bias.then(|| self.tensor([columns])),
            activation: match made {
                Made::None => Activation::None,
                Made::GeluErf => Activation::GeluErf,
                Made::GeluTanh => Activation::GeluTanh,
                Made::Gate => Activation::Gate(self.tensor([rows, columns])),
            },
            scale: scale.then(|| self.tensor([columns])),
            residual: residual.then(|| self.tensor([rows, columns])),
        }
    }

    fn rms_norm(&mut self, width: usize) -> RmsNorm {
        let mut norm = RmsNormConfig::new(width).with_epsilon(EPSILON).init(self.device);
        norm.gamma = Param::from_tensor(self.tensor([width]));
        norm
    }

    fn layer_norm(&mut self, width: usize) -> LayerNorm {
        let mut norm = LayerNormConfig::new(width).with_epsilon(EPSILON).init(self.device);
        norm.gamma = Param::from_tensor(self.tensor([width]));
        norm.beta = Some(Param::from_tensor(self.tensor([width])));
        norm
    }

    fn rotary(&mut self, tokens: usize, width: usize) -> Rotary {
        let angles: Vec<f32> = (0..tokens * width / 2).map(|_| 4.0 * self.value()).collect();
        Rotary::from_angles(&angles, 1, width, self.device)
    }
}
