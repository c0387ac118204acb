//! The report of `eval`: figures over all pictures, over groups of them, with intervals, and calibration.
//!
//! ```text
//! bootstrap (intervals)  groups (by category, type, generator)  calibrate (temperatures)
//!     \\__________________________ figures _________________________/
//! ```

mod bootstrap;
mod calibrate;
mod figures;
mod groups;

pub use bootstrap::{Interval, Intervals, bootstrap};
pub use calibrate::{Calibration, Targets, calibrate};
pub use figures::{EvalReport, Figures, evaluate, report};
pub use groups::{CategoryRow, GeneratorRow, Leaderboard, TypeRow, by_category, by_generator, by_type};
