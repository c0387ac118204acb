//! Training: native only, on top of everything that scores.
//!
//! ```text
//! Scenes | Records ── items ──> Batch ──> Learner ── loss, gradients ──> Run ── checkpoints ──> export
//!        |                        |          |                            |
//!  Instructions (QAlign)          |   where it starts                  Schedule
//!        |                        |
//!    Strategies          as the engine packs them
//! ```

mod batch;
mod blueprint;
mod checkpoint;
mod curves;
mod export;
mod fit;
mod init;
mod instructions;
mod load;
mod lora;
mod objective;
mod predict;
mod pseudo;
mod records;
mod scenes;
mod schedule;
mod strategies;

pub use batch::{Asked, Batch, Item, Source, Words};
pub use blueprint::{Blueprint, CELLS, SIDE};
pub use checkpoint::Checkpoints;
pub use curves::curves;
pub use export::{export, write_facts};
pub use fit::{Run, StepLog};
pub use instructions::{Instructions, Recipe, Truth};
pub use lora::{Base, LoraOptions};
pub use objective::{Learner, Objective, cross_entropy};
pub use predict::Predicted;
pub use pseudo::Selection;
pub use records::{RecordList, RecordSet, Records};
pub use scenes::{CLASSES, Scenes};
pub use schedule::Schedule;
pub use strategies::{Strategies, Strategy};
