//! Pictures against Pillow and transformers, and against hostile files.

use std::path::PathBuf;

use imatch::config::{Geometry, ImageConfig};
use imatch::error::{Kind, Result};
use imatch::image::Picture;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::image::geometry::smart_resize;
use imatch::image::patches::preprocess;
use imatch::image::resize::{Filter, resize};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

const DECODED: &[u8] = include_bytes!("golden/image/decoded.safetensors");
const RESIZED: &[u8] = include_bytes!("golden/image/resized.safetensors");
const PIXEL_VALUES: &[u8] = include_bytes!("golden/image/pixel_values.safetensors");
const REFERENCE: &str = include_str!("golden/image/reference.json");

/// What makes a configuration senseless.
type Change = fn(&mut ImageConfig);

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/image").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decode_file(name: &str) -> Picture {
    decode(&file(name), &DecodeLimits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn reference() -> Value {
    serde_json::from_str(REFERENCE).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Largest difference of a decoded picture from the expected one of the same size.
fn difference(name: &str) -> u8 {
    let tensors = SafeTensors::deserialize(DECODED).unwrap();
    let expected = tensors.tensor(name).unwrap();
    let picture = decode_file(name);
    assert_eq!(expected.shape(), [picture.height(), picture.width(), 3], "{name}");
    picture.rgb().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn noise(width: usize, height: usize) -> Picture {
    let mut state = 1_u32;
    let rgb = (0..3 * width * height).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Picture::new(width, height, rgb.collect()).unwrap()
}

fn scaled(min_pixels: usize, max_pixels: usize) -> Geometry {
    Geometry::Scaled { min_pixels, max_pixels }
}

fn qwen3() -> ImageConfig {
    ImageConfig {
        patch_size: 16,
        temporal_patch_size: 2,
        merge_size: 2,
        geometry: scaled(65536, 16_777_216),
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale_factor: 1.0 / 255.0,
        resample: 3,
    }
}

fn assert_image_error<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Image, "{error}");
    let text = error.to_string();
    assert!(text.contains(expected), "{text:?} does not contain {expected:?}");
    assert!(!text.contains('\n') && !text.trim().is_empty() && !text.ends_with('.'), "{text:?}");
}

#[test]
fn decoded_pixels_equal_pillows() {
    let tensors = SafeTensors::deserialize(DECODED).unwrap();
    let names: Vec<_> = tensors.names().into_iter().map(str::to_owned).collect();
    assert!(names.len() >= 30, "only {} pictures", names.len());
    for name in names {
        // The standard lets JPEG decoders round differently, and upsampling of colour is theirs to choose.
        let most = if name.contains(".jpg") { 4 } else { 0 };
        let got = difference(&name);
        assert!(got <= most, "{name}: differs by {got} levels, expected at most {most}");
    }
}

#[test]
fn every_level_with_every_alpha_is_composited_as_pillow_does() {
    let picture = decode_file("rgba_levels.png");
    assert_eq!(sha256(picture.rgb()), reference()["sha256"]["rgba_levels.png"]);
}

#[test]
fn resized_bytes_equal_pillows() {
    let tensors = SafeTensors::deserialize(RESIZED).unwrap();
    let source = decode_file("rgb.png");
    let dot = Picture::new(1, 1, source.rgb()[..3].to_vec()).unwrap();
    for (name, expected) in tensors.tensors() {
        let (filter, size) = name.split_once(' ').unwrap();
        let picture = if size == "dot" { &dot } else { &source };
        let [height, width, _] = expected.shape() else { panic!("{name}") };
        let got = resize(picture, *width, *height, filter_named(filter)).unwrap();
        assert!(got.rgb() == expected.data(), "{name} differs");
    }
}

fn filter_named(name: &str) -> Filter {
    match name {
        "lanczos" => Filter::Lanczos,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        _ => panic!("{name}"),
    }
}

#[test]
fn far_up_and_down_again_equals_pillow() {
    let source = decode_file("rgb.png");
    let reference = reference();
    for name in ["lanczos", "bilinear", "bicubic"] {
        let large = resize(&source, 1403, 997, filter_named(name)).unwrap();
        assert_eq!(sha256(large.rgb()), reference["sha256"][format!("{name} 1403x997")], "{name}");
        let small = resize(&large, 331, 210, filter_named(name)).unwrap();
        assert_eq!(sha256(small.rgb()), reference["sha256"][format!("{name} 1403x997 331x210")], "{name}");
    }
}

#[test]
fn a_constant_picture_stays_constant() {
    for level in [0, 1, 128, 255] {
        let picture = Picture::new(13, 7, vec![level; 3 * 13 * 7]).unwrap();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (width, height) in [(1, 1), (5, 31), (40, 2), (13, 8)] {
                let resized = resize(&picture, width, height, filter).unwrap();
                assert!(resized.rgb().iter().all(|&got| got == level), "{level} {filter:?} {width}x{height}");
            }
        }
    }
}

