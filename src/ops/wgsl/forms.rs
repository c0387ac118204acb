//! The operations as launches of kernels.

use burn::nn::RmsNorm;
use burn::tensor::{Bytes, DType as DeviceDType, Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use super::attention::{Attention, Form, Sizes};
use super::launch::{Access, Kernel, beside, buffer, int_buffer, launch, tensor};
use super::layout::{Layout, words};
use super::norm::{Kind, Norm};
use super::product::{Activation as Made, Product, Steps};
use super::rotary::{Rotate, RotateSizes, Store, StoreSizes};
use super::rows::{AddRows, AddRowsSizes};
use crate::format::DType;
use crate::ops::attention::{Heads, Projected};
use crate::ops::product::{Activation, Epilogue};
use crate::ops::rotary::Rotary;
use crate::ops::seen::Seen;

/// Rows by which a cache grows.
const ROOM: usize = 64;

macro_rules! kernels {
    ($($kernel:ty),*) => { $(impl Kernel for $kernel {
        fn text(&self) -> String {
            self.source()
        }
    })* };
}
kernels!(Attention, Norm, Product, Rotate, Store, AddRows);

/// A stored matrix on a GPU.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    dtype: DType,
    /// `[d_out, d_in]`.
    shape: [usize; 2],
    layout: Layout,
    words: Tensor<1, Int>,
}

impl Words {
    /// Sends stored bytes to a GPU.
    pub(crate) fn new(dtype: DType, shape: [usize; 2], stored: Vec<u8>, device: &Device) -> Self {
        let (bytes, layout) = words(dtype, shape, stored);
        let n = bytes.len() / size_of::<i32>();
        // What the words mean is the kernels' business; to burn they are whole numbers, which it hands on as they are.
        let data = TensorData::from_bytes(Bytes::from_bytes_vec(bytes), [n], DeviceDType::I32);
        Self { dtype, shape, layout, words: Tensor::from_data(data, device) }
    }
}

/// A tensor of a device that was found to run WGSL.
fn on<const D: usize>(x: &Tensor<D>) -> CubeTensor {
    buffer(x).expect("operands of one operation lie on one device")
}

/// As [`crate::ops::product`].
pub(crate) fn product(x: Tensor<2>, matrix: &Words, epilogue: Epilogue) -> Tensor<2> {
    let [rows, _] = x.dims();
    let [d_out, d_in] = matrix.shape;
    let Epilogue { bias, activation, scale, residual } = epilogue;
    let (made, gate) = match activation {
        Activation::None => (Made::None, None),
        Activation::GeluErf => (Made::GeluErf, None),
        Activation::GeluTanh => (Made::GeluTanh, None),
        Activation::Gate(gate) => (Made::Gate, Some(gate)),
    };
    let steps = Steps {
        bias: bias.is_some(),
        activation: made,
        scale: scale.is_some(),
        residual: residual.is_some(),
    };
    let kernel = Product {
        stored: matrix.dtype,
        vectors: d_in.is_multiple_of(4) && d_out.is_multiple_of(4),
        epilogue: steps,
    };
    let words = int_buffer(&matrix.words).expect("words lie where they were sent");
    let x = on(&x);
    let output = beside(&x, [rows, d_out]);
    let mut inputs = vec![x, words];
    inputs.extend(bias.as_ref().map(on));
    inputs.extend(gate.as_ref().map(on));
    inputs.extend(scale.as_ref().map(on));
    inputs.extend(residual.as_ref().map(on));
    let Layout { stride, scales } = matrix.layout;
    let info = [rows, d_out, d_in, stride, scales].map(|size| size as u32);
    let workgroups = Product::workgroups(rows, d_out);
    launch(kernel, workgroups, &inputs.iter().collect::<Vec<_>>(), (&output, Access::Write), &[], &info);
    tensor(output)
}

