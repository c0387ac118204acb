//! Training: native only, on top of everything that scores.
//!
//! ```text
//! RecordSet ──> Records ─┐                      ┌─ Learner::new | load, with_lora
//!               Scenes ──┴─ items ──> Batch ──> Learner ── loss, gradients ──> Run ──> checkpoints, curves
//!                 |           (packed as the engine packs them)                 |
//!           Instructions: what is asked, what answers it (QAlign)            Schedule
//!                 |
//!           Strategies: what the paper does around it
//!
//! Learner ── predict ──> Selection ── pseudo-labels ──> RecordSet          Learner ──> export, adapter
//! ```

// What is learnt from.
mod blueprint;
mod instructions;
mod pseudo;
mod records;
mod scenes;
mod strategies;

// What learns, and what comes of it.
mod batch;
mod export;
mod grounding;
mod init;
mod load;
mod lora;
mod objective;
mod predict;

// How a run goes on.
mod checkpoint;
mod curves;
mod fit;
mod schedule;

pub use batch::{Asked, Batch, Item, Source, Words};
pub use blueprint::{Blueprint, CELLS, SIDE};
pub use checkpoint::Checkpoints;
pub use curves::curves;
pub use export::{export, write_facts};
pub use fit::{Run, StepLog};
pub use grounding::{GROUNDED_LAYERS, Grounding, Mention};
pub use instructions::{Instructions, Recipe, Truth};
pub use lora::{Base, LoraOptions};
pub use objective::{Learner, Objective, cross_entropy};
pub use predict::Predicted;
pub use pseudo::Selection;
pub use records::{RecordList, RecordSet, Records};
pub use scenes::{CLASSES, Scenes};
pub use schedule::Schedule;
pub use strategies::{Strategies, Strategy};
