//! The files of a run folder, and what of them is left after a kill.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::settings::{DataFile, Settings};
use crate::cli::input::read_text;
use crate::cli::{json, progress};
use crate::error::{Error, Result};
use crate::train::{RecordSet, StepLog, curves};
use crate::weights::ModelFacts;
use crate::weights::files::{read_file, write_whole};
use crate::weights::manifest::Hasher;

/// Longest file of a run folder that is read back.
const MAX_BYTES: u64 = 64 << 20;

/// Longest log that is read back: some eight million steps.
const MAX_LOG: u64 = 1 << 30;

/// Held by the process that trains.
const LOCK: &str = "run.lock";

/// What a phase learns from, as hashes.
const INPUTS: &str = "inputs.json";

/// What a phase learns from: it goes on only from the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// SHA-256 of the options, without the places of files.
    settings: String,
    /// SHA-256 of the base's weights and of everything beside them.
    model: String,
    /// SHA-256 over the lists and which of their records can be used.
    records: String,
    /// How many can.
    usable: usize,
}

impl Inputs {
    /// Of options, a base (the hash of its weights and the rest) and what is learnt from.
    pub(super) fn new(
        settings: &Settings,
        weights: &str,
        facts: &ModelFacts,
        records: Option<(&RecordSet, &[DataFile])>,
    ) -> Result<Self> {
        let mut lists = Hasher::default();
        for file in records.iter().flat_map(|(_, files)| files.iter()) {
            lists.update(file.sha256.as_bytes());
        }
        if let Some((set, _)) = records {
            lists.update(&set.place_bytes());
        }
        let hash = |bytes: &[&[u8]]| {
            let mut hasher = Hasher::default();
            for part in bytes {
                hasher.update(part);
            }
            hasher.finish().1
        };
        let config = json(&facts.config.to_json())?;
        let (image, scoring) = (json(&facts.image.to_json())?, json(&facts.scoring)?);
        let parts = [weights, &config, &image, &scoring].map(str::as_bytes);
        Ok(Self {
            settings: hash(&[json(&settings.anywhere())?.as_bytes()]),
            model: hash(&[parts.as_slice(), &[&facts.tokenizer]].concat()),
            records: lists.finish().1,
            usable: records.map_or(0, |(set, _)| set.len()),
        })
    }
}

/// A run folder: `run.json` with the options, `metrics.jsonl` with a line per step, `curves.svg`,
/// `checkpoint/`, and at the end `model/` or `adapter/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    /// Refuses a folder in which something is.
    pub(super) fn check_is_free(self) -> Result<()> {
        let is_free = match fs::read_dir(self.0) {
            Ok(entries) => entries.flatten().all(|entry| entry.file_name() == LOCK),
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

    /// Keeps other processes out until the result is dropped.
    pub(super) fn lock(self) -> Result<File> {
        let path = self.0.join(LOCK);
        let failed = |error| Error::io(&path, error);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                Err(Error::input(format!("{} is being trained in by another process", self.0.display())))
            }
        }
    }

    /// Writes down what a phase learns from, or refuses what is not what it began with.
    pub(super) fn check_inputs(self, inputs: &Inputs) -> Result<()> {
        let path = self.0.join(INPUTS);
        if !path.exists() {
            return self.write(INPUTS, json(inputs)?.as_bytes());
        }
        let begun: Inputs = serde_json::from_slice(&read_file(&path, MAX_BYTES)?)
            .map_err(|error| Error::input(format!("{} cannot be read", path.display())).with_source(error))?;
        let changed = [
            ("options", begun.settings != inputs.settings),
            ("model", begun.model != inputs.model),
            ("records or pictures", begun.records != inputs.records || begun.usable != inputs.usable),
        ];
        match changed.into_iter().find(|(_, changed)| *changed) {
            None => Ok(()),
            Some((what, _)) => Err(Error::input(format!(
                "the {what} of the run in {} changed since it was started ({} records could be used, now {})",
                self.0.display(),
                begun.usable,
                inputs.usable
            ))),
        }
    }

    pub(super) fn settings(self) -> Result<Settings> {
        Settings::read(&self.0.join("run.json"), MAX_BYTES)
    }

    /// The tokenizer that the run was started with; none where a kill came before it was written.
    pub(super) fn tokenizer(self) -> Result<Option<Vec<u8>>> {
        let path = self.0.join("tokenizer.json");
        if path.exists() { read_file(&path, MAX_BYTES).map(Some) } else { Ok(None) }
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
    let damaged =
        |what: &str| Error::input(format!("{} is damaged: {what}; mend it or delete it", path.display()));
    let kept: Vec<(usize, StepLog)> = text
        .split_inclusive('\n')
        .map_while(|line| {
            let log = serde_json::from_str::<StepLog>(line).ok()?;
            (line.ends_with('\n') && log.step < next_step).then_some((line.len(), log))
        })
        .collect();
    if kept.iter().enumerate().any(|(step, (_, log))| log.step != step) || kept.len() != next_step {
        return Err(damaged(&format!("expected steps 0 to {next_step} in order, got {}", kept.len())));
    }
    let length: usize = kept.iter().map(|(length, _)| length).sum();
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length as u64)).map_err(failed)?;
    Ok(kept.into_iter().map(|(_, log)| log).collect())
}
