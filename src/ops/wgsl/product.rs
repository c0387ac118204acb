//! Products with a stored matrix: `product.wgsl`, one of `stored/*.wgsl` and the epilogue, put together.

use super::rows::{Buffer, INFO, bindings, item};
use crate::format::DType;

/// Rows of a workgroup's tile, and its threads: each has 8 x 8 outputs.
///
/// A second tile of 64 rows would be as fast or up to 15 % faster where there are many rows, and twice as many kernels
/// to compile and to check before the first score.
const ROWS: usize = 32;

/// Columns of a workgroup's tile.
const COLUMNS: usize = 64;

/// What a product's text depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Product {
    /// How the matrix is stored.
    pub(crate) stored: DType,
    /// Whether both widths are multiples of four, so that rows are read and written as whole vectors.
    pub(crate) vectors: bool,
    /// What happens to a sum before it is written.
    pub(crate) epilogue: Steps,
}

/// The steps of an epilogue, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Steps {
    /// `+ bias`.
    pub(crate) bias: bool,
    /// What is made of the sum.
    pub(crate) activation: Activation,
    /// `* scale`, one a column.
    pub(crate) scale: bool,
    /// `+ residual`.
    pub(crate) residual: bool,
}

/// What an epilogue makes of a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    /// Itself.
    #[default]
    None,
    /// GELU by the error function.
    GeluErf,
    /// GELU by the hyperbolic tangent.
    GeluTanh,
    /// `silu(gate) * sum`, the gate in a buffer.
    Gate,
}

impl Product {
    /// Workgroups for a result of `rows` by `columns`.
    pub(crate) fn workgroups(rows: usize, columns: usize) -> [u32; 3] {
        [columns.div_ceil(COLUMNS) as u32, rows.div_ceil(ROWS) as u32, 1]
    }

    /// The kernel's text.
    ///
    /// Bindings: `x`, the matrix's words, those of bias, gate, scale and residual that the epilogue has, `y`, and five
    /// words: `m`, `n`, `k`, values from one row of the matrix to the next, words before its scales.
    pub(crate) fn source(&self) -> String {
        include_str!("product.wgsl")
            .replace("$bindings", &bindings(&self.buffers()))
            .replace("$helpers", &self.helpers())
            .replace("$registers", &registers())
            .replace("$accumulate", &accumulate())
            .replace("$keep", &keep())
            .replace("$rows", &ROWS.to_string())
            .replace("$left_tile", &(ROWS * 8).to_string())
    }

    /// One of every stored type, and of every epilogue and both forms of rows with one type.
    pub(crate) fn variants() -> Vec<Self> {
        let plain = |stored| Self { stored, vectors: true, epilogue: Steps::default() };
        let mut variants: Vec<Self> = DType::ALL.into_iter().map(plain).collect();
        for vectors in [false, true] {
            for activation in [Activation::None, Activation::GeluErf, Activation::GeluTanh, Activation::Gate]
            {
                let epilogue = Steps { bias: true, activation, scale: true, residual: true };
                variants.push(Self { stored: DType::F32, vectors, epilogue });
            }
        }
        variants
    }

    /// The buffers beside matrix, result and facts, in the order of their bindings.
    fn inputs(&self) -> Vec<&'static str> {
        let Steps { bias, activation, scale, residual } = self.epilogue;
        let gate = activation == Activation::Gate;
        let optional = [("bias", bias), ("gate", gate), ("scale", scale), ("residual", residual)];
        optional.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    fn buffers(&self) -> Vec<Buffer> {
        let rows = item(self.vectors);
        let mut buffers = vec![("x", "read", rows), ("words", "read", "u32")];
        buffers.extend(self.inputs().into_iter().map(|name| (name, "read", rows)));
        buffers.extend([("y", "read_write", rows), INFO]);
        buffers
    }

    /// How rows are read, the matrix unpacked and the result written.
    fn helpers(&self) -> String {
        let mut text = include_str!("weight.wgsl").to_owned();
        text += &stored(self.stored).concat();
        // Blocks of 32 fill every tile of the inner axis; rows of floats may end within one.
        text += if self.stored.is_quantised() { WHOLE_WEIGHT } else { PADDED_WEIGHT };
        text += if self.vectors { VECTOR_ROWS } else { SCALAR_ROWS };
        for name in self.inputs() {
            text += &if self.vectors { vector_reader(name) } else { scalar_reader(name) };
        }
        text += match self.epilogue.activation {
            Activation::None => "",
            Activation::GeluErf => GELU_ERF,
            Activation::GeluTanh => GELU_TANH,
            Activation::Gate => SILU,
        };
        text + &self.finish()
    }

    /// The function that takes a sum through the epilogue and writes it.
    fn finish(&self) -> String {
        let Steps { bias, activation, scale, residual } = self.epilogue;
        let mut text = "\nfn finish(row: u32, column: u32, sum: vec4<f32>) {\n".to_owned();
        text +=
            "    if (row >= info[0] || column >= info[1]) {\n        return;\n    }\n    var value = sum;\n";
        if bias {
            text += "    value += bias_at(0u, column);\n";
        }
        text += match activation {
            Activation::None => "",
            Activation::GeluErf | Activation::GeluTanh => "    value = gelu(value);\n",
            Activation::Gate => "    value *= silu(gate_at(row, column));\n",
        };
        if scale {
            text += "    value *= scale_at(0u, column);\n";
        }
        if residual {
            text += "    value += residual_at(row, column);\n";
        }
        text + "    output(row, column, value);\n}\n"
    }
}

