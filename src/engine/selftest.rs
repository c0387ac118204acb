//! Does this device compute what the model's own golden answers say?
//!
//! A device that fails is never asked for a score. Two questions are put to it: products
//! whose results are known, at the shapes that the model uses, and a request whose scores
//! were recorded on the CPU when the model was converted.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::session::read;
use crate::config::ModelConfig;
use crate::error::{Error, Kind, Result};
use crate::image::Picture;
use crate::model::Observer;
use crate::score::ScoreResult;
use crate::text::Request;
use crate::weights::device::linear;
use crate::weights::quant::{decode_f32, quantise};
use crate::weights::{DType, TensorInfo};

/// Largest difference of a score on its own scale divided by the scale's width. Devices
/// differ by rounding only, which stays well below; a wrong kernel does not.
pub const TOLERANCE: f64 = 2e-3;

/// Largest relative error of a product in f32.
const PRODUCT_TOLERANCE: f64 = 1e-4;

/// Side of the picture that golden answers are about.
const SIDE: usize = 160;

/// A request about [`pattern`] and the scores that the CPU gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The prompt.
    pub prompt: String,
    /// Elements with categories.
    pub elements: Vec<String>,
    /// Overall score on the model's scale.
    pub overall: f64,
    /// P(yes) of each element.
    pub scores: Vec<f64>,
}

/// What a passed self-test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SelfTest {
    /// Golden answers that were compared.
    pub compared: usize,
    /// Largest difference, as [`TOLERANCE`] measures it.
    pub max_difference: f64,
}

/// A picture made of numbers only: ramps, a disc and a square, different in every channel.
pub fn pattern() -> Result<Picture> {
    let mut rgb = Vec::with_capacity(3 * SIDE * SIDE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (x as i32 - 48, y as i32 - 52);
            let pixel = if dx * dx + dy * dy < 26 * 26 {
                [214, 44, 40]
            } else if (96..136).contains(&x) && (90..130).contains(&y) {
                [38, 82, 218]
            } else {
                [150 + (x / 4) as u8, 190 - (y / 4) as u8, 160 + ((x + y) / 8) as u8]
            };
            rgb.extend(pixel);
        }
    }
    Picture::new(SIDE, SIDE, rgb)
}

/// Compares known products and every golden answer.
///
/// # Errors
/// [`Kind::SelfTest`] with what differed and by how much; whatever scoring gives.
pub async fn run(
    engine: &Arc<Engine>,
    golden: &[serde_json::Value],
    observer: &impl Observer,
) -> Result<SelfTest> {
    let text = &engine.processor().config().text;
    products(&engine.device, engine.processor().config()).await?;
    packed_products(&engine.device, [text.hidden_size, text.intermediate_size], Tensor::matmul).await?;
    let mut test = SelfTest { compared: 0, max_difference: 0.0 };
    for value in golden {
        let golden: Golden = serde_json::from_value(value.clone())
            .map_err(|error| Error::model("golden answer in the manifest").with_source(error))?;
        let result = answer(engine, &golden.prompt, &golden.elements, observer).await?;
        let [low, high] = result.overall.scale;
        let scores = result.elements.iter().map(|element| element.score);
        if golden.scores.len() != result.elements.len() {
            return Err(Error::model("a golden answer has another number of elements than its request"));
        }
        let difference = scores
            .zip(&golden.scores)
            .map(|(got, want)| (got - want).abs())
            .fold((result.overall.score - golden.overall).abs() / (high - low), f64::max);
        if difference > TOLERANCE {
            return Err(Error::new(
                Kind::SelfTest,
                format!(
                    "{} gave scores that differ by {difference:.4} from the model's golden answer, at most {TOLERANCE} is rounding",
                    engine.device_name
                ),
            ));
        }
        test.compared += 1;
        test.max_difference = test.max_difference.max(difference);
    }
    Ok(test)
}

/// Records golden answers on the device that is taken to be right.
///
/// # Errors
/// Whatever scoring gives.
pub async fn record(engine: &Arc<Engine>) -> Result<Vec<Golden>> {
    let prompt = "a red circle above a blue square";
    let elements =
        ["red circle (color)", "two blue squares (counting)", "red circle above blue square (spatial)"]
            .map(String::from);
    let result = answer(engine, prompt, &elements, &()).await?;
    Ok(vec![Golden {
        prompt: prompt.into(),
        elements: elements.to_vec(),
        overall: result.overall.score,
        scores: result.elements.iter().map(|element| element.score).collect(),
    }])
}

