//! Stored bytes to numbers and back: the scalar reference.
//!
//! Encoding gives the bytes that ggml's reference quantisers give
//! (`quantize_row_q8_0_ref`, `quantize_row_q4_0_ref` in ggml-quants.c), so that a file
//! converted here equals one converted elsewhere.

use half::{bf16, f16};

use super::kquant;
use super::tensor::{BLOCK, DType, TensorInfo, shown, stored_len};
use crate::{Error, Result};

/// All values of a tensor, in order.
///
/// # Errors
/// When `bytes` are not as many as the tensor has, or a value is not finite.
pub fn decode_f32(info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>> {
    check_len(info, bytes)?;
    let mut values = Vec::with_capacity(info.values());
    decode_into(info.dtype, bytes, &mut values);
    if values.iter().any(|value| !value.is_finite()) {
        return Err(not_finite(info));
    }
    Ok(values)
}

/// Refuses bytes in which a value, or a block's scale, is infinite or not a number.
///
/// # Errors
/// Names the tensor; also when `bytes` are not as many as it has.
pub fn check_finite(info: &TensorInfo, bytes: &[u8]) -> Result<()> {
    check_len(info, bytes)?;
    let block = info.dtype.block_bytes();
    let finite = match info.dtype {
        DType::F32 => bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()),
        DType::BF16 => bytes.chunks_exact(2).all(|b| bf16::from_le_bytes([b[0], b[1]]).is_finite()),
        dtype => bytes
            .chunks_exact(block)
            .all(|bytes| kquant::scale_offsets(dtype).iter().all(|&at| kquant::half(bytes, at).is_finite())),
    };
    if finite { Ok(()) } else { Err(not_finite(info)) }
}

/// Stores `values` of `shape` as `dtype`.
///
/// # Errors
/// When the count or the rows do not fit, for the k-quants, which are read only, or a value (or a
/// block's scale) is not finite in that type; see [`DType::storable`] for what to ask for.
pub fn quantise(values: &[f32], shape: &[usize], dtype: DType) -> Result<Vec<u8>> {
    let fits =
        shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)) == Some(values.len());
    let len = stored_len(dtype, shape).filter(|_| fits).ok_or_else(|| {
        Error::model(format!("{} values of shape {shape:?} cannot be stored as {dtype}", values.len()))
    })?;
    let mut bytes = Vec::with_capacity(len as usize);
    match dtype {
        DType::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        DType::F16 => bytes.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
        DType::BF16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
        DType::Q8_0 => values.chunks_exact(BLOCK).for_each(|block| encode_q8_0(block, &mut bytes)),
        DType::Q4_0 => values.chunks_exact(BLOCK).for_each(|block| encode_q4_0(block, &mut bytes)),
        DType::Q4K | DType::Q5K | DType::Q6K => {
            return Err(Error::unsupported(format!("{dtype} is read, not written")));
        }
    }
    // NaN compares as nothing and could vanish inside a block, so the values are looked at too.
    let info = TensorInfo { name: String::new(), dtype, shape: shape.to_vec(), offset: 0, len };
    if values.iter().any(|value| !value.is_finite()) || check_finite(&info, &bytes).is_err() {
        return Err(Error::model(format!("a value is not finite as {dtype}")));
    }
    Ok(bytes)
}

/// Values of whole stored blocks that were checked when they were read.
pub(crate) fn decode_blocks(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::with_capacity(bytes.len() / dtype.block_bytes() * dtype.block_len());
    decode_into(dtype, bytes, &mut values);
    values
}

fn decode_into(dtype: DType, bytes: &[u8], values: &mut Vec<f32>) {
    match dtype {
        DType::F32 => {
            values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        DType::F16 => values.extend(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
        DType::BF16 => {
            values.extend(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()));
        }
        DType::Q8_0 => {
            for block in bytes.chunks_exact(DType::Q8_0.block_bytes()) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                values.extend(block[2..].iter().map(|q| scale * f32::from(q.cast_signed())));
            }
        }
        DType::Q4_0 => {
            for block in bytes.chunks_exact(DType::Q4_0.block_bytes()) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                let value = |q: u8| scale * (f32::from(q) - 8.0);
                values.extend(block[2..].iter().map(|pair| value(pair & 15)));
                values.extend(block[2..].iter().map(|pair| value(pair >> 4)));
            }
        }
        DType::Q4K => blocks(dtype, bytes, values, kquant::q4_k),
        DType::Q5K => blocks(dtype, bytes, values, kquant::q5_k),
        DType::Q6K => blocks(dtype, bytes, values, kquant::q6_k),
    }
}

fn blocks(dtype: DType, bytes: &[u8], values: &mut Vec<f32>, decode: fn(&[u8], &mut Vec<f32>)) {
    bytes.chunks_exact(dtype.block_bytes()).for_each(|block| decode(block, values));
}

/// All values of a tensor as signed bytes with one f32 scale a block of 32, `d = max|x| / 127`,
/// `q = round(x / d)`: an error of at most half a step, 0.4 % of the block's largest value.
///
/// One block is decoded at a time, so that the values never lie in memory as f32.
///
/// # Errors
/// As [`decode_f32`].
pub(crate) fn to_bytes(info: &TensorInfo, bytes: &[u8]) -> Result<(Vec<i8>, Vec<f32>)> {
    check_len(info, bytes)?;
    let blocks = info.values() / BLOCK;
    let (mut whole, mut scales) = (Vec::with_capacity(blocks * BLOCK), Vec::with_capacity(blocks));
    let mut values = Vec::with_capacity(info.dtype.block_len());
    for stored in bytes.chunks_exact(info.dtype.block_bytes()) {
        values.clear();
        decode_into(info.dtype, stored, &mut values);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(not_finite(info));
        }
        for block in values.chunks_exact(BLOCK) {
            let scale = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
            let inverse = inverse(scale);
            whole.extend(block.iter().map(|value| (value * inverse).round() as i8));
            scales.push(scale);
        }
    }
    Ok((whole, scales))
}

/// `d = max|x| / 127`, `q = round(x / d)` with halves away from zero.
fn encode_q8_0(block: &[f32], bytes: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes.extend(block.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
}

/// `d = x_max / -8` where `x_max` is the value of largest magnitude with its sign,
/// `q = min(15, floor(x / d + 8.5))`.
fn encode_q4_0(block: &[f32], bytes: &mut Vec<u8>) {
    let largest = block
        .iter()
        .fold(0.0f32, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
    let scale = largest / -8.0;
    let inverse = inverse(scale);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| quant(*low) | quant(*high) << 4));
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn check_len(info: &TensorInfo, bytes: &[u8]) -> Result<()> {
    if stored_len(info.dtype, &info.shape) == Some(bytes.len() as u64) {
        return Ok(());
    }
    Err(Error::model(format!(
        "tensor {} of shape {:?} as {} does not have {} bytes",
        shown(&info.name),
        info.shape,
        info.dtype,
        bytes.len()
    )))
}

fn not_finite(info: &TensorInfo) -> Error {
    Error::model(format!("tensor {} holds a value that is not finite", shown(&info.name)))
}
