//! `imatch eval`: predictions against labels.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{json, print};
use crate::data::evalmuse::read_labels;
use crate::data::submission::{EvalReport, evaluate, read_predictions};
use crate::error::{Context as _, Error, Result};
use crate::metrics::PlccVariant;

/// Largest file that is read: the whole of EvalMuse-40K has some 60 MB of records.
const MAX_BYTES: u64 = 1 << 30;

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
    let named = |path: &Path| path.display().to_string();
    let labels = read_labels(&read(&flags.labels)?).context(|| named(&flags.labels))?;
    let predictions = read_predictions(&read(&flags.predictions)?).context(|| named(&flags.predictions))?;
    let report = evaluate(&labels, &predictions, flags.plcc)?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    print(&if flags.json { json(&report)? } else { table(&report) })
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    if size > MAX_BYTES {
        return Err(Error::input(format!(
            "{} has {size} bytes, at most {MAX_BYTES} are read",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
    String::from_utf8(bytes).map_err(|_| Error::input(format!("{} is no UTF-8 text", path.display())))
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
