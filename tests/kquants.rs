//! The k-quants of llama.cpp's files, against gguf-py.

use burn::tensor::Device;
use imatch::weights::device::linear;
use imatch::weights::quant::{check_finite, decode_f32, quantise};
use imatch::weights::{DType, MemorySource, TensorInfo, gguf, safetensors};
use pollster::block_on;

const GGUF: &[u8] = include_bytes!("golden/weights/kquants.gguf");
const VALUES: &[u8] = include_bytes!("golden/weights/kquants.safetensors");

/// Every tensor of the file with its bytes and the values that gguf-py gives.
fn tensors() -> Vec<(TensorInfo, &'static [u8], Vec<f32>)> {
    let stored = |info: &TensorInfo, file: &'static [u8]| &file[info.offset as usize..][..info.len as usize];
    let values = block_on(safetensors::read_header(&MemorySource(VALUES.to_vec()))).unwrap();
    let header = block_on(gguf::read_header(&MemorySource(GGUF.to_vec()))).unwrap();
    let all = header.tensors.into_iter().map(|info| {
        let expected = values.iter().find(|value| value.name == info.name).unwrap();
        let expected = decode_f32(expected, stored(expected, VALUES)).unwrap();
        let bytes = stored(&info, GGUF);
        (info, bytes, expected)
    });
    all.collect()
}

#[test]
fn random_blocks_are_read_to_the_bit() {
    let tensors = tensors();
    let types: Vec<DType> = tensors.iter().map(|(info, ..)| info.dtype).collect();
    assert_eq!(types, [DType::Q4K, DType::Q5K, DType::Q6K]);
    for (info, bytes, expected) in tensors {
        assert_eq!(info.shape, [3, 512]);
        let values = decode_f32(&info, bytes).unwrap();
        assert!(values.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits())), "{}", info.name);
    }
}

#[test]
fn on_a_device_values_move_by_half_a_step_of_a_byte_at_most() {
    for (info, bytes, expected) in tensors() {
        let weight = linear(&info, bytes, &Device::flex()).unwrap();
        assert_eq!(weight.dims(), [512, 3], "in by out");
        // Values of one output lie a row apart.
        let got: Vec<f32> = weight.dequantize().into_data().try_into_vec().unwrap();
        let mut moved = 0;
        for (block, stored) in expected.chunks_exact(32).enumerate() {
            let (row, first) = (block / 16, block % 16 * 32);
            let step = stored.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
            for (offset, value) in stored.iter().enumerate() {
                let off = (got[(first + offset) * 3 + row] - value).abs();
                assert!(off <= step * 0.501, "{}: {value} moved by {off}, a step is {step}", info.name);
                moved += usize::from(off > 0.0);
            }
        }
        assert!(moved > 100, "{}: nothing was quantised", info.name);
    }
}

#[test]
fn scales_that_are_not_finite_are_refused_and_nothing_is_written() {
    for (dtype, offsets) in [(DType::Q4K, [0, 2].as_slice()), (DType::Q5K, &[0, 2]), (DType::Q6K, &[208])] {
        let info = TensorInfo::new("x", dtype, vec![1, 256]).unwrap();
        let bytes = vec![0; dtype.block_bytes()];
        check_finite(&info, &bytes).unwrap();
        assert_eq!(decode_f32(&info, &bytes).unwrap(), [0.0; 256]);
        for at in offsets {
            let mut bytes = bytes.clone();
            (bytes[*at], bytes[at + 1]) = (0xff, 0x7f);
            assert!(check_finite(&info, &bytes).is_err(), "{dtype}: {at}");
        }
        let error = quantise(&[1.0; 256], &[1, 256], dtype).unwrap_err().to_string();
        assert_eq!(error, format!("{dtype} is read, not written"));
        assert!(TensorInfo::new("x", dtype, vec![2, 128]).is_err(), "half a block");
    }
}
