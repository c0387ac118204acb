//! `run.json`: what a run was started with, so that it can go on and be repeated.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::flags::Flags;
use crate::cli::input::read_file;
use crate::data::evalmuse::LabelRules;
use crate::error::{Context as _, Error, Result};
use crate::train::{Base, LoraOptions, Recipe, RecordList, Schedule, Selection};
use crate::weights::manifest::Hasher;

/// Longest list of records that is read.
const MAX_RECORDS: u64 = 1 << 30;

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
        let mut hasher = Hasher::default();
        hasher.update(&read_file(path, MAX_RECORDS)?);
        Ok(Self { path: path.to_owned(), sha256: hasher.finish().1 })
    }

    /// Refuses a file that is no longer what the run began with.
    fn check(&self) -> Result<()> {
        if Self::of(&self.path)? == *self {
            return Ok(());
        }
        Err(Error::input(format!("{} has changed since the run was started", self.path.display())))
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

    /// Refuses data that is not what the run began with.
    pub(super) fn check_data(&self) -> Result<()> {
        if let Start::Checkpoint(tuning) = &self.start {
            tuning.records.iter().try_for_each(DataFile::check)?;
        }
        self.validation.as_ref().map_or(Ok(()), |validation| validation.records.check())
    }

    /// These settings where the flags say nothing else.
    pub(super) fn with(mut self, flags: &Flags) -> Self {
        fn set<T: Clone>(value: &mut T, flag: Option<&T>) {
            if let Some(flag) = flag {
                value.clone_from(flag);
            }
        }
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
        let (recipe, said) = (&mut self.recipe, &flags.lessons);
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

    /// Whether the flags say where to start, or from what to learn, and say something else.
    pub(super) fn starts_otherwise(&self, flags: &Flags) -> bool {
        let said = &flags.start;
        let other = |path: Option<&PathBuf>, own: Option<&PathBuf>| path.is_some() && path != own;
        let own = self.validation.as_ref();
        let other_validation =
            other(flags.validation.validation.as_ref(), own.map(|validation| &validation.records.path))
                || other(
                    flags.validation.validation_images.as_ref(),
                    own.map(|validation| &validation.images),
                );
        let other_start = match &self.start {
            Start::Scratch => said.model.is_some() || !said.records.is_empty() || said.images.is_some(),
            Start::Checkpoint(tuning) => {
                let records: Vec<&PathBuf> = tuning.records.iter().map(|file| &file.path).collect();
                said.from_scratch
                    || other(said.model.as_ref(), Some(&tuning.model))
                    || other(said.images.as_ref(), Some(&tuning.images))
                    || flags.adapter.lora.is_some() && tuning.lora.is_none()
                    || !said.records.is_empty() && said.records.iter().ne(records)
            }
        };
        other_start || other_validation
    }
}
