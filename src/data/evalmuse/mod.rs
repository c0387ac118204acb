//! Records of the EvalMuse-40K data set, in the published form (`train_list.json`, `test.json`).
//!
//! ```json
//! {"prompt_id": "12", "prompt": "two red circles", "type": "synthetic", "img_path": "shapes/00012.png",
//!  "total_score": [4, 3, 3], "element_score": {"red circle (color)": [1, 0, 1]},
//!  "promt_meaningless": [0, 0, 0], "split_confidence": [0, 0, 0], "attribute_confidence": [1, 1, 1],
//!  "fidelity_label": ["..."]}
//! ```
//!
//! Scores are one number per rater, their mean, or `null` where unknown. Other fields (`var`, `mask`,
//! `token_score`) are passed over. `promt_meaningless` is spelt so.
//!
//! Keys of `element_score` are the elements' words, and a prompt may ask for the same words twice: two `4 (counting)`,
//! say. Both are kept, in order, each with its own label; they are told apart by their place alone. [`Census`] counts
//! them, and whoever pairs by key has to give as many scores.
//!
//! [`RecordStream`] reads a set of any length, [`Record::labels`] says what of a record can be learnt from,
//! [`Census`] keeps account of what cannot.

mod census;
mod labels;
mod stream;
mod wire;

pub use census::{Census, Excluded};
pub use labels::{ElementLabel, Exclusion, Label, LabelRules, Labels, Reason};
pub use stream::{Located, RecordStream, record_at, record_from};

use super::json::{items, quoted};
use crate::error::Context;
use crate::text::PromptType;
use crate::{Error, Result};

/// A score as raters gave it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Rating {
    /// `null` or absent.
    #[default]
    Missing,
    /// One number, usually a mean.
    Mean(f64),
    /// One number per rater, at least one; 11.6 % of the published records have other than three.
    Raters(Vec<f64>),
}

impl Rating {
    /// The mean over however many raters there are; `None` where the score is missing.
    pub fn mean(&self) -> Option<f64> {
        match self {
            Self::Missing => None,
            Self::Mean(mean) => Some(*mean),
            Self::Raters(each) if each.is_empty() => None,
            Self::Raters(each) => Some(each.iter().sum::<f64>() / each.len() as f64),
        }
    }
}

/// One picture, its prompt and its labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Which prompt (`prompt_id`, a string or a number).
    pub prompt_id: Option<String>,
    /// The words (`prompt`).
    pub prompt: String,
    /// How the prompt came about (`type`); names that begin with `real` or `synthetic` are accepted.
    pub prompt_type: Option<PromptType>,
    /// The picture, relative to the data folder (`img_path`).
    pub img_path: String,
    /// Agreement of picture and prompt, 1 to 5 (`total_score`).
    pub total_score: Rating,
    /// Whether the picture shows each element, 0 or 1, in the file's order (`element_score`).
    pub element_score: Vec<(String, Rating)>,
    /// 1: the prompt names no subject (`promt_meaningless`).
    pub promt_meaningless: Rating,
    /// 1: the split into elements may be wrong (`split_confidence`).
    pub split_confidence: Rating,
    /// 0: the rater was not sure (`attribute_confidence`).
    pub attribute_confidence: Rating,
    /// Free labels of the picture's faithfulness (`fidelity_label`), kept as they are.
    pub fidelity_label: Option<serde_json::Value>,
}

impl Record {
    /// The overall label.
    ///
    /// # Errors
    /// Where it is missing; the record is named.
    pub fn total(&self) -> Result<f64> {
        self.total_score
            .mean()
            .ok_or_else(|| Error::input("total_score: expected a number, got null"))
            .context(|| self.name())
    }

    /// The element labels in order.
    ///
    /// # Errors
    /// Where one is missing; the record and the element are named.
    pub fn elements(&self) -> Result<Vec<(&str, f64)>> {
        let mut labels = Vec::with_capacity(self.element_score.len());
        for (key, rating) in &self.element_score {
            let missing =
                || Error::input(format!("element_score: {}: expected a number, got null", quoted(key)));
            labels.push((key.as_str(), rating.mean().ok_or_else(missing).context(|| self.name())?));
        }
        Ok(labels)
    }

    /// The record with its questions and without their answers, as in a test set.
    pub fn without_labels(mut self) -> Self {
        self.total_score = Rating::Missing;
        self.element_score.iter_mut().for_each(|(_, score)| *score = Rating::Missing);
        self
    }

    /// The record in errors: picture and prompt.
    pub(in crate::data) fn name(&self) -> String {
        item_name(&self.img_path, &self.prompt)
    }

    /// Refuses a path that is empty, absolute or climbs out of the data folder, on any system.
    fn check_path(&self) -> Result<()> {
        let path = self.img_path.as_str();
        let climbs = path.split(['/', '\\']).any(|part| part == "..");
        let absolute = path.starts_with(['/', '\\']) || path.chars().nth(1) == Some(':');
        if climbs || absolute || path.contains('\0') {
            return Err(Error::input(format!(
                "img_path: expected a path inside the data folder, got {}",
                quoted(path)
            )));
        }
        Ok(())
    }
}

/// `picture "a.png" of "a red circle"`.
pub(in crate::data) fn item_name(img_path: &str, prompt: &str) -> String {
    format!("picture {} of {}", quoted(img_path), quoted(prompt))
}

/// Reads records: a JSON list, or objects one after the other.
///
/// # Errors
/// Text that is no such JSON (which has no NaN), a missing prompt or path, a score that is no finite number, an
/// empty list of raters, a path that leaves the data folder. Errors name the record, counted from 0, and the field.
pub fn read_records(text: &str) -> Result<Vec<Record>> {
    let records = read_labels(text)?;
    for (index, record) in records.iter().enumerate() {
        record.check_path().context(|| format!("record {index}"))?;
    }
    Ok(records)
}

/// [`read_records`] for labels whose pictures will not be opened: any path that is not empty will do.
pub fn read_labels(text: &str) -> Result<Vec<Record>> {
    items(text, "record")
}

/// Writes records as [`read_records`] reads them: a JSON list with one record per line.
///
/// Missing scores are written as `null`, other missing fields not at all.
pub fn write_records(records: &[Record]) -> Result<String> {
    let mut text = String::from("[");
    for (index, record) in records.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        let line = serde_json::to_string(record)
            .map_err(|error| Error::internal("cannot write records").with_source(error));
        text.push_str(&line?);
    }
    text.push_str("\n]\n");
    Ok(text)
}
