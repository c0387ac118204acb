//! `imatch eval`: predictions against labels.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::input::read_text;
use super::{json, print, say};
use crate::data::evalmuse::read_labels;
use crate::data::submission::{EvalReport, evaluate, read_predictions};
use crate::error::{Context as _, Error, Result};
use crate::metrics::PlccVariant;

/// Largest file that is read: the whole of EvalMuse-40K has some 60 MB of records.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// `EvalMuse` records with scores
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Predictions: the challenge's form, or what `score --batch` wrote
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// How PLCC is fitted: as the official script does, as it is documented, or not at all
    #[arg(long, value_name = "official|documented|raw", default_value = "official", value_parser = parse_plcc)]
    plcc: PlccVariant,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_plcc(text: &str) -> std::result::Result<PlccVariant, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let Flags { labels, predictions, plcc, json: as_json } = flags;
    let records = read_labels(&read_text(labels, MAX_BYTES)?).context(|| labels.display())?;
    let predictions =
        read_predictions(&read_text(predictions, MAX_BYTES)?).context(|| predictions.display())?;
    let report = evaluate(&records, &predictions, *plcc)?;
    for warning in &report.warnings {
        say(&format!("warning: {warning}"));
    }
    print(&if *as_json { json(&report)? } else { table(&report) })
}

fn table(report: &EvalReport) -> String {
    let mut text = format!("{} images, {} elements", report.n_images, report.n_elements);
    let rows = [
        ("SRCC", report.srcc),
        ("PLCC", report.plcc),
        ("KRCC", report.krcc),
        ("RMSE", report.rmse),
        ("accuracy", report.accuracy),
        ("final", report.final_score),
    ];
    for (name, value) in rows {
        let _ = match value {
            Some(value) => write!(text, "\n{name:9}{value:.4}"),
            None => write!(text, "\n{name:9}undefined"),
        };
    }
    text
}
