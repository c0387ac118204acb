//! From scores as they were given to labels that can be learnt from, or the reason why not.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Rating, Record};
use crate::data::json::quoted;
use crate::error::Context as _;
use crate::text::Element;
use crate::{Error, Result};

/// Scores of the whole, from each rater (card of the data set).
const TOTAL: RangeInclusive<f64> = 1.0..=5.0;

/// Scores of an element and answers to the questions about the record, from each rater (card of the data set).
const SHARE: RangeInclusive<f64> = 0.0..=1.0;

/// Which doubtful labels are left out; by default none.
///
/// The three fields do not point the same way: for the first two 1 is the bad answer, for the third it is 0. A record
/// without the field passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelRules {
    /// Leaves out records whose prompt names no subject: mean of `promt_meaningless` at least a half.
    pub skip_meaningless_prompts: bool,
    /// Leaves out the elements where their split may be wrong: mean of `split_confidence` at least a half.
    pub skip_doubtful_splits: bool,
    /// Leaves out the elements where raters were not sure: mean of `attribute_confidence` below a half.
    pub skip_unsure_raters: bool,
}

/// A score that can be learnt.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The mean over the raters.
    pub mean: f64,
    /// Each rater's score; empty where the record has nothing but the mean.
    pub ratings: Vec<f64>,
}

/// An element with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementLabel {
    /// Its key in `element_score`, which another element of the record may share.
    pub key: String,
    /// Words and canonical category, to ask with.
    pub element: Element,
    /// Whether the picture shows it, 0 to 1.
    pub label: Label,
}

/// What can be learnt from a record, and what was left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labels {
    /// Agreement of picture and prompt, 1 to 5.
    pub total: Option<Label>,
    /// The elements in the record's order.
    pub elements: Vec<ElementLabel>,
    /// Everything that is missing from the above.
    pub exclusions: Vec<Exclusion>,
}

impl Labels {
    /// Whether there is nothing to learn.
    pub fn is_empty(&self) -> bool {
        self.total.is_none() && self.elements.is_empty()
    }
}

/// Why a label is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The score is `null` or absent, as in the lists of the test sets.
    Unlabelled,
    /// Prompt or element consists of nothing that could be asked.
    NoWords,
    /// [`LabelRules::skip_meaningless_prompts`].
    MeaninglessPrompt,
    /// [`LabelRules::skip_doubtful_splits`].
    DoubtfulSplit,
    /// [`LabelRules::skip_unsure_raters`].
    UnsureRaters,
    /// There is no file of the picture.
    MissingPicture,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlabelled => "no label",
            Self::NoWords => "no words",
            Self::MeaninglessPrompt => "prompt without a subject",
            Self::DoubtfulSplit => "split into elements may be wrong",
            Self::UnsureRaters => "raters were not sure",
            Self::MissingPicture => "no picture",
        })
    }
}

/// Labels of one record that are not used, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exclusion {
    /// The record's field that decided.
    pub field: &'static str,
    /// The element's key, where it is about a single one.
    pub element: Option<String>,
    /// Why.
    pub reason: Reason,
    /// Whether the overall label is lost.
    pub overall: bool,
    /// How many of the elements' labels are lost.
    pub n_elements: usize,
}

impl Record {
    /// What can be learnt from the record under `rules`, and what cannot.
    ///
    /// # Errors
    /// A score outside its range, 1 to 5 for the whole and 0 to 1 for everything else, or not finite; an empty list
    /// of raters. The record and the field are named.
    pub fn labels(&self, rules: LabelRules) -> Result<Labels> {
        self.checked_labels(rules).context(|| self.name())
    }

