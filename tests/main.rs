//! One binary, a module a subject.
#![allow(clippy::unwrap_used)]

mod adapter;
mod cli;
mod cli_batch;
mod cli_eval;
mod cli_misuse;
mod cli_submit;
mod cli_train;
mod common;
mod config;
mod convert;
mod data;
mod engine;
mod evaluation;
mod gguf_llama;
mod gguf_pair;
mod grounding;
mod hostile_weights;
mod image;
mod kquants;
mod learner;
mod lora;
mod metrics;
mod parity;
mod questions;
mod records;
mod scenes;
mod score;
mod strategies;
mod text;
mod tidy;
mod train;
mod train_parity;
mod tune;
mod tune_guard;
mod weights;
