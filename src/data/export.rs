//! Samples as files: PNG bytes and `EvalMuse` records.

use ::image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::evalmuse::{Rating, Record};
use super::rng::Rng;
use super::synth::{Sample, Sampler};
use crate::{Error, Result};

/// Raters that see the truth through noise, as real ones do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raters {
    /// How many rate each picture.
    pub count: usize,
    /// Share of pictures that twice as many rate; 11.6 % of the published records are such.
    pub rerated: f32,
    /// Standard deviation of a rater's overall score before it is rounded to 1, 2, 3, 4 or 5.
    pub spread: f32,
    /// Probability that a rater gets an element wrong.
    pub flips: f32,
}

/// A picture file and its record.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What to write at [`Record::img_path`] inside the data folder.
    pub png: Vec<u8>,
    /// Its labels; the pictures lie in the folder `shapes`.
    pub record: Record,
}

/// The first `n` samples as files, one after the other.
///
/// Without `raters` the labels are the truth: one number for the whole, 0 or 1 per element.
pub fn items(sampler: Sampler, n: u64, raters: Option<Raters>) -> impl Iterator<Item = Result<Item>> {
    (0..n).map(move |index| item(&sampler.sample(index), index, raters))
}

fn item(sample: &Sample, index: u64, raters: Option<Raters>) -> Result<Item> {
    let mut png = Vec::new();
    let side = u32::try_from(sample.size).unwrap_or(u32::MAX);
    PngEncoder::new(&mut png).write_image(&sample.rgb, side, side, ExtendedColorType::Rgb8).map_err(
        |error| Error::image(format!("cannot write sample {} as PNG", sample.id)).with_source(error),
    )?;
    Ok(Item { png, record: record(sample, index, raters) })
}

fn record(sample: &Sample, index: u64, raters: Option<Raters>) -> Record {
    let truth = |present: bool| if present { 1.0 } else { 0.0 };
    let mut total_score = Rating::Mean(sample.score);
    let mut element_score: Vec<(String, Rating)> =
        sample.elements.iter().map(|(key, present)| (key.clone(), Rating::Mean(truth(*present)))).collect();
    if let Some(Raters { count, rerated, spread, flips }) = raters.filter(|raters| raters.count > 0) {
        // A stream of its own: the same pictures with and without raters.
        let mut rng = Rng::stream(!index, sample.scene.background.seed);
        let count = if Rng::stream(!index, 0x2e).chance(rerated) { 2 * count } else { count };
        let rate = |rng: &mut Rng| (sample.score + f64::from(spread * rng.normal())).clamp(1.0, 5.0).round();
        total_score = Rating::Raters((0..count).map(|_| rate(&mut rng)).collect());
        for ((_, rating), (_, present)) in element_score.iter_mut().zip(&sample.elements) {
            *rating = Rating::Raters((0..count).map(|_| truth(*present != rng.chance(flips))).collect());
        }
    }
    Record {
        prompt_id: Some(sample.id.clone()),
        prompt: sample.prompt.clone(),
        prompt_type: Some(sample.prompt_type),
        img_path: format!("shapes/{index:07}.png"),
        total_score,
        element_score,
        ..Record::default()
    }
}
