//! `imatch submit`: predictions as the challenge takes them.

use std::io::{Cursor, Write as _};
use std::path::PathBuf;

use clap::Args;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::input::read_text;
use super::print;
use crate::data::challenge::{Notes, output};
use crate::data::evalmuse::read_labels;
use crate::data::submission::read_predictions;
use crate::error::{Context as _, Error, Result};
use crate::weights::files::write_whole;

/// Largest file that is read: the predictions of the whole of EvalMuse-40K with their levels.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Predictions: the challenge's form, or what `score --batch` wrote
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// The challenge's list of what to score
    #[arg(long, value_name = "test.json")]
    test: PathBuf,
    /// The archive to write
    #[arg(long, value_name = "submission.zip")]
    out: PathBuf,
    /// Seconds per picture
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    runtime: Option<f64>,
    /// It ran on a GPU
    #[arg(long)]
    gpu: bool,
    /// Other data than the challenge's were learnt from
    #[arg(long)]
    extra_data: bool,
    /// A language model takes part
    #[arg(long)]
    llm: bool,
    /// Anything else that the organisers should know
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    description: String,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let Flags { predictions, test, out, runtime, gpu, extra_data, llm, description } = flags;
    let (runtime, gpu, extra_data, llm) = (*runtime, *gpu, *extra_data, *llm);
    let readme = Notes { runtime, gpu, extra_data, llm, description: description.clone() }.text()?;
    let list = read_labels(&read_text(test, MAX_BYTES)?).context(|| test.display())?;
    let predictions =
        read_predictions(&read_text(predictions, MAX_BYTES)?).context(|| predictions.display())?;
    let output = output(&list, &predictions)?;
    write_whole(out, &archive(&[("output.json", &output.json), ("readme.txt", &readme)])?)?;
    print(&format!("{} pictures with {} elements in {}", output.n_images, output.n_elements, out.display()))
}

/// A ZIP archive of files as they are; equal files give equal bytes at any time.
fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let failed = |error| Error::internal("cannot write an archive").with_source(error);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, options).map_err(failed)?;
        zip.write_all(text.as_bytes()).map_err(|error| failed(error.into()))?;
    }
    Ok(zip.finish().map_err(failed)?.into_inner())
}
