//! What the NTIRE 2025 challenge on text-to-image alignment takes: `output.json` and `readme.txt`.
//!
//! Forms as its page and the scorer of <https://github.com/DYEvaLab/EvalMuse> (commit 0fa141b) have them. The scorer
//! pairs items by their order, so what is missing or doubled would shift all others in silence: here it is an error.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use super::evalmuse::Record;
use super::json::quoted;
use super::pairing::{OpenElements, finite, pair_items};
use super::submission::Prediction;
use crate::error::Context as _;
use crate::{Error, Result};

/// What pictures and elements have to be in, for errors.
const LIST: &str = "test list";

/// `output.json` and how much it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// A JSON list with one item per line.
    pub json: String,
    /// Pictures in it.
    pub n_images: usize,
    /// Elements in it.
    pub n_elements: usize,
}

/// One item of `output.json`.
#[derive(Serialize)]
struct Item<'a> {
    prompt: &'a str,
    img_path: &'a str,
    total_score: f64,
    #[serde(serialize_with = "as_object")]
    element_score: Vec<(&'a str, f64)>,
}

fn as_object<S: Serializer>(entries: &[(&str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().copied())
}

/// Predictions as `output.json`: items and elements in the order of the test list, under its keys.
///
/// A key that the test list holds twice is written once, for an object can hold no more; its predictions must be
/// equal, as those of the same question are.
///
/// # Errors
/// No test items; a picture or element that is missing, given twice or not in the test list; a score that is not
/// finite; different scores for one key. Errors name the item.
pub fn output(test: &[Record], predictions: &[Prediction]) -> Result<Output> {
    let (mut json, mut n_images, mut n_elements) = (String::from("["), 0, 0);
    for (record, prediction) in pair_items(test, LIST, predictions)? {
        let item = item(record, prediction).context(|| record.name())?;
        let line = serde_json::to_string(&item)
            .map_err(|error| Error::internal("cannot write a submission").with_source(error))?;
        json += if n_images == 0 { "\n" } else { ",\n" };
        json += &line;
        n_images += 1;
        n_elements += item.element_score.len();
    }
    json += "\n]\n";
    Ok(Output { json, n_images, n_elements })
}

fn item<'a>(record: &'a Record, prediction: &'a Prediction) -> Result<Item<'a>> {
    let mut open = OpenElements::new(prediction);
    let mut element_score: Vec<(&str, f64)> = Vec::with_capacity(record.element_score.len());
    for (key, _) in &record.element_score {
        let element = || format!("element {}", quoted(key));
        let score = open.take(record, key)?;
        let score = finite(score).context(element)?;
        match element_score.iter().find(|(earlier, _)| earlier == key) {
            None => element_score.push((key, score)),
            Some((_, earlier)) if earlier.to_bits() == score.to_bits() => {}
            Some((_, earlier)) => {
                return Err(Error::input(format!("expected one score, got {earlier} and {score}")))
                    .context(element);
            }
        }
    }
    open.expect_empty(prediction, LIST)?;
    let total_score = finite(prediction.total_score).context(|| "total_score")?;
    Ok(Item { prompt: &record.prompt, img_path: &record.img_path, total_score, element_score })
}

/// What the organisers ask about a submission.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Notes {
    /// Seconds per picture.
    pub runtime: Option<f64>,
    /// Whether it ran on a GPU.
    pub gpu: bool,
    /// Whether other data than the challenge's were learnt from.
    pub extra_data: bool,
    /// Whether a language model takes part.
    pub llm: bool,
    /// Anything else, in one line.
    pub description: String,
}

impl Notes {
    /// `readme.txt`; an unknown runtime is left open.
    ///
    /// # Errors
    /// A runtime that is no positive number, a description of several lines.
    pub fn text(&self) -> Result<String> {
        let Self { runtime, gpu, extra_data, llm, description } = self;
        if let Some(seconds) = runtime.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
            return Err(Error::input(format!(
                "runtime: expected a positive number of seconds, got {seconds}"
            )));
        }
        if description.contains(char::is_control) {
            return Err(Error::input(format!("description: expected one line, got {}", quoted(description))));
        }
        let runtime = runtime.map(|seconds| seconds.to_string()).unwrap_or_default();
        let digit = |set: bool| if set { '1' } else { '0' };
        let mut text = String::new();
        for (name, value) in [
            ("runtime per image [s]", runtime),
            ("CPU[1] / GPU[0]", digit(!gpu).into()),
            ("Extra Data [1] / No Extra Data [0]", digit(*extra_data).into()),
            ("LLM[1] / Non-LLM[0]", digit(*llm).into()),
            ("Other description", description.clone()),
        ] {
            let _ = writeln!(text, "{name} : {value}");
        }
        Ok(text)
    }
}
