//! Products whose results are known, for devices where matrices become parameters and burn multiplies them.

use burn::tensor::{Device, Tensor, TensorData};

use super::session::read;
use crate::config::ModelConfig;
use crate::error::{Error, Kind, Result};
use crate::format::quant::{decode_f32, quantise};
use crate::weights::device::linear;
use crate::weights::{DType, TensorInfo};

/// Largest relative error of a product in f32.
const PRODUCT_TOLERANCE: f64 = 1e-4;

/// Compares products at the shapes of a model, with weights in f32 and in every type that burn holds quantised.
///
/// # Errors
/// [`Kind::SelfTest`] with the first value that is wrong.
pub(super) async fn check(device: &Device, config: &ModelConfig) -> Result<()> {
    let text = &config.text;
    products(device, config).await?;
    packed_products(device, [text.hidden_size, text.intermediate_size], Tensor::matmul).await
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
