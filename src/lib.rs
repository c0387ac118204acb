//! imatch scores how well a picture shows what a text prompt asked for: one overall score
//! and one score per element of the prompt, the way the iMatch paper does it
//! ([arXiv:2504.12018](https://arxiv.org/abs/2504.12018)). A multimodal language model reads
//! picture and question once, and the answer is read off the probabilities of a few answer
//! tokens, never generated. It runs natively and in a browser tab on the user's own GPU.
//!
//! # Layers
//!
//! An arrow may only point down; `tests/tidy.rs` enforces it.
//!
//! ```text
//! L6  cli | web          shells: parse, call, print
//! L5  train              native only
//! L4  engine             picture + questions + model -> scores; owns the prefix cache; async
//! L3  model              tensors in, tensors out
//! L2  ops                products, attention, norms, rotary positions on one device
//! L2  weights            bytes <-> named tensors, manifest, integrity
//! L1  format             types of stored tensors and their values
//! L1  image text score metrics data    plain data in, plain data out
//! L0  error config
//! ```
//!
//! # Invariants
//!
//! 1. One model. Quantisation and adapters are properties of a parameter, not second layer types.
//! 2. One asynchronous core; results are read back without blocking, and only the command line
//!    and training, both native, wait for it.
//! 3. No model family, file format or prompt wording is named in `engine` or above.
//! 4. Embedding table and output head never go to the device whole, only the rows that are read.
//! 5. A picture is encoded once and the shared prefix runs once; all questions go through one
//!    packed pass in which each sees the prefix and itself only.
//! 6. The model never lies whole in host memory while it is loaded: one tensor at a time.
//! 7. A browser shows scores only of a device that passed the self-test.
//! 8. Scoring makes no network request.
//! 9. Reuse is keyed by content: pixels and token ids.
//! 10. A user's text can never form a special token.
//!
//! # Failure
//!
//! There is one error type, [`Error`]: a sentence and a stable [`code`](Error::code). Input is
//! checked where it enters; what is hostile (pictures, model files) ends in an error, never
//! in a panic or a number that is not finite.
//!
//! # Features
//!
//! `cli` and `train` (both default) are native; `gpu` and `cuda` add devices; `web` is the
//! browser surface. `Cargo.toml` says what each is for.
#![recursion_limit = "256"]

pub mod error;

pub mod config;

pub mod data;
pub mod format;
pub mod image;
pub mod metrics;
pub mod score;
pub mod text;

pub mod ops;
pub mod weights;

pub mod model;

pub mod engine;

#[cfg(feature = "train")]
pub mod train;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(all(feature = "web", target_arch = "wasm32"))]
mod web;

pub use error::{Error, Result};
