//! Pictures: decoding, geometry, resizing and patches, as transformers and Pillow do it.
//!
//! The path is [`decode`](decode::decode) (bytes to RGB), then
//! [`preprocess`](patches::preprocess), which picks a size
//! ([`smart_resize`](geometry::smart_resize)), resamples
//! ([`resize`](resize::resize)), normalises and cuts into patches. Everything is
//! 8-bit until normalisation, because that is where Pillow rounds.

pub mod decode;
pub mod geometry;
pub mod patches;
pub mod resize;

use sha2::digest::Output;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A decoded picture: 8 bits per channel, RGB interleaved, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of `width` by `height` pixels from `3 * width * height` bytes.
    ///
    /// Fails where a side is zero or the number of bytes does not match.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::image(format!("the picture has no pixels: {width}x{height}")));
        }
        let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if expected != Some(rgb.len()) {
            let got = rgb.len();
            return Err(Error::image(format!(
                "an RGB picture of {width}x{height} pixels does not have {got} bytes"
            )));
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The `3 * width * height` bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// SHA-256 over width and height (64-bit little-endian each) and the pixels: what caches key on.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest().into()
    }

    /// [`Self::sha256`] as 64 lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        format!("{:x}", self.digest())
    }

    fn digest(&self) -> Output<Sha256> {
        let mut hasher = Sha256::new();
        hasher.update((self.width as u64).to_le_bytes());
        hasher.update((self.height as u64).to_le_bytes());
        hasher.update(&self.rgb);
        hasher.finalize()
    }
}
