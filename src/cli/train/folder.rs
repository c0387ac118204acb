//! The files of a run folder, and what of them is left after a kill.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::settings::Settings;
use crate::cli::input::{read_file, read_text, write_whole};
use crate::cli::{json, progress};
use crate::error::{Error, Result};
use crate::train::{StepLog, curves, write_facts};
use crate::weights::ModelFacts;

/// Longest file of a run folder that is read back.
const MAX_BYTES: u64 = 64 << 20;

/// Longest log that is read back: some eight million steps.
const MAX_LOG: u64 = 1 << 30;

/// A run folder: `run.json` with the options, `metrics.jsonl` with a line per step, `curves.svg`,
/// `checkpoint/`, and at the end `model/` or `adapter/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    /// Refuses a folder in which something is.
    pub(super) fn check_is_free(self) -> Result<()> {
        let is_free = match fs::read_dir(self.0) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(Error::io(self.0, error)),
        };
        if is_free {
            return Ok(());
        }
        Err(Error::input(format!(
            "{} is not empty; add --resume to continue a run or choose another folder",
            self.0.display()
        )))
    }

    /// Writes what a run begins with.
    pub(super) fn begin(self, settings: &Settings, facts: &ModelFacts) -> Result<()> {
        write_facts(facts, self.0)?;
        self.write("run.json", json(settings)?.as_bytes())
    }

    pub(super) fn settings(self) -> Result<Settings> {
        Settings::read(&self.0.join("run.json"), MAX_BYTES)
    }

    pub(super) fn tokenizer(self) -> Result<Vec<u8>> {
        read_file(&self.0.join("tokenizer.json"), MAX_BYTES)
    }

    /// Writes a file under another name and renames it: it is whole or not there.
    pub(super) fn write(self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::create_dir_all(self.0).map_err(|error| Error::io(self.0, error))?;
        write_whole(&self.0.join(name), bytes)
    }

    /// The log, cut back to the steps that the checkpoint knows of.
    pub(super) fn log(self, first: usize, steps: usize, every: usize) -> Result<Log> {
        let path = self.0.join("metrics.jsonl");
        let failed = |error| Error::io(&path, error);
        let past = keep_steps(&path, first)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        let bar = progress(steps as u64);
        bar.set_position(first as u64);
        bar.reset_eta();
        Ok(Log { folder: self.0.to_owned(), path, file, past, bar, every })
    }
}

/// The log of a run while it goes on.
pub(super) struct Log {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    past: Vec<StepLog>,
    bar: ProgressBar,
    every: usize,
}

impl Log {
    /// Writes a step down and moves the bar; draws the curves as often as checkpoints are written.
    pub(super) fn step(&mut self, step: &StepLog) -> Result<()> {
        self.bar.set_position(step.step as u64 + 1);
        if let Some(accuracy) = step.element_accuracy {
            self.bar.set_message(format!("elements {accuracy:.2}"));
        }
        let line = json(step)? + "\n";
        self.file.write_all(line.as_bytes()).map_err(|error| Error::io(&self.path, error))?;
        self.past.push(step.clone());
        if self.past.len().is_multiple_of(self.every) { self.draw() } else { Ok(()) }
    }

    /// Draws the curves of the whole run.
    pub(super) fn finish(&self) -> Result<()> {
        self.bar.finish_and_clear();
        self.draw()
    }

    fn draw(&self) -> Result<()> {
        Folder(&self.folder).write("curves.svg", curves(&self.past)?.as_bytes())
    }
}

/// Cuts the log back to the steps before `next_step`, and returns them.
fn keep_steps(path: &Path, next_step: usize) -> Result<Vec<StepLog>> {
    let failed = |error| Error::io(path, error);
    if !path.try_exists().map_err(failed)? {
        return Ok(Vec::new());
    }
    let text = read_text(path, MAX_LOG)?;
    let kept: Vec<(usize, StepLog)> = text
        .split_inclusive('\n')
        .map_while(|line| {
            let log = serde_json::from_str::<StepLog>(line).ok()?;
            (line.ends_with('\n') && log.step < next_step).then_some((line.len(), log))
        })
        .collect();
    let length: usize = kept.iter().map(|(length, _)| length).sum();
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length as u64)).map_err(failed)?;
    Ok(kept.into_iter().map(|(_, log)| log).collect())
}
