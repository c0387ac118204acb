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

/// The first row that fits counts. "Thinking" checkpoints of Qwen3 open a chain of thought: their first
/// token is no answer (`chat_template` of Qwen3-VL-2B-Thinking ends in `<think>`).
const PRESETS: [Preset; 4] = [
    Preset { words: &["qwen3", "thinking"], name: None },
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

    /// [`ScoringOptions::zero_shot`] of the checkpoint called `name`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind::Unsupported) for one whose first token is no answer.
    pub fn of_checkpoint(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let fits = |preset: &&Preset| preset.words.iter().all(|word| lower.contains(word));
        match PRESETS.iter().find(fits).map(|preset| preset.name) {
            Some(None) => Err(Error::unsupported(format!(
                "{name} thinks before it answers, so that its first token is no answer; take the Instruct checkpoint"
            ))),
            Some(Some(name)) => Ok(Self { preset: Some(name.to_owned()), ..Self::zero_shot() }),
            None => Ok(Self::zero_shot()),
        }
    }
}
