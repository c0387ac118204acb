//! Scoring options of public checkpoints that were never tuned on levels, by what they are called.
//!
//! All are asked yes or no with a temperature of 1: no calibration against people's scores has been measured
//! for any of them. What a row adds is the name that is printed with every result, or a refusal.

use super::options::ScoringOptions;
use crate::text::OverallKind;
use crate::{Error, Result};

/// A kind of checkpoint.
struct Preset {
    /// Words that its name has, in any order.
    words: &'static [&'static str],
    /// What results call the options; none where such a checkpoint cannot answer at once.
    name: Option<&'static str>,
}

const fn preset(words: &'static [&'static str], name: &'static str) -> Preset {
    Preset { words, name: Some(name) }
}

const fn refused(words: &'static [&'static str]) -> Preset {
    Preset { words, name: None }
}

/// The first row that fits counts. "Thinking" checkpoints open a chain of thought; embedding models and
/// rerankers have the same layers and were trained for something else.
const PRESETS: [Preset; 6] = [
    refused(&["qwen3", "thinking"]),
    refused(&["qwen3", "embedding"]),
    refused(&["qwen3", "rerank"]),
    preset(&["qwen3", "vl"], "zero-shot, Qwen3-VL"),
    preset(&["internvl3"], "zero-shot, InternVL3"),
    preset(&[], "zero-shot"),
];

impl ScoringOptions {
    /// For a checkpoint without options of its own: the overall question is `yes_no`, and `preset` says so.
    pub fn zero_shot() -> Self {
        let mut options = Self::default().with_overall(OverallKind::YesNo);
        options.preset = Some("zero-shot".to_owned());
        options
    }

    /// [`ScoringOptions::zero_shot`] of the checkpoint called `name`, with its chat template where there is
    /// one.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind::Unsupported) for one whose first token is no answer.
    pub fn of_checkpoint(name: &str, chat_template: Option<&str>) -> Result<Self> {
        if chat_template.is_some_and(thinks) {
            return Err(Error::unsupported(format!(
                "{name} thinks before it answers (its chat template opens <think>), so that its first token \
                 is no answer; take the Instruct checkpoint"
            )));
        }
        let lower = name.to_ascii_lowercase();
        let fits = |preset: &&Preset| preset.words.iter().all(|word| lower.contains(word));
        match PRESETS.iter().find(fits).map(|preset| preset.name) {
            Some(None) => Err(Error::unsupported(format!(
                "{name} is by its name a checkpoint whose first token is no answer; take the Instruct checkpoint"
            ))),
            Some(Some(name)) => Ok(Self { preset: Some(name.to_owned()), ..Self::zero_shot() }),
            None => Ok(Self::zero_shot()),
        }
    }
}

/// Whether the assistant's turn is opened with a chain of thought (the Thinking checkpoints of Qwen3-VL), in
/// Jinja's spelling of a line feed, as JSON quotes it, or as itself.
fn thinks(chat_template: &str) -> bool {
    ["\n", "\\n", "\\\\n"].iter().any(|feed| chat_template.contains(&format!("assistant{feed}<think>")))
}
