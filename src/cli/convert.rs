//! `imatch convert`: another precision, with manifest and golden answers.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::print;
use crate::engine::{Engine, Place, selftest};
use crate::error::{Error, Result};
use crate::weights::files::write_whole;
use crate::weights::{Bundle, ConvertJob, DType, convert};

/// Largest model, in bytes of weights, whose golden answers are recorded: recording scores a
/// picture on the CPU.
const MAX_RECORDED: u64 = 512 << 20;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Hugging Face folder
    #[arg(long, value_name = "HF_DIR")]
    model: PathBuf,
    /// Type of the matrices
    #[arg(long, value_enum)]
    quant: Quant,
    /// `LoRA` adapter to merge, a folder as PEFT writes it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sentence about the model for the manifest
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What people call the model, the folder's name where not given
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Licence of the weights, as an SPDX expression
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Quant {
    #[value(name = "f32")]
    F32,
    #[value(name = "f16")]
    F16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

pub(super) async fn run(flags: Flags) -> Result<()> {
    let quant = match flags.quant {
        Quant::F32 => DType::F32,
        Quant::F16 => DType::F16,
        Quant::Q8 => DType::Q8_0,
        Quant::Q4 => DType::Q4_0,
    };
    let out = flags.out.clone();
    let job = ConvertJob { model_dir: flags.model, quant, out_dir: flags.out, adapter: flags.adapter };
    let mut report = convert(job).await?;
    let manifest = &mut report.manifest;
    if let Some(name) = flags.name {
        manifest.name = name;
    }
    manifest.description = match (flags.description, manifest.description.take()) {
        (Some(text), Some(provenance)) => Some(format!("{text} ({provenance})")),
        (text, provenance) => text.or(provenance),
    };
    manifest.license = flags.license;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    if bytes <= MAX_RECORDED {
        let bundle = Bundle::open(&out).await?;
        let engine = Engine::load(bundle, Place::cpu(), async |_, _| Ok(())).await?;
        manifest.golden = selftest::record(&engine)
            .await?
            .iter()
            .map(|golden| serde_json::to_value(golden).map_err(|error| Error::internal(error.to_string())))
            .collect::<Result<_>>()?;
    }
    write_whole(&out.join("manifest.json"), &manifest.to_bytes()?)?;
    let mut line = format!("{}: {bytes} bytes; {}", out.display(), report.load);
    if !report.fallbacks.is_empty() {
        let _ = write!(line, "; stored as f16: {}", report.fallbacks.join(", "));
    }
    print(&line)
}
