//! Training: native only, on top of everything that scores.
//!
//! ```text
//! Scenes ── items ──> Batch ──> Learner ── loss, gradients ──> Run ── checkpoints ──> export
//!   |                              |                             |
//! Blueprint                  where it starts                  Schedule
//! ```

mod asking;
mod batch;
mod blueprint;
mod export;
mod fit;
mod init;
mod objective;
mod scenes;
mod schedule;

pub use batch::{Batch, Item, Source, Words};
pub use blueprint::{Blueprint, CELLS, SIDE};
pub use export::{export, write_blueprint};
pub use fit::{Run, StepLog};
pub use objective::{Learner, Objective, cross_entropy};
pub use scenes::{CLASSES, Scenes};
pub use schedule::Schedule;
