//! The command line: what was typed becomes a call into the library, one verb a file.
//!
//! Results go to standard output; errors are exactly one line on standard error, with exit
//! code 2 for bad input and 1 for the rest.

mod batch;
mod convert;
mod eval;
mod input;
mod prompt;
mod report;
mod score;
mod submit;
mod synth;
mod table;
mod train;

use std::io::{ErrorKind as IoErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Kind, Result};

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
    Score(input::Flags),
    /// Show the exact model input of a score, without running the model
    Prompt(input::Flags),
    /// Convert a Hugging Face folder to GGUF files with a manifest
    Convert(convert::Flags),
    /// Fine-tune a checkpoint on records, or train a small model from scratch on synthetic scenes
    Train(Box<train::Flags>),
    /// Write synthetic scenes with prompts and labels
    Synth(synth::Flags),
    /// Compare predictions with human labels
    Eval(eval::Flags),
    /// Write predictions as a submission to the challenge
    Submit(submit::Flags),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    say_panics_once();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return match print(error.to_string().trim_end()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(error) => {
            say(&without_usage(&error));
            return ExitCode::from(2);
        }
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(cli))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Score(flags) => pollster::block_on(score::run(&flags)),
        Verb::Prompt(flags) => pollster::block_on(prompt::run(&flags)),
        Verb::Convert(flags) => pollster::block_on(convert::run(flags)),
        Verb::Train(flags) => train::run(&flags),
        Verb::Synth(flags) => synth::run(&flags),
        Verb::Eval(flags) => eval::run(&flags),
        Verb::Submit(flags) => submit::run(&flags),
    }
}

/// A panic is one line too; those that follow from it in other threads are not said.
fn say_panics_once() {
    static SAID: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|panic| {
        if !SAID.swap(true, Ordering::Relaxed) {
            say(&format!("internal error: {panic}"));
        }
    }));
}

/// One line on standard error, whatever `text` contains; there is nobody to tell when that fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", one_line(text));
}

/// `text` without anything that a reader of lines may take for the end of one.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(breaks).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What clap says before it explains the usage.
fn without_usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .collect();
    let text = said.join("\n");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Prints to standard output; a closed pipe ends quietly.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == IoErrorKind::BrokenPipe => std::process::exit(0),
        result => {
            result.map_err(|error| Error::new(Kind::Io, "cannot write to standard output").with_source(error))
        }
    }
}

/// A value as one line of JSON.
fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a result is no JSON").with_source(error))
}

/// A progress bar on standard error, hidden unless that is a terminal.
fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_breaks_a_line() {
        assert_eq!(one_line("a\r\n\n b\u{b}c\u{85}d\u{2028}e\u{1b}[1m\n"), "a b c d e [1m");
    }
}
