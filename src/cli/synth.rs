//! `imatch synth`: scenes of coloured shapes as pictures with `EvalMuse` records.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{print, progress};
use crate::data::evalmuse::write_records;
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
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let sampler = Sampler::new(flags.seed).with_size(flags.size.into());
    let raters = flags.raters.map(|count| Raters { count: count.into(), spread: 0.5, flips: 0.05 });
    let bar = progress(flags.count);
    let mut records = Vec::new();
    for item in items(sampler, flags.count, raters) {
        let item = item?;
        let path = flags.out.join(&item.record.img_path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        fs::write(&path, &item.png).map_err(|error| Error::io(&path, error))?;
        records.push(item.record);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let path = flags.out.join("records.json");
    fs::write(&path, write_records(&records)?).map_err(|error| Error::io(&path, error))?;
    print(&format!("{} pictures and {}", records.len(), path.display()))
}
