//! `imatch train`: from scratch on scenes, or a checkpoint on records, in a run folder that survives
//! interruption.

mod flags;
mod folder;
mod settings;
mod tune;

use burn::tensor::Device;

pub(super) use flags::Flags;

use self::folder::Folder;
use self::settings::{Settings, Start};
use super::print;
use crate::error::{Error, Result};
use crate::train::{Blueprint, CELLS, CLASSES, Learner, Recipe, Run, Scenes, Schedule, Source, export};
use crate::weights::ModelFacts;

/// Seed where none is given.
const SEED: u64 = 1;

pub(super) fn run(flags: &Flags) -> Result<()> {
    let folder = Folder(&flags.out);
    let settings = if flags.resume {
        resume(folder, flags)?
    } else {
        folder.check_is_free()?;
        start(flags)?
    };
    let device = flags.device.place()?.device.autodiff();
    match &settings.start {
        Start::Scratch => from_scratch(folder, &settings, flags.resume, device),
        Start::Checkpoint(tuning) => tune::run(folder, &settings, tuning, flags.resume, device),
    }
}

/// The settings of a new run; nothing is written yet.
fn start(flags: &Flags) -> Result<Settings> {
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
    Settings { imatch, seed: SEED, start, schedule, recipe, validation: None, pseudo_labels: None }
}

/// The settings of the run in a folder.
fn resume(folder: Folder<'_>, flags: &Flags) -> Result<Settings> {
    let started = folder.settings()?;
    if started.starts_otherwise(flags) || started.clone().with(flags) != started {
        return Err(Error::input(format!(
            "the run in {} was started with other options; leave them out or choose another folder",
            flags.out.display()
        )));
    }
    started.check_data()?;
    Ok(started)
}

fn from_scratch(folder: Folder<'_>, settings: &Settings, resumed: bool, device: Device) -> Result<()> {
    let facts = if resumed {
        // With the tokenizer that it was started with.
        Blueprint::with_tokenizer(folder.tokenizer()?)?
    } else {
        let facts = Blueprint::shapes(settings.seed)?;
        folder.begin(settings, &facts)?;
        facts
    };
    device.seed(settings.seed);
    let scenes = Scenes::new(&facts, settings.recipe.clone(), settings.seed)?;
    let learner = Learner::new(&facts.config, CLASSES, CELLS, &device);
    let learner = fit(folder, settings, &facts, device, learner, &scenes)?;
    let model = folder.0.join("model");
    export(&learner, &facts, &model)?;
    print(&format!("{}", model.display()))
}

/// Trains in a run folder, with log, curves and a progress bar, from its checkpoint where it has one.
fn fit(
    folder: Folder<'_>,
    settings: &Settings,
    facts: &ModelFacts,
    device: Device,
    learner: Learner,
    source: &impl Source,
) -> Result<Learner> {
    let schedule = settings.schedule.clone();
    let run = Run { dir: folder.0.to_owned(), config: &facts.config, schedule, device };
    let first = run.checkpoints().next_step(&run.schedule)?;
    let mut log = folder.log(first, run.schedule.steps, run.schedule.checkpoint_every)?;
    let learner = run.train(learner, source, |step| log.step(step))?;
    log.finish()?;
    Ok(learner)
}
