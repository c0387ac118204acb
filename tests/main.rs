//! One binary, a module a subject.
#![allow(clippy::unwrap_used)]

mod config;
mod image;
mod metrics;
mod questions;
mod score;
mod text;
mod weights;
