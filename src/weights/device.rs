//! Stored tensors to device tensors. What this takes of host memory on the way says [`host_bytes`].
//!
//! Where matrices stay as stored ([`StoredMatrix`](crate::ops::StoredMatrix): GPUs that run WGSL, and the CPU), a
//! linear weight takes the bytes that it has in its file. What else is computed with is f32: vectors, the position
//! table, and all of a model that is trained. On other devices, and where a frozen base is trained upon:
//!
//! | stored | on the device | bytes per value |
//! |---|---|---|
//! | F32, F16, BF16 | f32 | 4 |
//! | `Q8_0` | symmetric 8-bit, blocks of 32, f32 scale | 1.125 |
//! | `Q4_0` | symmetric 4-bit, blocks of 32, f32 scale (8-bit on the CPU) | 0.625 |
//! | `Q4_K`, `Q5_K`, `Q6_K` | decoded and quantised again as `Q8_0` is, at most 0.4 % of a block's largest value off | 1.125 |

use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Bytes, DType as DeviceDType, Device, Tensor, TensorData};

use super::load::Storage;
use crate::error::{Error, Result};
use crate::format::quant::{decode_f32, to_bytes};
use crate::format::tensor::{DType, TensorInfo};
use crate::ops::wgsl::words_bytes;

/// Values per block of `Q8_0` and `Q4_0` (`QK8_0`, `QK4_0` in ggml-common.h).
const BLOCK: usize = 32;

/// Bytes that a parameter of a model that scores takes on a GPU and on the CPU. What a device rounds up to is
/// not counted.
pub fn device_bytes(info: &TensorInfo, storage: Storage) -> [u64; 2] {
    match (storage, <[usize; 2]>::try_from(info.shape.as_slice())) {
        (Storage::Linear, Ok(shape)) => [words_bytes(info.dtype, shape) as u64, info.len],
        _ => [4 * info.values() as u64; 2],
    }
}

/// Bytes of host memory while a parameter goes to a device: as stored, and once more in the device's order or
/// decoded.
pub fn host_bytes(info: &TensorInfo, storage: Storage) -> u64 {
    let [gpu, cpu] = device_bytes(info, storage);
    info.len + gpu.max(cpu)
}

/// A vector, decoded.
pub fn vector(info: &TensorInfo, bytes: &[u8], device: &Device) -> Result<Tensor<1>> {
    let values = decode_f32(info, bytes)?;
    let n = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [n]), device))
}

/// A matrix that is no linear weight (the position table), decoded, in its own shape.
pub fn matrix(info: &TensorInfo, bytes: &[u8], device: &Device) -> Result<Tensor<2>> {
    let shape = two(info)?;
    Ok(Tensor::from_data(TensorData::new(decode_f32(info, bytes)?, shape), device))
}

/// A linear weight, `[out, in]` as stored and `[in, out]` as returned, in the precision that the table above gives.
pub fn linear(info: &TensorInfo, bytes: &[u8], device: &Device) -> Result<Tensor<2>> {
    let layout: Layout = if *device == Device::flex() { on_cpu } else { on_gpu };
    match quantised(info, bytes, layout)? {
        Some(data) => Ok(Tensor::from_data(data, device)),
        None => decoded_linear(info, bytes, device),
    }
}

/// Values, scales, `[out, in]` and scheme to what a device takes.
type Layout = fn(Vec<i8>, &[f32], [usize; 2], QuantScheme) -> TensorData;

/// A quantised matrix `[out, in]` as `[in, out]`; none of a type that is not quantised.
fn quantised(info: &TensorInfo, bytes: &[u8], layout: Layout) -> Result<Option<TensorData>> {
    let [d_out, d_in] = two(info)?;
    let (values, scales) = match info.dtype {
        DType::Q8_0 => unpack(bytes, 34, |block, values| values.extend(block.iter().map(|&byte| byte as i8))),
        DType::Q4_0 => unpack(bytes, 18, |block, values| {
            values.extend(block.iter().map(|byte| (byte & 15) as i8 - 8));
            values.extend(block.iter().map(|byte| (byte >> 4) as i8 - 8));
        }),
        DType::Q4K | DType::Q5K | DType::Q6K => to_bytes(info, bytes)?,
        _ => return Ok(None),
    };
    if values.len() != d_out * d_in {
        return Err(Error::model(format!(
            "tensor {} has {} values, expected {}",
            info.name,
            values.len(),
            d_out * d_in
        )));
    }
    let value = if info.dtype == DType::Q4_0 { QuantValue::Q4S } else { QuantValue::Q8S };
    let scheme = QuantScheme::default().with_value(value).per_block([BLOCK as u8, 1], ScaleDtype::F32);
    Ok(Some(layout(values, &scales, [d_out, d_in], scheme)))
}

/// A linear weight, `[out, in]` as stored and `[in, out]` as returned, decoded.
pub fn decoded_linear(info: &TensorInfo, bytes: &[u8], device: &Device) -> Result<Tensor<2>> {
    Ok(matrix(info, bytes, device)?.transpose())
}

fn two(info: &TensorInfo) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(info.shape.as_slice()).map_err(|_| {
        Error::model(format!("tensor {} has shape {:?}, expected a matrix", info.name, info.shape))
    })
}

