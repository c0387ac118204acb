//! Checkpoints of a run: written beside the old one and swapped by renaming, so that there is a whole
//! one at any moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};

use super::objective::Learner;
use super::schedule::Schedule;
use crate::error::{Context as _, Error, Kind, Result};

/// Longest `state.json` that is read.
const MAX_STATE: u64 = 1 << 20;

#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    next_step: usize,
    schedule: Schedule,
}

/// The checkpoints of one run folder.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    current: PathBuf,
    new: PathBuf,
    old: PathBuf,
}

impl Checkpoints {
    /// Those of a run folder.
    pub fn of(folder: &Path) -> Self {
        let [current, new, old] =
            ["checkpoint", "checkpoint.new", "checkpoint.old"].map(|name| folder.join(name));
        Self { current, new, old }
    }

    /// A kill between the two renames of [`Self::save`] leaves the checkpoint under its second name.
    fn recover(&self) -> Result<()> {
        if !self.current.exists() && self.old.exists() {
            fs::rename(&self.old, &self.current).map_err(|error| Error::io(&self.old, error))?;
        }
        Ok(())
    }

    /// The first step that the checkpoint has not seen; 0 where there is none.
    ///
    /// # Errors
    /// Where there is a checkpoint that cannot be read, or was written with another schedule.
    pub fn next_step(&self, schedule: &Schedule) -> Result<usize> {
        self.recover()?;
        if self.current.exists() { Ok(self.state(schedule)?.next_step) } else { Ok(0) }
    }

    fn state(&self, schedule: &Schedule) -> Result<State> {
        let path = self.current.join("state.json");
        let no_checkpoint = || Error::input(format!("{} is not a checkpoint", path.display()));
        let metadata = fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
        if !metadata.is_file() || metadata.len() > MAX_STATE {
            return Err(no_checkpoint());
        }
        let text = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let state: State =
            serde_json::from_slice(&text).map_err(|error| no_checkpoint().with_source(error))?;
        if state.schedule != *schedule {
            return Err(Error::input(format!(
                "{} was written with another schedule; resume with the same options or choose another run folder",
                self.current.display()
            )));
        }
        if state.next_step > schedule.steps {
            return Err(no_checkpoint().with_source("it lies beyond the last step"));
        }
        Ok(state)
    }

    /// Learner and optimizer as the checkpoint has them, and the first step that it has not seen.
    pub(super) fn load(
        &self,
        learner: Learner,
        optimizer: ModuleOptimizer,
        schedule: &Schedule,
    ) -> Result<(Learner, ModuleOptimizer, usize)> {
        self.recover()?;
        if !self.current.exists() {
            return Ok((learner, optimizer, 0));
        }
        let state = self.state(schedule)?;
        let broken = |error: RecordError| {
            Error::input(format!("the checkpoint in {} cannot be read", self.current.display()))
                .with_source(error.to_string())
        };
        let record = ModuleRecord::load(self.current.join("learner.bpk")).map_err(broken)?;
        let learner = learner.with_record(record).context(|| self.current.display())?;
        let optimizer = optimizer.load(self.current.join("optimizer.bpk")).map_err(broken)?;
        Ok((learner, optimizer, state.next_step))
    }

    /// Writes a checkpoint; parameters that do not learn are not in it.
    pub(super) fn save(
        &self,
        learner: &Learner,
        optimizer: &ModuleOptimizer,
        schedule: &Schedule,
        next_step: usize,
    ) -> Result<()> {
        learner.check_finite()?;
        let Self { current, new, old } = self;
        remove(new)?;
        fs::create_dir_all(new).map_err(|error| Error::io(new, error))?;
        let failed = |error: RecordError| {
            Error::new(Kind::Io, format!("cannot write the checkpoint {}", new.display()))
                .with_source(error.to_string())
        };
        learner.record().save(new.join("learner.bpk")).map_err(failed)?;
        optimizer.save(new.join("optimizer.bpk")).map_err(failed)?;
        let state = State { next_step, schedule: schedule.clone() };
        let text = serde_json::to_vec_pretty(&state).map_err(|error| Error::internal(error.to_string()))?;
        let path = new.join("state.json");
        fs::write(&path, text).map_err(|error| Error::io(&path, error))?;
        for name in ["learner.bpk", "optimizer.bpk", "state.json"] {
            // On the disk before the old ones go, also where the power fails.
            let path = new.join(name);
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| Error::io(&path, error))?;
        }
        remove(old)?;
        if current.exists() {
            fs::rename(current, old).map_err(|error| Error::io(current, error))?;
        }
        fs::rename(new, current).map_err(|error| Error::io(new, error))?;
        remove(old)
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| Error::io(folder, error))
    } else {
        Ok(())
    }
}
