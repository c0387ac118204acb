//! imatch scores how well a picture shows what a text prompt asked for.
#![recursion_limit = "256"]

pub mod error;
pub mod config;
pub mod image;
pub mod text;
pub mod score;
pub mod metrics;
pub mod data;
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
