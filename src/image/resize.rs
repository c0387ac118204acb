//! Resampling, bit for bit as Pillow's `Image.resize` does it for 8-bit pictures.
//!
//! The filter is widened by the scale when shrinking (antialiasing), weights are
//! fixed-point numbers, and the result of the first pass is rounded to 8 bits
//! before the second. Browsers and other libraries round elsewhere and differ by
//! many levels at edges.
//!
//! Source: `src/libImaging/Resample.c` of Pillow.

use std::borrow::Cow;

use super::Picture;
use crate::error::{Error, Result};

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for sign and overshoot (`PRECISION_BITS`).
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half a unit in the last place of the result, which makes the final shift round.
const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

/// Most pixels of a result or of the picture between the two passes: an absurd size is an error, not an allocation.
const MAX_PIXELS: usize = 1 << 28;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Triangle of radius 1.
    Bilinear,
    /// Cubic of radius 2 with a = -0.5.
    Bicubic,
    /// Windowed sinc of radius 3.
    Lanczos,
}

impl Filter {
    /// The filter with Pillow's number: 1 Lanczos, 2 bilinear, 3 bicubic; the others are unsupported.
    pub fn from_pillow(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::Lanczos),
            2 => Ok(Self::Bilinear),
            3 => Ok(Self::Bicubic),
            _ => Err(Error::unsupported(format!(
                "resample is {number}, expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"
            ))),
        }
    }

    /// Distance from the centre beyond which the filter is zero, in source pixels.
    fn radius(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The filter's value at a signed distance from its centre.
    fn value(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic => cubic(x),
            // Pillow's window is open at the right end, where the sine is zero anyway.
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Keys' cubic convolution kernel with a = -0.5, at a distance of zero or more.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// sin(pi x) / (pi x).
fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// For every output position along one axis: the first source position and the weights from there on.
struct Taps {
    /// First source position and where the weights begin and end.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    /// Weights times two to the [`PRECISION_BITS`].
    weights: Vec<i32>,
}

impl Taps {
    /// Taps that take `input` positions to `output` positions, both at least 1.
    fn new(input: usize, output: usize, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.radius() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut taps = Self { spans: Vec::with_capacity(output), weights: Vec::new() };
        let mut values = Vec::new();
        for position in 0..output {
            let centre = (position as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            values.clear();
            values.extend((start..end).map(|i| filter.value((i as f64 - centre + 0.5) * inverse)));
            let sum: f64 = values.iter().sum();
            let begin = taps.weights.len();
            taps.weights.extend(values.iter().map(|value| fixed_point(value / sum)));
            taps.spans.push((start, begin..taps.weights.len()));
        }
        taps
    }

    /// First source position and weights of every output position in turn.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|(start, range)| (*start, &self.weights[range.clone()]))
    }
}

/// A weight as a fixed-point number, halves away from zero.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    if scaled < 0.0 { (scaled - 0.5) as i32 } else { (scaled + 0.5) as i32 }
}

/// A fixed-point sum as a byte.
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The picture at another size.
///
/// A pass whose size does not change is left out, so that the same size gives the same bytes.
///
/// # Errors
/// A side is zero, or the result or the picture between the passes would have more than 2^28 pixels.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Result<Picture> {
    let rows = height.max(picture.height);
    if width == 0 || height == 0 || width.checked_mul(rows).is_none_or(|pixels| pixels > MAX_PIXELS) {
        return Err(Error::image(format!(
            "cannot resize a picture of {}x{} pixels to {width}x{height}",
            picture.width, picture.height
        )));
    }
    let picture = Cow::Borrowed(picture);
    let resized = if is_vertical_first(&picture, width, height) {
        horizontal(vertical(picture, height, filter), width, filter)
    } else {
        vertical(horizontal(picture, width, filter), height, filter)
    };
    Ok(resized.into_owned())
}

/// Whether the vertical pass comes first: where more than twice as many rows as columns go away.
///
/// Source: Pillow 13.0.0, <https://github.com/python-pillow/Pillow/pull/9549>, the exact
/// condition measured; earlier versions always begin with the horizontal pass.
fn is_vertical_first(picture: &Picture, width: usize, height: usize) -> bool {
    let removed_columns = picture.width as i64 - width as i64;
    let removed_rows = picture.height as i64 - height as i64;
    removed_rows > 0 && removed_rows > 2 * removed_columns
}

/// Every row at another width.
fn horizontal(picture: Cow<'_, Picture>, width: usize, filter: Filter) -> Cow<'_, Picture> {
    if width == picture.width {
        return picture;
    }
    let taps = Taps::new(picture.width, width, filter);
    let mut rgb = Vec::with_capacity(3 * width * picture.height);
    for row in picture.rgb.chunks_exact(3 * picture.width) {
        for (start, weights) in taps.iter() {
            let mut sums = [ROUNDING; 3];
            for (pixel, &weight) in row[3 * start..].chunks_exact(3).zip(weights) {
                for (sum, &level) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(level) * weight;
                }
            }
            rgb.extend(sums.map(to_byte));
        }
    }
    Cow::Owned(Picture { width, height: picture.height, rgb })
}

/// Every column at another height, a whole row at a time.
fn vertical(picture: Cow<'_, Picture>, height: usize, filter: Filter) -> Cow<'_, Picture> {
    if height == picture.height {
        return picture;
    }
    let taps = Taps::new(picture.height, height, filter);
    let row_bytes = 3 * picture.width;
    let mut rgb = Vec::with_capacity(row_bytes * height);
    let mut sums = vec![ROUNDING; row_bytes];
    for (start, weights) in taps.iter() {
        sums.fill(ROUNDING);
        for (row, &weight) in picture.rgb[start * row_bytes..].chunks_exact(row_bytes).zip(weights) {
            for (sum, &level) in sums.iter_mut().zip(row) {
                *sum += i32::from(level) * weight;
            }
        }
        rgb.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    Cow::Owned(Picture { width: picture.width, height, rgb })
}