/// How values of a type are unpacked, and the scales that `Q4_K` and `Q5_K` share.
fn stored(dtype: DType) -> [&'static str; 2] {
    let affine = include_str!("stored/affine.wgsl");
    match dtype {
        DType::F32 => ["", include_str!("stored/f32.wgsl")],
        DType::F16 => ["", include_str!("stored/f16.wgsl")],
        DType::BF16 => ["", include_str!("stored/bf16.wgsl")],
        DType::Q8_0 => ["", include_str!("stored/q8_0.wgsl")],
        DType::Q4_0 => ["", include_str!("stored/q4_0.wgsl")],
        DType::Q4K => [affine, include_str!("stored/q4_k.wgsl")],
        DType::Q5K => [affine, include_str!("stored/q5_k.wgsl")],
        DType::Q6K => ["", include_str!("stored/q6_k.wgsl")],
    }
}

fn registers() -> String {
    each_output(|row, side| format!("    var c{row}_{side} = vec4<f32>();\n"))
}

fn accumulate() -> String {
    each_output(|row, side| {
        let (place, lane) = (row / 4, ["x", "y", "z", "w"][row % 4]);
        format!("            c{row}_{side} = fma(vec4<f32>(a{place}.{lane}), b{side}, c{row}_{side});\n")
    })
}

/// Puts a thread's outputs where the tiles were: a loop over them keeps the epilogue from standing there 16 times,
/// which compilers would take seconds for.
fn keep() -> String {
    each_output(|row, side| {
        let tile = ["left", "right"][side];
        format!("    {tile}[thread * 8u + {row}u] = c{row}_{side};\n")
    })
}

/// A line for each vector of a thread's outputs.
fn each_output(line: impl Fn(usize, usize) -> String) -> String {
    (0..16).map(|index| line(index / 2, index % 2)).collect()
}

const WHOLE_WEIGHT: &str = "
fn weight(column: u32, k: u32) -> vec4<f32> {
    return stored(min(column, info[1] - 1u), k);
}
";

const PADDED_WEIGHT: &str = "
fn weight(column: u32, k: u32) -> vec4<f32> {
    if (k >= info[2]) {
        return vec4<f32>();
    }
    return stored(min(column, info[1] - 1u), k);
}
";

const VECTOR_ROWS: &str = "
fn input(row: u32, k: u32) -> vec4<f32> {
    if (row >= info[0] || k >= info[2]) {
        return vec4<f32>();
    }
    return x[(row * info[2] + k) / 4u];
}

fn output(row: u32, column: u32, value: vec4<f32>) {
    y[(row * info[1] + column) / 4u] = value;
}
";

const SCALAR_ROWS: &str = "
fn input(row: u32, k: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if (row < info[0]) {
        let at = row * info[2] + k;
        if (k < info[2]) { value.x = x[at]; }
        if (k + 1u < info[2]) { value.y = x[at + 1u]; }
        if (k + 2u < info[2]) { value.z = x[at + 2u]; }
        if (k + 3u < info[2]) { value.w = x[at + 3u]; }
    }
    return value;
}

fn output(row: u32, column: u32, value: vec4<f32>) {
    let at = row * info[1] + column;
    y[at] = value.x;
    if (column + 1u < info[1]) { y[at + 1u] = value.y; }
    if (column + 2u < info[1]) { y[at + 2u] = value.z; }
    if (column + 3u < info[1]) { y[at + 3u] = value.w; }
}
";

fn vector_reader(name: &str) -> String {
    format!(
        "
fn {name}_at(row: u32, column: u32) -> vec4<f32> {{
    return {name}[(row * info[1] + column) / 4u];
}}
"
    )
}

fn scalar_reader(name: &str) -> String {
    format!(
        "
fn {name}_at(row: u32, column: u32) -> vec4<f32> {{
    let columns = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(info[1] - 1u)) + row * info[1];
    return vec4<f32>({name}[columns.x], {name}[columns.y], {name}[columns.z], {name}[columns.w]);
}}
"
    )
}

/// `x (1 + erf(x / sqrt 2)) / 2`; the error function by Abramowitz and Stegun 7.1.26, at most 1.5e-7 off.
const GELU_ERF: &str = "
fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = abs(x) * 0.70710678118654752;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let erf = sign(x) * (1.0 - p * exp(-min(z * z, vec4<f32>(80.0))));
    return 0.5 * x * (1.0 + erf);
}
";

/// `x (1 + tanh(z)) / 2 = x / (1 + exp(-2 z))` with `z = sqrt(2 / pi) (x + 0.044715 x³)`; `exp` stays finite.
const GELU_TANH: &str = "
fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = 1.5957691216057308 * x * (1.0 + 0.044715 * x * x);
    return x / (1.0 + exp(clamp(-z, vec4<f32>(-80.0), vec4<f32>(80.0))));
}
";

/// `x / (1 + exp(-x))`; `exp` stays finite.
const SILU: &str = "
fn silu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(clamp(-x, vec4<f32>(-80.0), vec4<f32>(80.0))));
}
";
