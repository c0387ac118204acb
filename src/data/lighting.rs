//! Lighting: what changes every pixel alike and falsifies neither colour nor side nor number.

use super::rng::Rng;
use crate::image::Picture;
use crate::{Error, Result};

/// Quarters of a level that a table of [`Lighting::table`] tells apart.
const QUARTERS: u16 = 1020;

/// One curve for all channels, `255 (clamp(128 + contrast (gain v - 128)) / 255)^gamma`: it rises,
/// so the order of a pixel's channels and with it the name of its colour stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lighting {
    /// Factor on all levels; scenes draw it from 0.85 to 1.15.
    pub gain: f32,
    /// Factor on the distance from the middle level; scenes draw it from 0.88 to 1.12.
    pub contrast: f32,
    /// Exponent; scenes draw it from 0.87 to 1.15.
    pub gamma: f32,
}

impl Lighting {
    /// Brightness, contrast and gamma each up to `strength` above or below one, evenly in their
    /// logarithm, so that lighter and darker are as likely.
    pub fn random(strength: f32, rng: &mut Rng) -> Self {
        let mut factor = || (1.0 + strength).powf(rng.between(-1.0, 1.0));
        Self { gain: factor(), contrast: factor(), gamma: factor() }
    }

    /// A level under this lighting.
    pub fn level(&self, level: f32) -> u8 {
        let level = 128.0 + self.contrast * (self.gain * level - 128.0);
        (255.0 * (level.clamp(0.0, 255.0) / 255.0).powf(self.gamma)).round() as u8
    }

    /// The levels of 0, 0.25, 0.5 and so on to 255.
    pub(super) fn table(&self) -> Vec<u8> {
        (0..=QUARTERS).map(|quarter| self.level(f32::from(quarter) / 4.0)).collect()
    }

    /// A picture under this lighting, with less gain where its brightest level would be cut off:
    /// a channel that is cut off while the others rise turns orange into yellow.
    ///
    /// # Errors
    /// None: the size stays.
    pub fn relit(&self, picture: &Picture) -> Result<Picture> {
        let brightest = f32::from(picture.rgb().iter().copied().max().unwrap_or(0)).max(1.0);
        let most = (127.0 / self.contrast + 128.0) / brightest;
        let light = Self { gain: self.gain.min(most), ..*self };
        let table: Vec<u8> = (0..=u8::MAX).map(|level| light.level(f32::from(level))).collect();
        let rgb = picture.rgb().iter().map(|&level| table[usize::from(level)]).collect();
        Picture::new(picture.width(), picture.height(), rgb)
            .map_err(|error| Error::internal("a picture under another light").with_source(error))
    }
}
