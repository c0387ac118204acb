//! PNG, JPEG and WebP bytes to RGB, as Pillow and transformers read them.

use std::io::Cursor;

use ::image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageResult, Limits, RgbImage};

use super::Picture;
use crate::error::{Error, Result};

/// What is refused before anything is allocated for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most bytes of the file; 64 MiB by default.
    pub max_bytes: usize,
    /// Most pixels that the file's header may announce; 64 Mi by default.
    pub max_pixels: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_pixels: 64 << 20 }
    }
}

/// Most bytes that a PNG's metadata may unpack to.
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// Decodes a PNG, JPEG or WebP file to RGB.
///
/// - The EXIF orientation is applied.
/// - Alpha, whole or by palette or key colour, is composited on white with Pillow's
///   rounding.
/// - 16-bit colour keeps the high byte. 16-bit grey is clipped at 255, because that
///   is what Pillow's `convert("RGB")` does to it.
/// - An animation gives its first frame.
///
/// PNG and WebP are equal to Pillow's pixels. JPEG decoders differ from each other:
/// by at most 3 levels where colour is stored in full, by more at edges of saturated
/// colour where it is not.
///
/// # Errors
/// The file is empty, too large, of another format, truncated or corrupt, or its
/// header announces too many pixels; always of [`Kind::Image`](crate::error::Kind::Image).
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    if bytes.is_empty() {
        return Err(Error::image("the picture file is empty"));
    }
    if bytes.len() > limits.max_bytes {
        let (got, most) = (bytes.len(), limits.max_bytes);
        return Err(Error::image(format!("the picture file has {got} bytes, more than the limit of {most}")));
    }
    let reader = Cursor::new(bytes);
    match ::image::guess_format(bytes) {
        Ok(ImageFormat::Png) => {
            // The decoder makes room when it is made, which fails without a size where memory is
            // addressed in 32 bits.
            if let Some([width, height]) = png_size(bytes) {
                check_size(width, height, limits)?;
            }
            let mut memory = Limits::no_limits();
            memory.max_alloc = Some(MAX_METADATA_BYTES);
            read("PNG", PngDecoder::with_limits(reader, memory), is_grey_png(bytes), limits)
        }
        Ok(ImageFormat::Jpeg) if jpeg_ends(bytes) => read("JPEG", JpegDecoder::new(reader), false, limits),
        Ok(ImageFormat::WebP) if webp_ends(bytes) => read("WebP", WebPDecoder::new(reader), false, limits),
        Ok(ImageFormat::Jpeg | ImageFormat::WebP) => Err(Error::image("the picture file is truncated")),
        _ => Err(Error::image("the file is not a PNG, JPEG or WebP picture")),
    }
}

/// Checks the header, decodes, converts to RGB and turns the picture upright.
fn read<D: ImageDecoder>(
    format: &str,
    decoder: ImageResult<D>,
    is_grey: bool,
    limits: &DecodeLimits,
) -> Result<Picture> {
    let failed =
        |error: ImageError| Error::image(format!("cannot decode the {format} picture")).with_source(error);
    let mut decoder = decoder.map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let orientation = orientation(&mut decoder);
    let rgb = to_rgb(DynamicImage::from_decoder(decoder).map_err(failed)?, is_grey)?;
    if orientation == Orientation::NoTransforms {
        return Picture::new(width as usize, height as usize, rgb);
    }
    let image = RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| Error::internal("a decoded picture has another size than its header said"))?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Picture::new(image.width() as usize, image.height() as usize, image.into_bytes())
}

/// Refuses more pixels than the limit.
fn check_size(width: u32, height: u32, limits: &DecodeLimits) -> Result<()> {
    let most = limits.max_pixels;
    if u64::from(width) * u64::from(height) > most as u64 {
        return Err(Error::image(format!(
            "the picture has {width}x{height} pixels, more than the limit of {most}"
        )));
    }
    Ok(())
}

/// The orientation that the EXIF block asks for; a missing or malformed block asks for none.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let chunk = decoder.exif_metadata().ok().flatten().unwrap_or_default();
    // Some writers keep JPEG's prefix in PNG and WebP.
    let exif = chunk.strip_prefix(b"Exif\0\0").unwrap_or(&chunk);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

/// RGB bytes of any decoded picture; `is_grey` says that an alpha channel stands for a key colour of a grey PNG.
fn to_rgb(image: DynamicImage, is_grey: bool) -> Result<Vec<u8>> {
    let high = |level: u16| (level >> 8) as u8;
    Ok(match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => image.iter().flat_map(|&level| [level; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| on_white([p[0]; 3], p[1])).collect(),
        DynamicImage::ImageRgba8(image) => {
            image.pixels().flat_map(|p| on_white([p[0], p[1], p[2]], p[3])).collect()
        }
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|&level| [clip(level); 3]).collect(),
        DynamicImage::ImageLumaA16(image) if is_grey => {
            image.pixels().flat_map(|p| on_white([clip(p[0]); 3], high(p[1]))).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            image.pixels().flat_map(|p| on_white([high(p[0]); 3], high(p[1]))).collect()
        }
        DynamicImage::ImageRgb16(image) => image.iter().map(|&level| high(level)).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| on_white([high(p[0]), high(p[1]), high(p[2])], high(p[3]))).collect()
        }
        _ => return Err(Error::image("the picture's pixels are neither 8-bit nor 16-bit grey or RGB")),
    })
}

/// A 16-bit grey level as Pillow's mode `I;16` converts it to RGB.
fn clip(level: u16) -> u8 {
    level.min(255) as u8
}

/// A colour composited on opaque white.
///
/// With an opaque background, `ImagingAlphaComposite` (Pillow, `src/libImaging/AlphaComposite.c`)
/// reduces to this: weights with 7 more bits than the alpha, and a division by 255 that rounds.
fn on_white(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    colour.map(|level| {
        let sum = (u32::from(level) * alpha + 255 * (255 - alpha)) << 7;
        let rounded = sum + (0x80 << 7);
        ((((rounded >> 8) + rounded) >> 8) >> 7) as u8
    })
}

/// Width and height in a PNG's header: behind the signature of 8 bytes, the first chunk's length
/// of 4 and its name of 4.
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    let side = |at: usize| bytes.get(at..)?.first_chunk().map(|side| u32::from_be_bytes(*side));
    Some([side(16)?, side(20)?])
}

/// Whether a PNG's header says grey without an alpha channel.
fn is_grey_png(bytes: &[u8]) -> bool {
    // Signature 8, chunk length and name 8, width and height 8, bit depth 1, then the colour type.
    bytes.get(25) == Some(&0)
}

/// Whether a JPEG has its end marker; without it the decoder would fill what is missing with grey.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        rest = &rest[at + 1..];
        match *rest {
            [0xd9, ..] => return true,
            // Fill bytes, stuffed data, restart markers and others without a length.
            [0x00 | 0x01 | 0xd0..=0xd8 | 0xff, ..] | [] => {}
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(1 + length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    false
}

/// Whether a WebP has as many bytes as its header promises.
fn webp_ends(bytes: &[u8]) -> bool {
    bytes
        .get(4..8)
        .and_then(|size| size.try_into().ok())
        .is_some_and(|size| u64::from(u32::from_le_bytes(size)) + 8 <= bytes.len() as u64)
}
