//! Operations on one device, each with one meaning and several forms.
//!
//! ```text
//! product      x wᵗ, then bias, activation, scale and residual
//! norm         RMS and layer norms
//! rotary       angles to turns of heads
//! attention    of a picture's patches, and of tokens behind a cache
//! rows         features added to some rows
//!
//! composed     the meaning: burn's operations, on every device and with gradients
//! check        the forms compared, with random operands
//! wgsl         kernels of our own, wherever burn runs WGSL
//! ```
//!
//! An operation takes the form that its operands allow: kernels for tensors that lie on a GPU which runs WGSL and
//! record no gradients, burn's operations for all others. `engine::selftest` compares the forms on the device that
//! will score, and nothing is scored on one where they differ.
//!
//! Legend for shapes: `B` sequences, `T` tokens or patches of this pass, `S` tokens seen, `H` heads, `Hkv` key heads,
//! `Dh` width of a head, `D` width of a row.

mod attention;
pub mod check;
mod composed;
mod matrix;
mod norm;
mod product;
mod rotary;
mod rows;
mod seen;
pub mod wgsl;

pub use attention::{Heads, KeyValues, Projected, attend_cached, attend_joint, check_width};
pub use composed::finish;
pub use matrix::StoredMatrix;
pub use norm::{layer_norm, rms_norm};
pub use product::{Activation, Epilogue, Matrix, product};
pub use rotary::Rotary;
pub use rows::{add_rows, select};
pub use seen::{HIDDEN, SHARED, Seen};