#[test]
fn sizes_equal_smart_resize() {
    let reference = reference();
    let table = reference["smart_resize"].as_array().unwrap();
    assert!(table.len() > 500);
    for row in table {
        let number = |i: usize| row[i].as_u64().unwrap() as usize;
        let got = smart_resize(number(0), number(1), number(2), number(3), number(4));
        match row[5].as_array() {
            Some(expected) => {
                let (height, width) = got.unwrap_or_else(|error| panic!("{row}: {error}"));
                assert_eq!(
                    [height as u64, width as u64],
                    [&expected[0], &expected[1]].map(|v| v.as_u64().unwrap())
                );
            }
            None => assert_eq!(got.unwrap_err().kind(), Kind::Image, "{row}"),
        }
    }
}

#[test]
fn pixel_values_equal_transformers_bit_for_bit() {
    let tensors = SafeTensors::deserialize(PIXEL_VALUES).unwrap();
    let reference = reference();
    for (name, case) in reference["preprocess"].as_object().unwrap() {
        let config: ImageConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let patches = preprocess(&decode_file(case["file"].as_str().unwrap()), &config).unwrap();
        assert_eq!(serde_json::json!(patches.grid_thw), case["grid_thw"], "{name}");
        assert_eq!(serde_json::json!(patches.row_len), case["row_len"], "{name}");
        assert_eq!(patches.data.len(), patches.n_rows() * patches.row_len, "{name}");
        assert_eq!(patches.n_rows(), 4 * patches.n_tokens(2), "{name}");
        let bytes: Vec<u8> = patches.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        if let Ok(expected) = tensors.tensor(name) {
            let wrong = bytes.chunks(4).zip(expected.data().chunks(4)).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "{name}: first differing number");
        }
        assert_eq!(sha256(&bytes), reference["sha256"][format!("pixel_values {name}")], "{name}");
    }
}

#[test]
fn a_picture_of_one_pixel_becomes_the_smallest_grid() {
    let patches = preprocess(&Picture::new(1, 1, vec![255, 0, 255]).unwrap(), &qwen3()).unwrap();
    assert_eq!(patches.grid_thw, [1, 16, 16]);
    assert_eq!(patches.n_tokens(2), 64);
    let channels: Vec<_> = patches.data[..1536].iter().step_by(512).copied().collect();
    assert_eq!(channels, [1.0, -1.0, 1.0]);
}

