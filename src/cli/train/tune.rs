//! Fine-tuning a checkpoint on records, as a whole or through an adapter.

use std::path::{Path, PathBuf};

use burn::module::Module as _;
use burn::tensor::Device;
use serde::Serialize;

use super::flags::{AdapterFlags, Flags};
use super::folder::{Folder, Inputs};
use super::settings::{DataFile, Settings, Start, Tuning, Validation, recipe};
use super::{fit, new_settings};
use crate::cli::{json, print, progress, say};
use crate::data::evalmuse::{Census, Excluded, LabelRules, write_records};
use crate::error::{Context as _, Error, Result};
use crate::text::{OverallKind, Request};
use crate::train::{
    Instructions, Learner, LoraOptions, Predicted, Recipe, RecordList, RecordSet, Records, Schedule,
    Selection, export, write_facts,
};
use crate::weights::{Bundle, FileSource};

/// Epochs where nothing is said: the paper does not publish its number.
const EPOCHS: f64 = 2.0;

/// The scale of the labels in records (card of the data set).
const RATINGS: [f64; 2] = [1.0, 5.0];

/// Labels that the model gave itself, in the run folder.
const PSEUDO_LABELS: &str = "pseudo-labels.json";

/// The settings of a new run that tunes `model`; the data is read through once.
pub(super) fn settings(model: &Path, flags: &Flags) -> Result<Settings> {
    let said = &flags.start;
    let (Some(images), false) = (&said.images, said.records.is_empty()) else {
        return Err(Error::input("--model is tuned on --records with --images, expected both"));
    };
    let rules = LabelRules::from(&flags.rules);
    let bundle = pollster::block_on(Bundle::open(model))?;
    let lists: Vec<RecordList> =
        said.records.iter().map(|file| RecordList { file: file.clone(), images: images.clone() }).collect();
    let recipe = recipe(Recipe::new(), flags);
    recipe.validate()?;
    let (set, _) = RecordSet::open(&lists, rules, Some(&recipe))?;
    let tuning = Tuning {
        model: model.to_owned(),
        sha256: bundle.identity.sha256,
        records: said.records.iter().map(|path| DataFile::of(path)).collect::<Result<_>>()?,
        images: images.clone(),
        rules,
        lora: lora(&flags.adapter)?,
    };
    let epochs = flags.schedule.epochs.unwrap_or(EPOCHS);
    if !(epochs > 0.0 && epochs <= 1e6) {
        return Err(Error::input(format!(
            "epochs is {epochs}, expected a number above 0 of at most 1000000"
        )));
    }
    let batch = flags.schedule.batch.unwrap_or(Schedule::TUNE_BATCH).max(1);
    let steps = (epochs * set.len() as f64 / batch as f64).ceil() as usize;
    let schedule = Schedule::tune(flags.schedule.steps.unwrap_or(steps), tuning.lora.is_some());
    let mut settings = new_settings(Start::Checkpoint(tuning), schedule, recipe);
    settings.epochs = flags.schedule.steps.is_none().then_some(epochs);
    if let Some(records) = &flags.validation.validation {
        let images = flags.validation.validation_images.as_ref().unwrap_or(images).clone();
        let validation = Validation { records: DataFile::of(records)?, images };
        RecordSet::open(&[validation.list()], LabelRules::default(), None)?;
        settings.validation = Some(validation);
    }
    settings.pseudo_labels = flags.validation.pseudo_label.then(Selection::default);
    Ok(settings)
}

/// The adapter that the flags ask for, if they do.
fn lora(said: &AdapterFlags) -> Result<Option<LoraOptions>> {
    let Some(rank) = said.lora else {
        let others = [
            ("--lora-alpha", said.lora_alpha.is_some()),
            ("--lora-targets", said.lora_targets.is_some()),
            ("--lora-base", said.lora_base.is_some()),
        ];
        return match others.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::input(format!("{name} is about an adapter, expected --lora too"))),
            None => Ok(None),
        };
    };
    Ok(Some(LoraOptions { rank, alpha: 2.0 * rank as f64, ..LoraOptions::default() }))
}

/// The base as it is tuned: asked for levels, at no temperature but one.
fn base(tuning: &Tuning) -> Result<Bundle<FileSource>> {
    let mut bundle = pollster::block_on(Bundle::open(&tuning.model))?;
    let place = tuning.model.display();
    if bundle.identity.sha256 != tuning.sha256 {
        return Err(Error::input(format!("the model in {place} has changed since the run was started")));
    }
    let mut scoring = bundle.facts.scoring.with_overall(OverallKind::Levels);
    let [lowest, highest] = scoring.overall.scale;
    if [lowest, highest] != RATINGS {
        let [low, high] = RATINGS;
        return Err(Error::input(format!(
            "the levels of {place} are of a scale from {lowest} to {highest}, but records are rated from {low} to {high}"
        )));
    }
    // What was fitted to the base's answers is nothing to those that it will learn.
    (scoring.overall.temperature, scoring.element.temperature) = (1.0, 1.0);
    bundle.facts.scoring = scoring;
    Ok(bundle)
}

