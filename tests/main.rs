//! One binary, a module a subject.
#![allow(clippy::unwrap_used)]

mod adapter;
mod cli;
mod cli_batch;
mod cli_misuse;
mod cli_train;
mod common;
mod config;
mod convert;
mod data;
mod engine;
mod hostile_weights;
mod image;
mod learner;
mod lora;
mod metrics;
mod parity;
mod questions;
mod scenes;
mod score;
mod text;
mod tidy;
mod train;
mod train_parity;
mod weights;
