//! How far the figures would move with other pictures of the same kind.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::figures::Figures;
use crate::data::pairing::Pair;
use crate::data::rng::Rng;
use crate::metrics::PlccVariant;

/// Share of the resamples within an interval.
const SHARE: f64 = 0.95;

/// Where a figure lies in the middle 95 % of the resamples that define it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The 2.5th percentile; `None` where no resample defines the figure.
    pub low: Option<f64>,
    /// The 97.5th percentile.
    pub high: Option<f64>,
    /// Resamples in which the figure is undefined.
    pub undefined: usize,
}

/// The intervals of all figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// Resamples drawn.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
    /// In the order of [`Figures::NAMES`].
    pub figures: [Interval; 6],
}

impl Serialize for Intervals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resamples", &self.resamples)?;
        map.serialize_entry("seed", &self.seed)?;
        map.serialize_entry("share", &SHARE)?;
        for (name, interval) in Figures::NAMES.iter().zip(&self.figures) {
            map.serialize_entry(name, interval)?;
        }
        map.end()
    }
}

/// Percentile intervals from `resamples` draws of as many pictures with replacement; a picture keeps its elements.
///
/// B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. Percentiles are interpolated
/// linearly between order statistics. Resample i depends on seed and i alone.
pub fn bootstrap(pairs: &[Pair<'_>], variant: PlccVariant, resamples: usize, seed: u64) -> Intervals {
    let pictures: Vec<Picture> = pairs.iter().map(Picture::new).collect();
    let mut draws: [Vec<f64>; 6] = Default::default();
    for index in 0..resamples {
        let mut rng = Rng::stream(seed, index as u64);
        for (draws, value) in draws.iter_mut().zip(resample(&pictures, variant, &mut rng).values()) {
            draws.extend(value);
        }
    }
    let figures = draws.map(|mut draws| {
        draws.sort_by(f64::total_cmp);
        let tail = (1.0 - SHARE) / 2.0;
        let (low, high) = (percentile(&draws, tail), percentile(&draws, 1.0 - tail));
        Interval { low, high, undefined: resamples - draws.len() }
    });
    Intervals { resamples, seed, figures }
}

/// What the figures need of a picture.
struct Picture {
    label: f64,
    score: f64,
    right: usize,
    n_elements: usize,
}

impl Picture {
    fn new(pair: &Pair<'_>) -> Self {
        let right = pair.elements.iter().filter(|element| (element.label >= 0.5) == (element.score >= 0.5));
        Self { label: pair.label, score: pair.score, right: right.count(), n_elements: pair.elements.len() }
    }
}

fn resample(pictures: &[Picture], variant: PlccVariant, rng: &mut Rng) -> Figures {
    let n = pictures.len();
    let (mut labels, mut scores) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut right, mut n_elements) = (0, 0);
    for _ in 0..n {
        let picture = &pictures[rng.below(n)];
        labels.push(picture.label);
        scores.push(picture.score);
        right += picture.right;
        n_elements += picture.n_elements;
    }
    let accuracy = (n_elements > 0).then(|| right as f64 / n_elements as f64);
    Figures::new(&labels, &scores, accuracy, variant)
}

/// The value below which a share of sorted values lies.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}
