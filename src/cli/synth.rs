//! `imatch synth`: scenes of coloured shapes as pictures with `EvalMuse` records.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{print, progress};
use crate::data::evalmuse::write_records;
use crate::data::export::{Raters, items};
use crate::data::synth::Sampler;
use crate::error::{Error, Result};
use crate::weights::files::write_whole;

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
    /// Standard deviation of a rater's overall score [default: 0.5]
    #[arg(long, value_name = "X", value_parser = factor, requires = "raters")]
    spread: Option<f32>,
    /// Probability that a rater gets an element wrong [default: 0.05]
    #[arg(long, value_name = "X", value_parser = share, requires = "raters")]
    flips: Option<f32>,
    /// Share of pictures that twice as many raters rate [default: 0]
    #[arg(long, value_name = "X", value_parser = share, requires = "raters")]
    rerated: Option<f32>,
    /// Write no labels, as in a test set
    #[arg(long, conflicts_with_all = ["raters", "spread", "flips", "rerated"])]
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

pub(super) fn run(flags: &Flags) -> Result<()> {
    let mut sampler = Sampler::new(flags.seed).with_size(flags.size.into());
    if let Some(light) = flags.light {
        sampler = sampler.with_light(light);
    }
    let raters = flags.raters.map(|count| Raters {
        count: count.into(),
        rerated: flags.rerated.unwrap_or(0.0),
        spread: flags.spread.unwrap_or(0.5),
        flips: flags.flips.unwrap_or(0.05),
    });
    let list = flags.out.join("records.json");
    // Pictures without a list are no data; those of an earlier list are not what it says any more.
    if list.exists() {
        fs::remove_file(&list).map_err(|error| Error::io(&list, error))?;
    }
    let bar = progress(flags.count);
    let mut records = Vec::new();
    for item in items(sampler, flags.count, raters) {
        let item = item?;
        let path = flags.out.join(&item.record.img_path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        fs::write(&path, &item.png).map_err(|error| Error::io(&path, error))?;
        records.push(if flags.unlabelled { item.record.without_labels() } else { item.record });
        bar.inc(1);
    }
    bar.finish_and_clear();
    write_whole(&list, write_records(&records)?.as_bytes())?;
    print(&format!("{} pictures and {}", records.len(), list.display()))
}