/// One run: perhaps a teacher first, whose sure answers are added to the records.
pub(super) fn run(folder: Folder<'_>, settings: &Settings, tuning: &Tuning, device: Device) -> Result<()> {
    let job = Job { settings, tuning, bundle: base(tuning)?, device };
    write_facts(&job.bundle.facts, folder.0)?;
    let list = |file: &DataFile| RecordList { file: file.path.clone(), images: tuning.images.clone() };
    let mut records: Vec<RecordList> = tuning.records.iter().map(list).collect();
    if let (Some(selection), Some(validation)) = (&settings.pseudo_labels, &settings.validation) {
        let labels = folder.0.join(PSEUDO_LABELS);
        if !labels.exists() {
            let learner = job.train(Folder(&folder.0.join("teacher")), &records)?;
            let predicted = job.predict(&learner, &validation.list())?;
            let chosen = selection.records(&predicted);
            let (path, all) = (labels.display(), predicted.len());
            say(&format!("{path}: labels for {} of {all} pictures", chosen.len()));
            folder.write(PSEUDO_LABELS, write_records(&chosen)?.as_bytes())?;
        }
        records.push(RecordList { file: labels, images: validation.images.clone() });
    }
    let learner = job.train(folder, &records)?;
    let written = job.write(folder, &learner)?;
    if let Some(validation) = &settings.validation {
        let predicted = job.predict(&learner, &validation.list())?;
        let lines = predicted.iter().map(|line| Ok(json(line)? + "\n")).collect::<Result<String>>()?;
        folder.write("predictions.jsonl", lines.as_bytes())?;
    }
    print(&format!("{}", written.display()))
}

/// Says what a list of records has, and what of it is left out.
fn account(path: &Path, census: &Census) {
    census.to_string().lines().for_each(|line| say(&format!("{}: {line}", path.display())));
}

/// A line of `excluded.jsonl`.
#[derive(Serialize)]
struct Left<'a> {
    file: &'a Path,
    #[serde(flatten)]
    exclusion: &'a Excluded,
}

/// What every phase of a run shares.
struct Job<'a> {
    settings: &'a Settings,
    tuning: &'a Tuning,
    bundle: Bundle<FileSource>,
    device: Device,
}

impl Job<'_> {
    /// Trains on `records` in a folder and writes down what is not learnt from.
    fn train(&self, folder: Folder<'_>, records: &[RecordList]) -> Result<Learner> {
        let (set, censuses) = RecordSet::open(records, self.tuning.rules, Some(&self.settings.recipe))?;
        let files: Vec<DataFile> =
            records.iter().map(|list| DataFile::of(&list.file)).collect::<Result<_>>()?;
        let weights = &self.bundle.identity.sha256;
        let inputs = Inputs::new(self.settings, weights, &self.bundle.facts, Some((&set, &files)))?;
        folder.check_inputs(&inputs)?;
        let mut excluded = String::new();
        for (list, census) in records.iter().zip(&censuses) {
            account(&list.file, census);
            for exclusion in &census.exclusions {
                excluded.push_str(&json(&Left { file: &list.file, exclusion })?);
                excluded.push('\n');
            }
        }
        folder.write("excluded.jsonl", excluded.as_bytes())?;
        let schedule = self.settings.schedule_for(set.len());
        self.device.seed(self.settings.seed);
        let source = Records::new(set, self.instructions()?);
        let bar = progress(0);
        let loaded =
            Learner::load(&self.bundle.facts, &self.bundle.checkpoint, &self.device, async |done, all| {
                bar.set_length(all);
                bar.set_position(done);
                Ok(())
            });
        let (mut learner, _) = pollster::block_on(loaded)?;
        bar.finish_and_clear();
        if let Some(options) = &self.tuning.lora {
            learner = learner.with_lora(options, &self.bundle.facts.config)?;
        }
        let (learning, all) = learner.parameters();
        say(&format!("{learning} of {all} parameters learn"));
        fit(folder, schedule, &self.bundle.facts, self.device.clone(), learner, &source)
    }

    /// Writes the result, an adapter or a whole model, and says where.
    fn write(&self, folder: Folder<'_>, learner: &Learner) -> Result<PathBuf> {
        let facts = &self.bundle.facts;
        let Some(options) = &self.tuning.lora else {
            let path = folder.0.join("model");
            export(learner, facts, &path)?;
            return Ok(path);
        };
        let adapter = learner.adapter(&options.peft()?, &facts.config)?;
        let base = self.tuning.model.display().to_string();
        let path = folder.0.join("adapter");
        adapter.write_folder(&path, &base, &facts.config, &facts.scoring)?;
        if !self.tuning.model.join("config.json").is_file() {
            // `convert` merges adapters into Hugging Face folders only.
            export(learner, facts, &folder.0.join("model"))?;
        }
        Ok(path)
    }

    fn instructions(&self) -> Result<Instructions<'_>> {
        Instructions::new(&self.bundle.facts, self.settings.recipe.clone(), self.settings.seed)
    }

    /// The learner's scores of a list of records, labelled or not.
    fn predict(&self, learner: &Learner, records: &RecordList) -> Result<Vec<Predicted>> {
        let lists = std::slice::from_ref(records);
        let (set, censuses) = RecordSet::open(lists, LabelRules::default(), None)?;
        if set.len() < censuses.iter().map(|census| census.n_records).sum() {
            for census in &censuses {
                account(&records.file, census);
            }
        }
        let (learner, device) = (learner.valid(), self.device.clone().inner());
        let instructions = self.instructions()?;
        let bar = progress(set.len() as u64);
        let predicted = (0..set.len()).map(|index| {
            let found = set.record(index)?;
            let record = &found.record;
            let keys: Vec<String> = record.element_score.iter().map(|(key, _)| key.clone()).collect();
            let request = Request::new(record.prompt.clone(), &keys, record.prompt_type)?;
            bar.inc(1);
            instructions
                .predict(&learner, &device, &record.img_path, &found.picture()?, &request)
                .context(|| found.image.display())
        });
        let predicted = predicted.collect();
        bar.finish_and_clear();
        predicted
    }
}
