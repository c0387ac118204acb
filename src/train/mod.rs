//! Training: native only, on top of everything that scores.

mod batch;
mod export;
mod fit;
mod init;
mod objective;
mod shapes;

pub use batch::{Batch, Item, Words};
pub use export::{export, write_blueprint};
pub use fit::{Run, Schedule, Source, StepLog};
pub use objective::{Learner, Objective, cross_entropy};
pub use shapes::{Blueprint, CELLS, CLASSES, SIDE, Scenes, request};
