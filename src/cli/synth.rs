//! `imatch synth`: scenes of coloured shapes as pictures with `EvalMuse` records.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{print, progress};
use crate::data::evalmuse::{Rating, Record, write_records};
use crate::data::export::{Raters, items};
use crate::data::synth::Sampler;
use crate::error::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Folder to write: pictures and records.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of pictures
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seed: the same seed gives the same pictures and labels
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of the pictures in pixels
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u16).range(16..=2048))]
    size: u16,
    /// Number of noisy raters; leave it out for the truth itself
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    raters: Option<u16>,
    /// Standard deviation of a rater's overall score
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = factor, requires = "raters")]
    spread: f32,
    /// Probability that a rater gets an element wrong
    #[arg(long, value_name = "X", default_value_t = 0.05, value_parser = share, requires = "raters")]
    flips: f32,
    /// Share of pictures that twice as many raters rate
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = share, requires = "raters")]
    rerated: f32,
    /// Write no labels, as in a test set
    #[arg(long, conflicts_with = "raters")]
    unlabelled: bool,
    /// Seed of another light on the same scenes
    #[arg(long, value_name = "SEED")]
    light: Option<u64>,
}

fn factor(text: &str) -> std::result::Result<f32, String> {
    within(text, 100.0)
}

fn share(text: &str) -> std::result::Result<f32, String> {
    within(text, 1.0)
}

fn within(text: &str, most: f32) -> std::result::Result<f32, String> {
    let value = text.parse().map_err(|_| format!("expected a number, got {text:?}"))?;
    if (0.0..=most).contains(&value) { Ok(value) } else { Err(format!("expected 0 to {most}, got {value}")) }
}

/// A record with its questions and without their answers.
fn unlabelled(mut record: Record) -> Record {
    record.total_score = Rating::Missing;
    record.element_score.iter_mut().for_each(|(_, score)| *score = Rating::Missing);
    record
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let mut sampler = Sampler::new(flags.seed).with_size(flags.size.into());
    if let Some(light) = flags.light {
        sampler = sampler.with_light(light);
    }
    let Flags { spread, flips, rerated, .. } = *flags;
    let raters = flags.raters.map(|count| Raters { count: count.into(), rerated, spread, flips });
    let bar = progress(flags.count);
    let mut records = Vec::new();
    for item in items(sampler, flags.count, raters) {
        let item = item?;
        let path = flags.out.join(&item.record.img_path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        fs::write(&path, &item.png).map_err(|error| Error::io(&path, error))?;
        records.push(if flags.unlabelled { unlabelled(item.record) } else { item.record });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let path = flags.out.join("records.json");
    fs::write(&path, write_records(&records)?).map_err(|error| Error::io(&path, error))?;
    print(&format!("{} pictures and {}", records.len(), path.display()))
}
