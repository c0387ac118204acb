//! `imatch train`: a small model from scratch, in a run folder that survives interruption.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;

use super::{json, print, progress};
use crate::error::{Error, Result};
use crate::train::{Blueprint, CLASSES, Learner, Run, Scenes, Schedule, StepLog, export, write_blueprint};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Start from random weights on synthetic scenes
    #[arg(long, required = true)]
    from_scratch: bool,
    /// Run folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Continue the run in the folder
    #[arg(long)]
    resume: bool,
    /// Seed of weights and scenes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps in which only the vision tower learns
    #[arg(long, default_value_t = Schedule::shapes().see_steps)]
    see_steps: usize,
    /// Steps in all
    #[arg(long, default_value_t = Schedule::shapes().steps)]
    steps: usize,
    /// Pictures per step while only seeing
    #[arg(long, default_value_t = Schedule::shapes().see_batch, value_parser = at_least_one)]
    see_batch: usize,
    /// Pictures per step
    #[arg(long, default_value_t = Schedule::shapes().batch, value_parser = at_least_one)]
    batch: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = Schedule::shapes().learning_rate)]
    learning_rate: f64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = Schedule::shapes().checkpoint_every, value_parser = at_least_one)]
    checkpoint_every: usize,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("{error}")),
    }
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let schedule = Schedule {
        see_steps: flags.see_steps,
        steps: flags.steps,
        see_batch: flags.see_batch,
        batch: flags.batch,
        learning_rate: flags.learning_rate,
        checkpoint_every: flags.checkpoint_every,
        ..Schedule::shapes()
    };
    let blueprint = prepare(flags)?;
    let device = Device::flex().autodiff();
    device.seed(flags.seed);
    let scenes = Scenes::new(&blueprint, flags.seed)?;
    let learner = Learner::new(&blueprint.config, CLASSES, &device);
    let steps = schedule.steps as u64;
    let run = Run { dir: flags.out.clone(), config: &blueprint.config, schedule, device };
    let mut log = metrics(&flags.out, run.next_step()?)?;
    let bar = progress(steps);
    let learner = run.train(learner, &scenes, |step| {
        bar.set_position(step.step as u64 + 1);
        if let Some(accuracy) = step.element_accuracy {
            bar.set_message(format!("elements {accuracy:.2}"));
        }
        let line = json(step)?;
        writeln!(log, "{line}").map_err(|error| Error::io(&flags.out, error))
    })?;
    bar.finish_and_clear();
    let model = flags.out.join("model");
    export(&learner, &blueprint, &model)?;
    print(&format!("{}", model.display()))
}

/// The run folder's blueprint: new, or the one that the run was started with.
fn prepare(flags: &Flags) -> Result<Blueprint> {
    let tokenizer = flags.out.join("tokenizer.json");
    if flags.resume {
        let bytes = fs::read(&tokenizer).map_err(|error| Error::io(&tokenizer, error))?;
        return Blueprint::with_tokenizer(bytes);
    }
    if tokenizer.exists() {
        return Err(Error::input(format!(
            "{} holds a run already; add --resume to continue it or choose another folder",
            flags.out.display()
        )));
    }
    let blueprint = Blueprint::shapes(flags.seed)?;
    write_blueprint(&blueprint, &flags.out)?;
    let path = flags.out.join("run.json");
    let record = serde_json::json!({ "imatch": env!("CARGO_PKG_VERSION"), "seed": flags.seed });
    fs::write(&path, record.to_string()).map_err(|error| Error::io(&path, error))?;
    Ok(blueprint)
}

/// The log, cut back to the steps that the checkpoint knows of.
fn metrics(dir: &Path, next_step: usize) -> Result<File> {
    let path = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let kept: String = text
        .lines()
        .filter(|line| serde_json::from_str::<StepLog>(line).is_ok_and(|log| log.step < next_step))
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(&path, kept).map_err(|error| Error::io(&path, error))?;
    OpenOptions::new().append(true).open(&path).map_err(|error| Error::io(&path, error))
}