async fn answer(
    engine: &Arc<Engine>,
    prompt: &str,
    elements: &[String],
    observer: &impl Observer,
) -> Result<ScoreResult> {
    let request = Request::new(prompt, elements, None)?;
    engine.open(&pattern()?, observer).await?.score(&request, observer).await
}

/// Products with packed weights of every type that stays quantised on a device, against the decoded weights: a
/// model without golden answers has no other test of these kernels.
async fn packed_products(
    device: &Device,
    [width, wide]: [usize; 2],
    product: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Result<()> {
    for dtype in [DType::Q8_0, DType::Q4_0] {
        for [m, k] in [[1, width], [65, wide]] {
            // Blocks of 32; rows that are none are never quantised.
            let (k, n) = (k.next_multiple_of(32), 64);
            let weight = |index: usize| ((index * 7 + index / k * 5) % 15) as f32 - 7.0;
            let values: Vec<f32> = (0..n * k).map(weight).collect();
            let info = TensorInfo::new("self-test", dtype, vec![n, k])?;
            let bytes = quantise(&values, &info.shape, dtype)?;
            let decoded = decode_f32(&info, &bytes)?;
            let left: Vec<f32> = (0..m * k).map(|index| ((index * 5 + index / k) % 7) as f32 - 3.0).collect();
            let input = Tensor::<2>::from_data(TensorData::new(left.clone(), [m, k]), device);
            let got = read(product(input, linear(&info, &bytes, device)?)).await?;
            for (index, got) in got.iter().enumerate() {
                let (row, column) = (index / n, index % n);
                let pairs = left[row * k..(row + 1) * k].iter().zip(&decoded[column * k..(column + 1) * k]);
                let (want, size) = pairs.fold((0.0, 0.0), |(sum, size), (a, b)| {
                    let product = f64::from(a * b);
                    (sum + product, size + product.abs())
                });
                let difference = (f64::from(*got) - want).abs();
                if difference.is_nan() || difference > PRODUCT_TOLERANCE * size.max(1.0) {
                    return Err(Error::new(
                        Kind::SelfTest,
                        format!(
                            "the product {m}x{k} by {dtype} weights is {got} at ({row}, {column}), expected {want}"
                        ),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Products of small integers, exact in f32 whatever the order of summation: one row, many
/// rows, and a long inner axis with few columns, which are different kernels.
async fn products(device: &Device, config: &ModelConfig) -> Result<()> {
    let (width, wide, head) = (config.text.hidden_size, config.text.intermediate_size, config.text.head_dim);
    // Columns beyond these are more of the same.
    let [wide_out, width_out] = [wide, width].map(|n| n.min(1024));
    for [m, k, n] in [[1, width, wide_out], [65, wide, width_out], [33, 7 * wide, head]] {
        let left = |row: usize, column: usize| ((row * 7 + column * 3) % 5) as f32 - 2.0;
        let right = |row: usize, column: usize| ((row * 5 + column * 11) % 7) as f32 - 3.0;
        let fill = |rows: usize, columns: usize, f: &dyn Fn(usize, usize) -> f32| {
            let values: Vec<f32> = (0..rows * columns).map(|i| f(i / columns, i % columns)).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
        };
        let got = read(fill(m, k, &left).matmul(fill(k, n, &right))).await?;
        for sample in 0..64 {
            let (row, column) = (sample * 17 % m, sample * 29 % n);
            let want: f64 = (0..k).map(|i| f64::from(left(row, i) * right(i, column))).sum();
            let difference = (f64::from(got[row * n + column]) - want).abs();
            if difference.is_nan() || difference > PRODUCT_TOLERANCE * want.abs().max(1.0) {
                return Err(Error::new(
                    Kind::SelfTest,
                    format!(
                        "the product {m}x{k} by {k}x{n} is {} at ({row}, {column}), expected {want}",
                        got[row * n + column]
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use pollster::block_on;

    use super::*;

    #[test]
    fn packed_products_pass_and_a_kernel_that_is_a_little_off_does_not() -> Result<()> {
        let device = Device::flex();
        block_on(packed_products(&device, [40, 104], Tensor::matmul))?;
        for wrong in [
            |input: Tensor<2>, weight: Tensor<2>| input.matmul(weight) * 1.01,
            |input: Tensor<2>, weight: Tensor<2>| input.matmul(weight).flip([1]),
            // What a kernel does that leaves the last block out.
            |input: Tensor<2>, weight: Tensor<2>| {
                let [rows, columns] = input.dims();
                input.slice_fill([0..rows, columns - 32..columns], 0.0).matmul(weight)
            },
        ] {
            let error = block_on(packed_products(&device, [40, 104], wrong)).map_err(|error| error.kind());
            assert_eq!(error, Err(Kind::SelfTest));
        }
        Ok(())
    }
}