/// Splits blocks (an f16 scale, then packed values) into values and scales, both in stored order.
fn unpack(bytes: &[u8], block_bytes: usize, push: impl Fn(&[u8], &mut Vec<i8>)) -> (Vec<i8>, Vec<f32>) {
    let blocks = bytes.len() / block_bytes;
    let (mut values, mut scales) = (Vec::with_capacity(blocks * BLOCK), Vec::with_capacity(blocks));
    for block in bytes.chunks_exact(block_bytes) {
        scales.push(half::f16::from_le_bytes([block[0], block[1]]).to_f32());
        push(&block[2..], &mut values);
    }
    (values, scales)
}

/// The CPU back end keeps one byte a value and would requantise a transposed view, so the
/// transpose happens here.
fn on_cpu(values: Vec<i8>, scales: &[f32], [d_out, d_in]: [usize; 2], scheme: QuantScheme) -> TensorData {
    // Scales are appended to the same buffer, which the back end keeps: one that grew for them would be twice as long.
    let mut transposed = Vec::with_capacity(values.len() + size_of_val(scales));
    transpose(&values, [d_out, d_in], &mut transposed);
    drop(values);
    let mut transposed_scales = Vec::with_capacity(scales.len());
    transpose(scales, [d_out, d_in / BLOCK], &mut transposed_scales);
    let (values, scales) = (transposed, transposed_scales);
    TensorData::quantized(values, [d_in, d_out], scheme.with_store(QuantStore::Native), &scales, None)
}

/// Appends a matrix, transposed. It goes by square tiles, as whole columns would read a cache line for each value.
fn transpose<T: Copy + Default>(values: &[T], [rows, columns]: [usize; 2], out: &mut Vec<T>) {
    const TILE: usize = 64;
    let start = out.len();
    out.resize(start + values.len(), T::default());
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for column in left..columns.min(left + TILE) {
                    out[start + column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
}

/// The GPU reads whole words packed along the input axis, which is how the rows are stored.
fn on_gpu(values: Vec<i8>, scales: &[f32], [d_out, d_in]: [usize; 2], scheme: QuantScheme) -> TensorData {
    let scheme = scheme.with_store(QuantStore::PackedU32(1));
    let bits = if scheme.value == QuantValue::Q8S { 8 } else { 4 };
    let per_word = 32 / bits;
    let mut words = Vec::with_capacity(values.len() / per_word + scales.len());
    words.extend(values.chunks_exact(per_word).map(|values| {
        let low = |value: &i8| u32::from(value.cast_unsigned()) & ((1 << bits) - 1);
        values.iter().rev().fold(0u32, |word, value| word << bits | low(value))
    }));
    drop(values);
    words.extend(scales.iter().map(|scale| scale.to_bits()));
    TensorData::from_bytes(Bytes::from_elems(words), [d_in, d_out], DeviceDType::QFloat(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::kquant::scale_offsets;

    /// A matrix `[3, 512]` of changing values, with another scale in each block.
    fn stored(dtype: DType) -> Result<(TensorInfo, Vec<u8>)> {
        let info = TensorInfo::new("matrix", dtype, vec![3, 512])?;
        let mut bytes: Vec<u8> = (0..info.len).map(|at| (at * 167 % 251) as u8).collect();
        for (index, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
            for &at in scale_offsets(dtype) {
                // Halves from 1 to 1.25, of either sign.
                block[at] = (index * 37) as u8;
                block[at + 1] = if (index + at).is_multiple_of(3) { 0xbc } else { 0x3c };
            }
        }
        Ok((info, bytes))
    }

    /// What a GPU makes of the bytes (`new_quantized` in burn-cubecl): words of signed values along the
    /// input axis, the first in the lowest bits, one output after the other; then a scale for each 32.
    fn read_as_gpu(data: &TensorData, bits: usize, n_values: usize) -> Vec<f32> {
        let bytes = data.as_bytes().chunks_exact(4);
        let words: Vec<u32> = bytes.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let per_word = 32 / bits;
        let (packed, scales) = words.split_at(n_values / per_word);
        assert_eq!(scales.len(), n_values / BLOCK, "one scale a block and nothing else");
        let value = |index: usize| {
            let top = packed[index / per_word] << (32 - bits - index % per_word * bits);
            (top.cast_signed() >> (32 - bits)) as f32 * f32::from_bits(scales[index / BLOCK])
        };
        (0..n_values).map(value).collect()
    }

    #[test]
    fn a_gpu_reads_the_decoded_values() -> Result<()> {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let (info, bytes) = stored(dtype)?;
            let expected = decode_f32(&info, &bytes)?;
            let data = quantised(&info, &bytes, on_gpu)?.ok_or_else(|| Error::internal("not quantised"))?;
            assert_eq!(data.shape().as_slice(), [512, 3], "{dtype}: in by out");
            let DeviceDType::QFloat(scheme) = data.dtype() else { panic!("{dtype}: not quantised") };
            assert_eq!(scheme.store, QuantStore::PackedU32(1), "{dtype}: packed along the input axis");
            let got = read_as_gpu(&data, if dtype == DType::Q4_0 { 4 } else { 8 }, expected.len());
            for (block, (got, expected)) in got.chunks(BLOCK).zip(expected.chunks(BLOCK)).enumerate() {
                let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                // What is not 8 bits already moves by half a step at most.
                let allowed = if dtype.block_len() == BLOCK { 0.0 } else { largest / 127.0 * 0.501 };
                for (got, expected) in got.iter().zip(expected) {
                    let off = (got - expected).abs();
                    assert!(off <= allowed, "{dtype}, block {block}: {got} is not {expected}");
                }
            }
        }
        Ok(())
    }
}
