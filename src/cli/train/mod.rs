//! `imatch train`: from scratch on scenes, or a checkpoint on records, in a run folder that survives
//! interruption.

mod flags;
mod folder;
mod settings;
mod tune;

use std::fs::File;

use burn::tensor::Device;

pub(super) use flags::Flags;

use self::folder::{Folder, Inputs};
use self::settings::{Settings, Start};
use super::{json, print};
use crate::error::{Error, Result};
use crate::train::{
    Blueprint, CELLS, CLASSES, Learner, Recipe, Run, Scenes, Schedule, Source, export, write_facts,
};
use crate::weights::ModelFacts;

/// Seed where none is given.
const SEED: u64 = 1;

pub(super) fn run(flags: &Flags) -> Result<()> {
    let folder = Folder(&flags.out);
    let (settings, _lock) = if flags.resume { resume(folder, flags)? } else { begin(folder, flags)? };
    let device = flags.device.place()?.device.autodiff();
    match &settings.start {
        Start::Scratch => from_scratch(folder, &settings, device),
        Start::Checkpoint(tuning) => tune::run(folder, &settings, tuning, device),
    }
}

/// A new run: everything is checked before the folder is made.
fn begin(folder: Folder<'_>, flags: &Flags) -> Result<(Settings, File)> {
    folder.check_is_free()?;
    let settings = start(flags)?;
    std::fs::create_dir_all(folder.0).map_err(|error| Error::io(folder.0, error))?;
    let lock = folder.lock()?;
    folder.check_is_free()?;
    folder.write("run.json", json(&settings)?.as_bytes())?;
    Ok((settings, lock))
}

/// The settings of a new run; nothing is written yet.
fn start(flags: &Flags) -> Result<Settings> {
    flags.check_kind()?;
    let settings = match (flags.start.from_scratch, &flags.start.model) {
        (true, _) => {
            let mut schedule = Schedule::shapes();
            if let Some(steps) = flags.schedule.steps {
                // In proportion, so that a short run sees and answers too.
                schedule.see_steps =
                    (schedule.see_steps as u128 * steps as u128 / schedule.steps as u128) as usize;
            }
            new_settings(Start::Scratch, schedule, Recipe::shapes())
        }
        (false, Some(model)) => tune::settings(model, flags)?,
        (false, None) => {
            return Err(Error::input("expected --from-scratch, or --model with --records and --images"));
        }
    };
    let settings = settings.with(flags);
    settings.validate()?;
    Ok(settings)
}

fn new_settings(start: Start, schedule: Schedule, recipe: Recipe) -> Settings {
    let imatch = env!("CARGO_PKG_VERSION").to_owned();
    Settings {
        imatch,
        seed: SEED,
        start,
        schedule,
        epochs: None,
        recipe,
        validation: None,
        pseudo_labels: None,
    }
}

/// The run in a folder. Options may be left out; where some are said, they are all that it was started with.
fn resume(folder: Folder<'_>, flags: &Flags) -> Result<(Settings, File)> {
    let started = folder.settings()?;
    let lock = folder.lock()?;
    let other_kind = flags.start.from_scratch && !matches!(started.start, Start::Scratch);
    if flags.say_nothing() && !other_kind {
        return Ok((started, lock));
    }
    let again = start(flags);
    if other_kind || !again.as_ref().is_ok_and(|again| again.is_same_run(&started)) {
        let error = Error::input(format!(
            "the run in {} was started with other options; leave them all out or choose another folder",
            flags.out.display()
        ));
        return Err(again.err().into_iter().fold(error, Error::with_source));
    }
    let again = again?;
    folder.write("run.json", json(&again)?.as_bytes())?;
    Ok((again, lock))
}

fn from_scratch(folder: Folder<'_>, settings: &Settings, device: Device) -> Result<()> {
    let facts = match folder.tokenizer()? {
        Some(tokenizer) => Blueprint::with_tokenizer(tokenizer)?,
        None => Blueprint::shapes(settings.seed)?,
    };
    write_facts(&facts, folder.0)?;
    folder.check_inputs(&Inputs::new(settings, "", &facts, None)?)?;
    device.seed(settings.seed);
    let scenes = Scenes::new(&facts, settings.recipe.clone(), settings.seed)?;
    let learner = Learner::new(&facts.config, CLASSES, CELLS, &device);
    let learner = fit(folder, settings.schedule.clone(), &facts, device, learner, &scenes)?;
    let model = folder.0.join("model");
    export(&learner, &facts, &model)?;
    print(&format!("{}", model.display()))
}

/// Trains in a run folder, with log, curves and a progress bar, from its checkpoint where it has one.
fn fit(
    folder: Folder<'_>,
    schedule: Schedule,
    facts: &ModelFacts,
    device: Device,
    learner: Learner,
    source: &impl Source,
) -> Result<Learner> {
    let run = Run { dir: folder.0.to_owned(), config: &facts.config, schedule, device };
    let first = run.checkpoints().next_step(&run.schedule)?;
    let mut log = folder.log(first, run.schedule.steps, run.schedule.checkpoint_every)?;
    let learner = run.train(learner, source, |step| log.step(step))?;
    log.finish()?;
    Ok(learner)
}