    fn checked_labels(&self, rules: LabelRules) -> Result<Labels> {
        let flag =
            |rating: &Rating, field| Ok::<_, Error>(label(rating, &SHARE, field)?.map(|label| label.mean));
        let meaningless = flag(&self.promt_meaningless, "promt_meaningless")?.is_some_and(|mean| mean >= 0.5);
        let doubtful = flag(&self.split_confidence, "split_confidence")?.is_some_and(|mean| mean >= 0.5);
        let unsure = flag(&self.attribute_confidence, "attribute_confidence")?.is_some_and(|mean| mean < 0.5);

        let total = label(&self.total_score, &TOTAL, "total_score")?;
        let mut labels = Labels { total, ..Labels::default() };
        self.add_elements(&mut labels)?;
        let whole = [
            (self.prompt.trim().is_empty(), "prompt", Reason::NoWords),
            (meaningless && rules.skip_meaningless_prompts, "promt_meaningless", Reason::MeaninglessPrompt),
        ];
        let elements = [
            (doubtful && rules.skip_doubtful_splits, "split_confidence", Reason::DoubtfulSplit),
            (unsure && rules.skip_unsure_raters, "attribute_confidence", Reason::UnsureRaters),
        ];
        if let Some((_, field, reason)) = whole.into_iter().find(|(applies, ..)| *applies) {
            return Ok(Labels { exclusions: vec![self.without(field, reason)], ..Labels::default() });
        }
        if labels.total.is_none() {
            let (field, reason) = ("total_score", Reason::Unlabelled);
            labels
                .exclusions
                .insert(0, Exclusion { field, element: None, reason, overall: true, n_elements: 0 });
        }
        if let Some((_, field, reason)) = elements.into_iter().find(|(applies, ..)| *applies) {
            let n_elements = std::mem::take(&mut labels.elements).len();
            if n_elements > 0 {
                labels.exclusions.push(Exclusion {
                    field,
                    element: None,
                    reason,
                    overall: false,
                    n_elements,
                });
            }
        }
        Ok(labels)
    }

    /// The exclusion of everything in the record.
    pub(super) fn without(&self, field: &'static str, reason: Reason) -> Exclusion {
        Exclusion { field, element: None, reason, overall: true, n_elements: self.element_score.len() }
    }

    /// The elements that have a label and words, and an exclusion for each of the others, or one for all.
    fn add_elements(&self, labels: &mut Labels) -> Result<()> {
        let field = "element_score";
        let mut left_out = Vec::new();
        for (key, rating) in &self.element_score {
            let label = label(rating, &SHARE, format_args!("{field}: {}", quoted(key)))?;
            let reason = match (label, Element::parse(key)) {
                (Some(label), Ok(element)) => {
                    labels.elements.push(ElementLabel { key: key.clone(), element, label });
                    continue;
                }
                (None, _) => Reason::Unlabelled,
                (_, Err(_)) => Reason::NoWords,
            };
            let element = Some(key.clone());
            left_out.push(Exclusion { field, element, reason, overall: false, n_elements: 1 });
        }
        let n_elements = left_out.len();
        let unlabelled = left_out.iter().all(|exclusion| exclusion.reason == Reason::Unlabelled);
        if n_elements > 1 && n_elements == self.element_score.len() && unlabelled {
            let reason = Reason::Unlabelled;
            left_out = vec![Exclusion { field, element: None, reason, overall: false, n_elements }];
        }
        labels.exclusions.extend(left_out);
        Ok(())
    }
}

/// A rating as a label, `None` where it is missing.
fn label(rating: &Rating, range: &RangeInclusive<f64>, field: impl fmt::Display) -> Result<Option<Label>> {
    let (mean, ratings) = match rating {
        Rating::Missing => return Ok(None),
        Rating::Mean(mean) => (Some(*mean), Vec::new()),
        Rating::Raters(each) => (rating.mean(), each.clone()),
    };
    let mean = mean.ok_or_else(|| Error::input(format!("{field}: expected at least one rater, got none")))?;
    match ratings.iter().copied().chain([mean]).find(|score| !range.contains(score)) {
        None => Ok(Some(Label { mean, ratings })),
        Some(score) => {
            let (lowest, highest) = (range.start(), range.end());
            Err(Error::input(format!("{field}: expected scores from {lowest} to {highest}, got {score}")))
        }
    }
}
