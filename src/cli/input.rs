//! What the verbs share: flags of the model and of the question, pictures and texts with limits.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::engine::{Place, Processor};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::image::decode::{DecodeLimits, decode};
use crate::text::{OverallKind, PromptType, Request};
use crate::weights::ModelFacts;
use crate::weights::files::read_file;

/// What `score` and `prompt` are told: the same.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) model: ModelFlags,
    #[command(flatten)]
    pub(super) question: QuestionFlags,
    #[command(flatten)]
    pub(super) batch: BatchFlags,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// The model and how it is asked.
#[derive(Debug, Clone, Args)]
pub(super) struct ModelFlags {
    /// Folder of the model: a Hugging Face checkpoint, a converted one or a GGUF pair (or its decoder file)
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub(super) device: DeviceKind,
    /// Ask the overall question in this way, whatever the model's scoring options say
    #[arg(long, value_name = "levels|yes_no", value_parser = parse_overall)]
    pub(super) overall: Option<OverallKind>,
}

/// One picture and what is asked about it.
#[derive(Debug, Clone, Args)]
pub(super) struct QuestionFlags {
    /// The picture: PNG, JPEG or WebP
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The prompt that the picture should show
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A part of the prompt that gets a score of its own, with its category
    #[arg(long = "element", value_name = "TEXT (CATEGORY)", allow_hyphen_values = true)]
    elements: Vec<String>,
    /// Where the prompt comes from
    #[arg(long, value_name = "real|synthetic", value_parser = parse_prompt_type)]
    prompt_type: Option<PromptType>,
}

/// Many pictures instead of one.
#[derive(Debug, Clone, Args)]
pub(super) struct BatchFlags {
    /// Take pictures and questions from JSON lines: `img_path` (relative to the file), `prompt`, `elements`, `prompt_type`
    #[arg(long, value_name = "IN.jsonl", requires = "out", conflicts_with_all = ["image", "prompt", "elements", "prompt_type"])]
    pub(super) batch: Option<PathBuf>,
    /// Where the results of --batch go; what is there already is not done again
    #[arg(long, value_name = "OUT.jsonl", requires = "batch")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DeviceKind {
    Cpu,
    Gpu,
}

impl DeviceKind {
    /// The device, if this build and machine have it.
    pub(super) fn place(self) -> Result<Place> {
        match self {
            Self::Cpu => Ok(Place::cpu()),
            #[cfg(feature = "cuda")]
            Self::Gpu => Ok(Place { device: burn::tensor::Device::cuda(0_usize), name: "gpu".into() }),
            #[cfg(all(feature = "gpu", not(feature = "cuda")))]
            Self::Gpu => {
                let device = burn::tensor::Device::wgpu_options()
                    .init()
                    .map_err(|error| Error::device("no GPU device").with_source(error.to_string()))?;
                Ok(Place { device, name: "gpu".into() })
            }
            #[cfg(not(any(feature = "gpu", feature = "cuda")))]
            Self::Gpu => Err(Error::unsupported(
                "this build has no GPU back end; build with --features gpu or --features cuda, or use --device cpu",
            )),
        }
    }
}

fn parse_overall(text: &str) -> std::result::Result<OverallKind, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

fn parse_prompt_type(text: &str) -> std::result::Result<PromptType, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl ModelFlags {
    /// What stands before the model, with the flags applied; no weights are read.
    pub(super) async fn processor(&self) -> Result<Processor> {
        let mut facts = ModelFacts::open(&self.model).await?;
        if let Some(kind) = self.overall {
            facts.scoring = facts.scoring.with_overall(kind);
        }
        Processor::new(facts)
    }
}

impl QuestionFlags {
    /// Checks the words, then decodes the picture.
    pub(super) fn read(&self) -> Result<(Request, Picture)> {
        let prompt = self.prompt.clone().ok_or_else(|| Error::input("--prompt is missing"))?;
        let request = Request::new(prompt, &self.elements, self.prompt_type)?;
        let path = self.image.as_ref().ok_or_else(|| Error::input("--image is missing"))?;
        Ok((request, read_picture(path)?))
    }
}

/// A picture file, decoded.
pub(super) fn read_picture(path: &Path) -> Result<Picture> {
    let limits = DecodeLimits::default();
    let bytes = read_file(path, limits.max_bytes as u64)?;
    decode(&bytes, &limits).map_err(|error| error.context(path.display()))
}

/// [`read_file`] of UTF-8 text.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    String::from_utf8(read_file(path, max_bytes)?)
        .map_err(|_| Error::input(format!("{} is no UTF-8 text", path.display())))
}
