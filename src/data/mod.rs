//! Data: synthetic scenes with labels.
//!
//! ```text
//! rng -> scene -> draw
//!          |  \-> layout
//!          prompt -> synth (samples by index)
//! ```

pub mod draw;
mod layout;
pub mod prompt;
pub mod rng;
pub mod scene;
pub mod synth;
