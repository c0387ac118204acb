//! The k-quants of llama.cpp's files, against gguf-py and against blocks made by hand.

use burn::tensor::Device;
use half::f16;
use imatch::format::quant::{check_finite, decode_f32, quantise};
use imatch::weights::device::linear;
use imatch::weights::{DType, MemorySource, Table, TensorInfo, gguf, safetensors};
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

/// A block's bytes and values.
type Block = (Vec<u8>, Vec<f32>);

/// A block of 4 or 5 bits, `x = scale * q / 2 - minimum / 4`, another for each `seed`.
fn affine(bits: usize, seed: usize) -> Block {
    let scale = |part: usize| (seed * 7 + part * 11) % 64;
    let minimum = |part: usize| (seed * 5 + part * 13 + 3) % 64;
    let quant = |at: usize| (seed * 3 + at * 29) % (1 << bits);
    let mut packed = [0; 12];
    for part in 0..4 {
        // Six bits each of this part, and the upper two of the part four further on.
        packed[part] = scale(part) | scale(part + 4) >> 4 << 6;
        packed[part + 4] = minimum(part) | minimum(part + 4) >> 4 << 6;
        packed[part + 8] = scale(part + 4) & 15 | (minimum(part + 4) & 15) << 4;
    }
    let (mut low, mut fifth) = ([0; 128], vec![0; if bits == 5 { 32 } else { 0 }]);
    for at in 0..256 {
        low[at / 64 * 32 + at % 32] |= (quant(at) & 15) << (at % 64 / 32 * 4);
        if let Some(byte) = fifth.get_mut(at % 32) {
            *byte |= quant(at) >> 4 << (at / 32);
        }
    }
    let halves = [f16::from_f32(0.5), f16::from_f32(0.25)].map(f16::to_le_bytes).concat();
    let rest = packed.iter().chain(&fifth).chain(&low).map(|byte| *byte as u8);
    let value = |at: usize| (scale(at / 32) * quant(at)) as f32 / 2.0 - minimum(at / 32) as f32 / 4.0;
    (halves.into_iter().chain(rest).collect(), (0..256).map(value).collect())
}

/// A block of 6 bits, `x = scale * (q - 32) / 2`, another for each `seed`.
fn signed(seed: usize) -> Block {
    let scale = |part: usize| ((seed * 37 + part * 53) as u8).cast_signed();
    let quant = |at: usize| (seed * 5 + at * 29) % 64;
    let (mut low, mut high) = ([0; 128], [0; 64]);
    for at in 0..256 {
        let (part, run, byte) = (at / 128, at % 128 / 32, at % 32);
        low[part * 64 + run % 2 * 32 + byte] |= (quant(at) & 15) << (run / 2 * 4);
        high[part * 32 + byte] |= quant(at) >> 4 << (run * 2);
    }
    let quants = low.iter().chain(&high).map(|byte| *byte as u8);
    let scales = (0..16).map(|part| scale(part).cast_unsigned());
    let bytes = quants.chain(scales).chain(f16::from_f32(0.5).to_le_bytes());
    let value = |at: usize| f32::from(scale(at / 16)) * (quant(at) as f32 - 32.0) / 2.0;
    (bytes.collect(), (0..256).map(value).collect())
}

#[test]
fn rows_of_a_table_are_read_in_any_order() {
    type Maker = fn(usize) -> Block;
    let makers: [(DType, Maker); 3] =
        [(DType::Q4K, |seed| affine(4, seed)), (DType::Q5K, |seed| affine(5, seed)), (DType::Q6K, signed)];
    for (dtype, maker) in makers {
        let blocks: Vec<Block> = (1..9).map(maker).collect();
        let info = TensorInfo::new("table", dtype, vec![4, 512]).unwrap();
        let file = MemorySource(blocks.iter().flat_map(|(bytes, _)| bytes.clone()).collect());
        let row = |row: usize| blocks[2 * row..][..2].iter().flat_map(|(_, values)| values.clone());
        let expected: Vec<f32> = [2, 0, 3, 2].into_iter().flat_map(row).collect();
        for held in [0, info.len] {
            let table = block_on(Table::open(info.clone(), file.clone(), held)).unwrap();
            assert_eq!(table.width(), 512);
            assert_eq!(block_on(table.rows(&[2, 0, 3, 2])).unwrap(), expected, "{dtype}");
        }
    }
}