#[test]
fn an_aspect_ratio_above_200_is_refused() {
    assert!(preprocess(&noise(200, 1), &qwen3()).is_ok());
    assert_image_error(preprocess(&noise(201, 1), &qwen3()), "201x1 pixels has an aspect ratio of 201.0");
    assert_image_error(preprocess(&noise(1, 402), &qwen3()), "aspect ratio of 402.0");
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let picture = noise(3, 3);
    let cases: [(&str, Change); 11] = [
        ("patch_size is 0", |c| c.patch_size = 0),
        ("merge_size is 0", |c| c.merge_size = 0),
        ("temporal_patch_size is 0", |c| c.temporal_patch_size = 0),
        ("patch_size is 18446744073709551615", |c| c.patch_size = usize::MAX),
        ("at most 0 pixels", |c| c.geometry = scaled(1 << 17, 0)),
        ("more than the limit", |c| c.geometry = scaled(1 << 40, 1 << 40)),
        ("more than the limit", |c| c.geometry = scaled(usize::MAX, usize::MAX)),
        ("more than the limit", |c| c.temporal_patch_size = 1024),
        ("image_std 0", |c| c.std[1] = 0.0),
        ("rescale_factor inf", |c| c.rescale_factor = f64::INFINITY),
        ("image_mean NaN", |c| c.mean[2] = f64::NAN),
    ];
    for (expected, change) in cases {
        let mut config = ImageConfig { geometry: scaled(1 << 17, 1 << 26), ..qwen3() };
        change(&mut config);
        let error = preprocess(&picture, &config).unwrap_err();
        assert_eq!(error.kind(), Kind::Model, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = preprocess(&picture, &ImageConfig { resample: 0, ..qwen3() }).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.to_string(), "resample is 0, expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)");
}

#[test]
fn absurd_sizes_are_refused_without_allocating() {
    let picture = noise(3, 3);
    for (width, height) in [(0, 1), (1, 0), (usize::MAX, 2), (1 << 20, 1 << 20)] {
        assert_image_error(
            resize(&picture, width, height, Filter::Bicubic),
            "cannot resize a picture of 3x3",
        );
    }
    assert_image_error(Picture::new(usize::MAX, 3, vec![0; 3]), "does not have 3 bytes");
    assert_image_error(Picture::new(0, 3, vec![]), "the picture has no pixels: 0x3");
    assert_image_error(smart_resize(0, 3, 32, 1, 10), "the picture has no pixels: 3x0");
}

#[test]
fn what_is_no_picture_is_refused() {
    let limits = DecodeLimits::default();
    assert_image_error(decode(b"", &limits), "the picture file is empty");
    let none = "the file is not a PNG, JPEG or WebP picture";
    assert_image_error(decode(b"\0", &limits), none);
    assert_image_error(decode(b"GIF89a\x01\0\x01\0\0\0\0;", &limits), none);
    assert_image_error(decode("<svg xmlns=''/>".repeat(99).as_bytes(), &limits), none);
    assert_image_error(decode(&file("rgb.png"), &DecodeLimits { max_bytes: 100, ..limits }), "limit of 100");
    assert_image_error(
        decode(&file("rgb.png"), &DecodeLimits { max_pixels: 1188, ..limits }),
        "41x29 pixels, more than the limit of 1188",
    );
    assert!(decode(&file("rgb.png"), &DecodeLimits { max_pixels: 1189, ..limits }).is_ok());
}

#[test]
fn a_header_of_30000_by_30000_is_refused_before_decoding() {
    let limits = DecodeLimits::default();
    let side = 30_000_u32.to_be_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([side, side].concat());
    png.extend([8, 6, 0, 0, 0]);
    png.extend(crc32(&png[12..]).to_be_bytes());
    assert_image_error(decode(&png, &limits), "30000x30000 pixels, more than the limit");
    png.extend(b"\0\0\0\0IDAT");
    png.extend(crc32(b"IDAT").to_be_bytes());
    assert_image_error(decode(&png, &limits), "30000x30000 pixels, more than the limit");

    let mut jpeg = file("progressive.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    assert_image_error(decode(&jpeg, &limits), "30000x30000 pixels, more than the limit");

    let mut webp = file("lossy.webp");
    let start = webp.windows(3).position(|w| w == [0x9d, 0x01, 0x2a]).unwrap();
    webp[start + 3..start + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert_image_error(decode(&webp, &limits), "16383x16383 pixels, more than the limit");
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn no_beginning_of_a_file_decodes_to_something_else() {
    let names = [
        "rgba.png",
        "grey16.png",
        "animated.png",
        "turned.jpg",
        "progressive.jpg",
        "lossless.webp",
        "lossy_alpha.webp",
    ];
    for name in names {
        let bytes = file(name);
        let whole = decode_file(name);
        for length in 0..bytes.len() {
            match decode(&bytes[..length], &DecodeLimits::default()) {
                // A PNG may lack what follows its pixels.
                Ok(picture) => assert!(picture == whole && name.contains(".png"), "{name}: {length} bytes"),
                Err(error) => assert_eq!(error.kind(), Kind::Image, "{name}: {length} bytes"),
            }
        }
    }
}

#[test]
fn corrupted_bytes_give_a_picture_or_an_error() {
    let names = [
        "rgba.png",
        "palette_alpha.png",
        "turned.jpg",
        "cmyk.jpg",
        "lossless.webp",
        "lossy.webp",
        "animated.webp",
    ];
    for name in names {
        let whole = file(name);
        for at in 0..whole.len() {
            for value in [0x00, 0xff, whole[at] ^ 0x40] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Err(error) =
                    decode(&bytes, &DecodeLimits { max_pixels: 1 << 16, ..Default::default() })
                {
                    assert_eq!(error.kind(), Kind::Image, "{name}: byte {at}");
                    assert!(!error.to_string().contains('\n'), "{name}: byte {at}");
                }
            }
        }
    }
}

#[test]
fn the_digest_tells_pictures_and_shapes_apart() {
    let rgb: Vec<u8> = (0..18).collect();
    let wide = Picture::new(3, 2, rgb.clone()).unwrap();
    assert_ne!(wide.sha256(), Picture::new(2, 3, rgb.clone()).unwrap().sha256());
    assert_eq!(wide.sha256(), Picture::new(3, 2, rgb.clone()).unwrap().sha256());
    let bytes = [&3_u64.to_le_bytes()[..], &2_u64.to_le_bytes(), &rgb].concat();
    assert_eq!(wide.sha256_hex(), sha256(&bytes));
}
