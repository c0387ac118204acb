//! `imatch train`: a small model from scratch, in a run folder that survives interruption.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::input::{read_file, read_text};
use super::{json, print, progress};
use crate::error::{Error, Result};
use crate::train::{
    Blueprint, CELLS, CLASSES, Learner, Recipe, Run, Scenes, Schedule, StepLog, export, write_facts,
};
use crate::weights::ModelFacts;

/// Seed where none is given.
const SEED: u64 = 1;

/// Longest file of a run folder that is read back.
const MAX_BYTES: u64 = 64 << 20;

/// Longest log that is read back: some eight million steps.
const MAX_LOG: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Start from random weights on synthetic scenes
    #[arg(long, required = true)]
    from_scratch: bool,
    /// Run folder: new or empty, except with --resume
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Continue the run in the folder with the options it was started with
    #[arg(long)]
    resume: bool,
    #[arg(long, value_name = "N", help = or("Seed of weights and scenes", SEED))]
    seed: Option<u64>,
    #[arg(long, value_name = "N", help = or("Steps in which the vision tower learns to see, in proportion to --steps", Schedule::shapes().see_steps))]
    see_steps: Option<usize>,
    #[arg(long, value_name = "N", help = or("Steps in all", Schedule::shapes().steps))]
    steps: Option<usize>,
    #[arg(long, value_name = "N", help = or("Pictures per step while only seeing", Schedule::shapes().see_batch))]
    see_batch: Option<usize>,
    #[arg(long, value_name = "N", help = or("Pictures per step", Schedule::shapes().batch))]
    batch: Option<usize>,
    #[arg(long, value_name = "X", help = or("Peak learning rate", Schedule::shapes().learning_rate))]
    learning_rate: Option<f64>,
    #[arg(long, value_name = "N", help = or("Steps of warm-up of each phase", Schedule::shapes().warmup))]
    warmup: Option<usize>,
    #[arg(long, value_name = "X", help = or("Decoupled weight decay", Schedule::shapes().weight_decay))]
    weight_decay: Option<f64>,
    #[arg(long, value_name = "X", help = or("Weight of the auxiliary loss", Schedule::shapes().auxiliary))]
    auxiliary: Option<f64>,
    #[arg(long, value_name = "N", help = or("Steps between checkpoints", Schedule::shapes().checkpoint_every))]
    checkpoint_every: Option<usize>,
    #[arg(long, value_name = "N", help = or("Shares of a step computed side by side, one thread each", Schedule::shapes().shards))]
    shards: Option<usize>,
}

/// A help text with the default, in clap's own spelling.
fn or(text: &str, default: impl std::fmt::Display) -> String {
    format!("{text} [default: {default}]")
}

/// `run.json`: what a run was started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    /// Version of the program.
    imatch: String,
    seed: u64,
    schedule: Schedule,
    recipe: Recipe,
}

impl Settings {
    /// These settings where the flags say nothing else.
    fn with(mut self, flags: &Flags) -> Self {
        fn set<T: Copy>(value: &mut T, flag: Option<T>) {
            *value = flag.unwrap_or(*value);
        }
        let Schedule {
            see_steps,
            steps,
            see_batch,
            batch,
            learning_rate,
            warmup,
            weight_decay,
            beta_2: _,
            clip: _,
            auxiliary,
            checkpoint_every,
            shards,
            micro_batch: _,
        } = &mut self.schedule;
        set(&mut self.seed, flags.seed);
        set(see_steps, flags.see_steps);
        set(steps, flags.steps);
        set(see_batch, flags.see_batch);
        set(batch, flags.batch);
        set(learning_rate, flags.learning_rate);
        set(warmup, flags.warmup);
        set(weight_decay, flags.weight_decay);
        set(auxiliary, flags.auxiliary);
        set(checkpoint_every, flags.checkpoint_every);
        set(shards, flags.shards);
        self
    }
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let (blueprint, Settings { seed, schedule, recipe, .. }) =
        if flags.resume { resume(flags) } else { start(flags) }?;
    let device = Device::flex().autodiff();
    device.seed(seed);
    let scenes = Scenes::new(&blueprint, recipe, seed)?;
    let learner = Learner::new(&blueprint.config, CLASSES, CELLS, &device);
    let steps = schedule.steps as u64;
    let run = Run { dir: flags.out.clone(), config: &blueprint.config, schedule, device };
    let path = flags.out.join("metrics.jsonl");
    keep_steps(&path, run.checkpoints().next_step(&run.schedule)?)?;
    let failed = |error| Error::io(&path, error);
    let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    let bar = progress(steps);
    let learner = run.train(learner, &scenes, |step| {
        bar.set_position(step.step as u64 + 1);
        if let Some(accuracy) = step.element_accuracy {
            bar.set_message(format!("elements {accuracy:.2}"));
        }
        log.write_all((json(step)? + "\n").as_bytes()).map_err(failed)
    })?;
    bar.finish_and_clear();
    let model = flags.out.join("model");
    export(&learner, &blueprint, &model)?;
    print(&format!("{}", model.display()))
}

/// A new run folder.
fn start(flags: &Flags) -> Result<(ModelFacts, Settings)> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut schedule = Schedule::shapes();
    if let Some(steps) = flags.steps {
        // In proportion, so that a short run sees and answers too.
        schedule.see_steps = (schedule.see_steps as u128 * steps as u128 / schedule.steps as u128) as usize;
    }
    let settings = Settings { imatch: version, seed: SEED, schedule, recipe: Recipe::shapes() }.with(flags);
    settings.schedule.validate()?;
    let out = &flags.out;
    if !is_free(out)? {
        return Err(Error::input(format!(
            "{} is not empty; add --resume to continue a run or choose another folder",
            out.display()
        )));
    }
    let blueprint = Blueprint::shapes(settings.seed)?;
    write_facts(&blueprint, out)?;
    let path = out.join("run.json");
    fs::write(&path, json(&settings)?).map_err(|error| Error::io(&path, error))?;
    Ok((blueprint, settings))
}

/// Whether a folder is empty or not there.
fn is_free(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io(folder, error)),
    }
}

/// The run in a folder, with the tokenizer that it was started with.
fn resume(flags: &Flags) -> Result<(ModelFacts, Settings)> {
    let path = flags.out.join("run.json");
    let started: Settings = serde_json::from_slice(&read_file(&path, MAX_BYTES)?)
        .map_err(|error| Error::input(format!("{} is no run", path.display())).with_source(error))?;
    started.schedule.validate()?;
    if started.clone().with(flags) != started {
        return Err(Error::input(format!(
            "the run in {} was started with other options; leave them out or choose another folder",
            flags.out.display()
        )));
    }
    let tokenizer = read_file(&flags.out.join("tokenizer.json"), MAX_BYTES)?;
    Ok((Blueprint::with_tokenizer(tokenizer)?, started))
}

/// Cuts the log back to the steps that the checkpoint knows of.
fn keep_steps(path: &Path, next_step: usize) -> Result<()> {
    let failed = |error| Error::io(path, error);
    if !path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let text = read_text(path, MAX_LOG)?;
    let is_kept = |line: &&str| {
        line.ends_with('\n') && serde_json::from_str::<StepLog>(line).is_ok_and(|log| log.step < next_step)
    };
    let kept: usize = text.split_inclusive('\n').take_while(is_kept).map(str::len).sum();
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(kept as u64)).map_err(failed)
}
