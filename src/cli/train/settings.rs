//! `run.json`: what a run was started with, so that it can go on and be repeated.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::flags::Flags;
use crate::data::evalmuse::LabelRules;
use crate::error::{Context as _, Error, Result};
use crate::train::{Base, LoraOptions, Recipe, RecordList, Schedule, Selection};
use crate::weights::files::read_file;
use crate::weights::manifest::Hasher;

/// Bytes that are hashed at a time.
const CHUNK: usize = 1 << 20;

/// What a run was started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Version of the program.
    pub(super) imatch: String,
    /// Seed of weights, order and strategies.
    pub(super) seed: u64,
    /// What it learns from.
    pub(super) start: Start,
    /// How long and how fast.
    pub(super) schedule: Schedule,
    /// Times that each record is seen, where that decides the number of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epochs: Option<f64>,
    /// What is asked.
    pub(super) recipe: Recipe,
    /// What is scored at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) validation: Option<Validation>,
    /// How the model's own answers become labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pseudo_labels: Option<Selection>,
}

/// Where a run starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub(super) enum Start {
    /// From random weights, on scenes.
    Scratch,
    /// From a checkpoint, on records.
    Checkpoint(Tuning),
}

/// A checkpoint and what it is tuned on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tuning {
    /// Its folder.
    pub(super) model: PathBuf,
    /// Its weights.
    pub(super) sha256: String,
    /// The lists of records.
    pub(super) records: Vec<DataFile>,
    /// Where their pictures are.
    pub(super) images: PathBuf,
    /// What is left out of them.
    pub(super) rules: LabelRules,
    /// What of the model learns; everything without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lora: Option<LoraOptions>,
}

/// Records that are scored at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Validation {
    /// The list.
    pub(super) records: DataFile,
    /// Where its pictures are.
    pub(super) images: PathBuf,
}

impl Validation {
    pub(super) fn list(&self) -> RecordList {
        RecordList { file: self.records.path.clone(), images: self.images.clone() }
    }
}

/// A file that must not change under a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its bytes, lower-case hexadecimal.
    pub(super) sha256: String,
}

impl DataFile {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(path, error);
        let mut file = File::open(path).map_err(failed)?;
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).map_err(failed)? {
                0 => return Ok(Self { path: path.to_owned(), sha256: hasher.finish().1 }),
                n => hasher.update(&chunk[..n]),
            }
        }
    }
}

impl Settings {
    /// The settings of a run in a folder.
    pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Self> {
        let settings: Self = serde_json::from_slice(&read_file(path, max_bytes)?)
            .map_err(|error| Error::input(format!("{} is no run", path.display())).with_source(error))?;
        settings.validate().context(|| path.display())?;
        Ok(settings)
    }

    /// Refuses what trains nothing or means nothing.
    pub(super) fn validate(&self) -> Result<()> {
        self.schedule.validate()?;
        self.recipe.validate()?;
        if let Start::Checkpoint(Tuning { lora: Some(options), .. }) = &self.start {
            options.peft()?;
        }
        self.pseudo_labels.as_ref().map_or(Ok(()), Selection::validate)
    }

    /// The schedule of a phase that learns from `records` pictures.
    pub(super) fn schedule_for(&self, records: usize) -> Schedule {
        let mut schedule = self.schedule.clone();
        if let Some(epochs) = self.epochs {
            let steps = (epochs * records as f64 / schedule.batch as f64).ceil().max(1.0) as usize;
            schedule.warmup = (schedule.warmup as f64 * steps as f64 / schedule.steps as f64).ceil() as usize;
            schedule.steps = steps;
        }
        schedule
    }

    /// Whether these are the settings of the same run, wherever its files are now.
    pub(super) fn is_same_run(&self, other: &Self) -> bool {
        self.anywhere() == other.anywhere()
    }

    /// The settings without the places of files, which their contents stand for.
    pub(super) fn anywhere(&self) -> Self {
        let mut settings = self.clone();
        settings.imatch = String::new();
        if let Start::Checkpoint(tuning) = &mut settings.start {
            tuning.model = PathBuf::new();
            tuning.images = PathBuf::new();
            tuning.records.iter_mut().for_each(|file| file.path = PathBuf::new());
        }
        if let Some(Validation { records, images }) = &mut settings.validation {
            (records.path, *images) = (PathBuf::new(), PathBuf::new());
        }
        settings
    }

    /// These settings where the flags say nothing else.
    pub(super) fn with(mut self, flags: &Flags) -> Self {
        let said = &flags.schedule;
        let schedule = &mut self.schedule;
        set(&mut self.seed, flags.seed.as_ref());
        set(&mut schedule.see_steps, said.see_steps.as_ref());
        set(&mut schedule.steps, said.steps.as_ref());
        set(&mut schedule.see_batch, said.see_batch.as_ref());
        set(&mut schedule.batch, said.batch.as_ref());
        set(&mut schedule.micro_batch, said.micro_batch.as_ref());
        set(&mut schedule.learning_rate, said.learning_rate.as_ref());
        set(&mut schedule.warmup, said.warmup.as_ref());
        set(&mut schedule.weight_decay, said.weight_decay.as_ref());
        set(&mut schedule.beta_2, said.beta_2.as_ref());
        set(&mut schedule.clip, said.clip.as_ref());
        set(&mut schedule.auxiliary, said.auxiliary.as_ref());
        set(&mut schedule.checkpoint_every, said.checkpoint_every.as_ref());
        set(&mut schedule.shards, said.shards.as_ref());
        self.recipe = recipe(self.recipe, flags);
        if let Start::Checkpoint(Tuning { lora: Some(options), .. }) = &mut self.start {
            let said = &flags.adapter;
            set(&mut options.rank, said.lora.as_ref());
            set(&mut options.alpha, said.lora_alpha.as_ref());
            set(&mut options.targets, said.lora_targets.as_ref());
            set(&mut options.base, said.lora_base.map(Base::from).as_ref());
        }
        if let Some(selection) = &mut self.pseudo_labels {
            set(&mut selection.keep, flags.validation.keep.as_ref());
            set(&mut selection.confidence, flags.validation.confidence.as_ref());
        }
        self
    }
}

/// A recipe where the flags say nothing else.
pub(super) fn recipe(mut recipe: Recipe, flags: &Flags) -> Recipe {
    let said = &flags.lessons;
    set(&mut recipe.overall_share, said.overall_share.as_ref());
    set(&mut recipe.questions, said.questions.as_ref());
    recipe.soft_labels |= said.soft_labels;
    let (strategies, said) = (&mut recipe.strategies, &flags.strategies);
    set(&mut strategies.element_augmentation, said.element_augmentation.as_ref());
    set(&mut strategies.prompt_type_augmentation, said.prompt_type_augmentation.as_ref());
    set(&mut strategies.image_augmentation, said.image_augmentation.as_ref());
    set(&mut strategies.score_perturbation, said.score_perturbation.as_ref());
    set(&mut strategies.paraphrase, said.paraphrase.as_ref());
    set(&mut strategies.uncategorised, said.uncategorised.as_ref());
    set(&mut strategies.untyped, said.untyped.as_ref());
    set(&mut strategies.lighting, said.lighting.as_ref());
    recipe
}

fn set<T: Clone>(value: &mut T, flag: Option<&T>) {
    if let Some(flag) = flag {
        value.clone_from(flag);
    }
}
