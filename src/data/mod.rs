//! Data: `EvalMuse` records, predictions and their evaluation, synthetic scenes with labels.
//!
//! ```text
//! scan, json <- evalmuse (records, labels, census) <- submission (predictions) <- pairing <- evaluation, challenge
//!                  |
//! export (PNG and records) <- synth (samples by index) <- prompt, layout, draw <- scene, lighting, rng
//! ```

pub mod challenge;
pub mod draw;
pub mod evalmuse;
pub mod evaluation;
pub mod export;
mod json;
mod layout;
pub mod lighting;
pub mod pairing;
pub mod prompt;
pub mod rng;
mod scan;
pub mod scene;
pub mod submission;
pub mod synth;