/// As [`crate::ops::rms_norm`]; none where the tensor lies elsewhere.
pub(crate) fn rms_norm<const N: usize>(x: &Tensor<N>, gamma: &Tensor<1>, epsilon: f64) -> Option<Tensor<N>> {
    normed(x, &[gamma], Kind::Rms, epsilon)
}

/// As [`crate::ops::layer_norm`]; none where the tensor lies elsewhere.
pub(crate) fn layer_norm<const N: usize>(
    x: &Tensor<N>,
    [gamma, beta]: [&Tensor<1>; 2],
    epsilon: f64,
) -> Option<Tensor<N>> {
    normed(x, &[gamma, beta], Kind::Layer, epsilon)
}

fn normed<const N: usize>(
    x: &Tensor<N>,
    parameters: &[&Tensor<1>],
    kind: Kind,
    epsilon: f64,
) -> Option<Tensor<N>> {
    let dims = x.dims();
    let width = dims[N - 1];
    let rows = dims.iter().product::<usize>() / width;
    let x = buffer(x)?;
    let output = beside(&x, dims);
    let kernel = Norm { kind, vectors: width.is_multiple_of(4) };
    let info = kernel.info(rows, width, epsilon as f32);
    let mut inputs = vec![x];
    inputs.extend(parameters.iter().map(|parameter| on(parameter)));
    let inputs: Vec<_> = inputs.iter().collect();
    launch(kernel, Norm::workgroups(rows), &inputs, (&output, Access::Write), &[], &info);
    Some(tensor(output))
}

/// As [`crate::ops::add_rows`]; none where the tensors lie elsewhere or are several sequences.
pub(crate) fn add_rows(hidden: &Tensor<3>, features: &Tensor<3>, start: usize) -> Option<Tensor<3>> {
    let [b, rows, width] = hidden.dims();
    let [_, m, _] = features.dims();
    if b != 1 {
        return None;
    }
    let (hidden, features) = (buffer(hidden)?, buffer(features)?);
    let output = beside(&hidden, [b, rows, width]);
    let kernel = AddRows { vectors: width.is_multiple_of(4) };
    let sizes = AddRowsSizes { rows, width, start, features: m };
    let (workgroups, info) = (kernel.workgroups(&sizes), kernel.info(&sizes));
    launch(kernel, workgroups, &[&hidden, &features], (&output, Access::Write), &[], &info);
    Some(tensor(output))
}

/// Keys and values of one layer, with room for more.
#[derive(Debug)]
pub(crate) struct Cache {
    /// `[2, capacity, Hkv * Dh]`: keys, then values.
    rows: Tensor<3>,
    len: usize,
}

impl Cache {
    /// Number of tokens it holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first `len` tokens only.
    pub(crate) fn truncated(self, len: usize) -> Self {
        Self { len, ..self }
    }

    /// The same tokens with room for `tokens` in all.
    fn with_room(past: Option<Self>, tokens: usize, width: usize, device: &Device) -> Self {
        let empty = |rows: usize| Tensor::<3>::empty([2, rows, width], device);
        match past {
            None => Self { rows: empty(tokens.next_multiple_of(ROOM)), len: 0 },
            Some(cache) if cache.rows.dims()[1] >= tokens => cache,
            Some(Self { rows, len }) => {
                let more = empty(tokens.next_multiple_of(ROOM) - len);
                Self { rows: Tensor::cat(vec![rows.narrow(1, 0, len), more], 1), len }
            }
        }
    }
}

