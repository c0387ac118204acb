//! The command line: what was typed becomes a call into the library, one verb a file.
//!
//! Results go to standard output; errors are exactly one line on standard error, with exit
//! code 2 for bad input and 1 for the rest.

mod batch;
mod convert;
mod eval;
mod prompt;
mod score;
mod synth;
mod train;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Kind, Result};
use crate::image::Picture;
use crate::image::decode::{DecodeLimits, decode};
use crate::text::{OverallKind, PromptType, Request};

/// How well does a picture show what its prompt asked for?
#[derive(Debug, Parser)]
#[command(name = "imatch", version, arg_required_else_help = false, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Score a picture against its prompt, as a whole and element by element
    Score(score::Flags),
    /// Show the exact model input of a score, without running the model
    Prompt(prompt::Flags),
    /// Convert a Hugging Face folder to GGUF files with a manifest
    Convert(convert::Flags),
    /// Train a small model from scratch on synthetic scenes
    Train(train::Flags),
    /// Write synthetic scenes with prompts and labels
    Synth(synth::Flags),
    /// Compare predictions with human labels
    Eval(eval::Flags),
}

/// The model and how it is asked.
#[derive(Debug, Clone, Args)]
struct ModelFlags {
    /// Folder of the model: a Hugging Face checkpoint or a converted one
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    device: DeviceKind,
    /// Ask the overall question in this way, whatever the model's scoring options say
    #[arg(long, value_name = "levels|yes_no", value_parser = parse_overall)]
    overall: Option<OverallKind>,
}

/// One picture and what is asked about it.
#[derive(Debug, Clone, Args)]
struct QuestionFlags {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceKind {
    Cpu,
    Gpu,
}

fn parse_overall(text: &str) -> std::result::Result<OverallKind, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

fn parse_prompt_type(text: &str) -> std::result::Result<PromptType, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl QuestionFlags {
    /// Checks the words, then decodes the picture.
    fn read(&self) -> Result<(Request, Picture)> {
        let prompt = self.prompt.clone().ok_or_else(|| Error::input("--prompt is missing"))?;
        let request = Request::new(prompt, &self.elements, self.prompt_type)?;
        let path = self.image.as_ref().ok_or_else(|| Error::input("--image is missing"))?;
        Ok((request, read_picture(path)?))
    }
}

/// A picture file, never read further than the limit.
fn read_picture(path: &std::path::Path) -> Result<Picture> {
    let limits = DecodeLimits::default();
    let size = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    if size > limits.max_bytes as u64 {
        return Err(Error::image(format!(
            "{} has {size} bytes, at most {} are read",
            path.display(),
            limits.max_bytes
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
    decode(&bytes, &limits).map_err(|error| error.context(path.display()))
}

/// Prints to standard output; a closed pipe ends quietly.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => {
            result.map_err(|error| Error::new(Kind::Io, "cannot write to standard output").with_source(error))
        }
    }
}

/// A value as one line of JSON.
fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a result is no JSON").with_source(error))
}

fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Score(flags) => pollster::block_on(score::run(&flags)),
        Verb::Prompt(flags) => prompt::run(&flags),
        Verb::Convert(flags) => pollster::block_on(convert::run(flags)),
        Verb::Train(flags) => train::run(&flags),
        Verb::Synth(flags) => synth::run(&flags),
        Verb::Eval(flags) => eval::run(&flags),
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.to_string().replace(['\n', '\r'], " ");
        eprintln!("internal error at {place}: {text}");
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return match print(error.to_string().trim_end()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(error) => {
            eprintln!("{}", one_line(&error));
            return ExitCode::from(2);
        }
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(cli))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// What clap says before it explains the usage, on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let line = said.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
