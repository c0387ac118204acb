//! Data: `EvalMuse` records, predictions and their evaluation, synthetic scenes with labels.
//!
//! ```text
//! evalmuse (records) <- submission (predictions, pairing, the report of `eval`)
//!    |
//! export (PNG and records) <- synth (samples by index) <- prompt, layout, draw <- scene, rng
//! ```

pub mod draw;
pub mod evalmuse;
pub mod export;
mod json;
mod layout;
pub mod lighting;
pub mod prompt;
pub mod rng;
pub mod scene;
pub mod submission;
pub mod synth;