/// As [`crate::ops::attend_cached`], of one sequence; keys and values are written into the cache in place.
pub(crate) fn attend_cached(
    projected: Projected,
    heads: Heads<'_>,
    [query_rotary, key_rotary]: [&Rotary; 2],
    past: Option<Cache>,
    seen: &Seen,
) -> (Tensor<3>, Cache) {
    let Projected { query, key, value } = projected;
    let [_, queries, query_width] = query.dims();
    let [_, _, key_width] = key.dims();
    let [_, keys] = seen.lengths();
    let counts = [query_width, key_width].map(|width| width / heads.width);
    let cache = store([key, value], (&heads, counts[1]), key_rotary, past, keys);
    let query = on(&query);
    rotate(&query, (queries, query_width), (heads.width, counts[0]), heads.query_norm, query_rotary);
    let output = beside(&query, [1, queries, query_width]);
    let capacity = cache.rows.dims()[1];
    let sizes = Sizes { queries, keys, heads: counts[0], key_heads: counts[1], capacity };
    let kernel = Attention { head_dim: heads.width, form: Form::Cached };
    let (workgroups, info) = (kernel.workgroups(&sizes), sizes.info(&kernel));
    let seen = int_buffer(&seen.words()).expect("what is seen lies beside the queries");
    launch(kernel, workgroups, &[&query, &on(&cache.rows), &seen], (&output, Access::Write), &[], &info);
    (tensor(output), cache)
}

/// Keys, normed and turned, and values behind those of `past`, `tokens` in all.
fn store(
    [key, value]: [Tensor<3>; 2],
    (heads, count): (&Heads<'_>, usize),
    rotary: &Rotary,
    past: Option<Cache>,
    tokens: usize,
) -> Cache {
    let [_, rows, width] = key.dims();
    let cache = Cache::with_room(past, tokens, width, &key.device());
    let norm = heads.key_norm;
    let sizes = StoreSizes {
        rows,
        heads: count,
        head_dim: heads.width,
        capacity: cache.rows.dims()[1],
        start: cache.len,
        epsilon: epsilon(norm),
    };
    let kernel = Store { norm: norm.is_some(), turn: true, vectors: heads.width.is_multiple_of(8) };
    let mut inputs = vec![on(&key), on(&value), on(rotary.table())];
    inputs.extend(norm.map(|norm| on(&norm.gamma.val())));
    let inputs: Vec<_> = inputs.iter().collect();
    let info = kernel.info(&sizes);
    launch(kernel, Store::workgroups(&sizes), &inputs, (&on(&cache.rows), Access::Change), &[], &info);
    Cache { len: cache.len + rows, ..cache }
}

/// Turns the first `count` heads of each row in place, normed before if there is a norm.
fn rotate(
    x: &CubeTensor,
    (rows, stride): (usize, usize),
    (head_dim, count): (usize, usize),
    norm: Option<&RmsNorm>,
    rotary: &Rotary,
) {
    let sizes = RotateSizes { rows, heads: count, head_dim, stride, offset: 0, epsilon: epsilon(norm) };
    let kernel = Rotate { norm: norm.is_some(), vectors: head_dim.is_multiple_of(8) };
    let mut after = vec![on(rotary.table())];
    after.extend(norm.map(|norm| on(&norm.gamma.val())));
    let after: Vec<_> = after.iter().collect();
    let info = kernel.info(&sizes);
    launch(kernel, Rotate::workgroups(&sizes), &[], (x, Access::Change), &after, &info);
}

fn epsilon(norm: Option<&RmsNorm>) -> f32 {
    norm.map_or(0.0, |norm| norm.epsilon as f32)
}

/// As [`crate::ops::attend_joint`], of one sequence. Queries and keys turn in place, in the buffer that only this
/// call knows.
pub(crate) fn attend_joint(qkv: Tensor<3>, width: usize, rotary: Option<&Rotary>) -> Tensor<3> {
    let [b, n, all] = qkv.dims();
    let heads = all / 3 / width;
    let qkv = on(&qkv);
    if let Some(rotary) = rotary {
        rotate(&qkv, (n, all), (width, 2 * heads), None, rotary);
    }
    let output = beside(&qkv, [b, n, all / 3]);
    let sizes = Sizes { queries: n, keys: n, heads, key_heads: heads, capacity: n };
    let kernel = Attention { head_dim: width, form: Form::Joint };
    let (workgroups, info) = (kernel.workgroups(&sizes), sizes.info(&kernel));
    launch(kernel, workgroups, &[&qkv], (&output, Access::Write), &[], &info);
    tensor(output)
}
