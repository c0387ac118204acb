//! Account of a data set: what can be learnt from it, and what is left out and why.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::labels::{Exclusion, LabelRules, Labels, Reason};
use super::{Record, item_name};
use crate::error::Context as _;
use crate::{Error, Result};

/// Counts over the records of a set, and every exclusion by name.
///
/// Each record goes through [`Census::take`], or through [`Census::without_picture`] instead.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Census {
    /// Records seen.
    pub n_records: usize,
    /// Elements seen.
    pub n_elements: usize,
    /// Records with an overall label to learn from.
    pub n_overall_used: usize,
    /// Elements to learn from.
    pub n_elements_used: usize,
    /// Elements, used or not, whose key occurs earlier in the same record.
    pub n_repeated_keys: usize,
    /// What is left out, in the order of the records; not part of the serialised counts.
    #[serde(skip)]
    pub exclusions: Vec<Excluded>,
}

/// A line of the list of exclusions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// The record's number in the set, from 0.
    pub record: usize,
    /// The record's picture.
    pub img_path: String,
    /// The record's prompt.
    pub prompt: String,
    /// What is left out, and why.
    #[serde(flatten)]
    pub exclusion: Exclusion,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, img_path, prompt, exclusion } = self;
        let name = item_name(img_path, prompt);
        write!(f, "record {record}: {name}: {}: {}", exclusion.field, exclusion.reason)
    }
}

impl Census {
    /// The next record's labels, counted.
    ///
    /// # Errors
    /// As [`Record::labels`], with the record's number.
    pub fn take(&mut self, record: &Record, rules: LabelRules) -> Result<Labels> {
        let labels = record.labels(rules).context(|| format!("record {}", self.n_records))?;
        self.n_overall_used += usize::from(labels.total.is_some());
        self.n_elements_used += labels.elements.len();
        self.see(record, &labels.exclusions);
        Ok(labels)
    }

    /// The next record, of which there is no picture, and so nothing to learn.
    pub fn without_picture(&mut self, record: &Record) {
        self.see(record, &[record.without("img_path", Reason::MissingPicture)]);
    }

    /// The list of exclusions as JSON lines: `record` (from 0), `img_path`, `prompt`, `field`, `element` (a key or
    /// null), `reason`, `overall` (whether that label is lost) and `n_elements` (how many are lost).
    pub fn lines(&self) -> Result<String> {
        let mut text = String::new();
        for excluded in &self.exclusions {
            let line = serde_json::to_string(excluded)
                .map_err(|error| Error::internal("cannot write exclusions").with_source(error));
            text.push_str(&line?);
            text.push('\n');
        }
        Ok(text)
    }

    fn see(&mut self, record: &Record, exclusions: &[Exclusion]) {
        let mut keys = HashSet::with_capacity(record.element_score.len());
        self.n_repeated_keys += record.element_score.iter().filter(|(key, _)| !keys.insert(key)).count();
        self.n_elements += record.element_score.len();
        self.exclusions.extend(exclusions.iter().map(|exclusion| Excluded {
            record: self.n_records,
            img_path: record.img_path.clone(),
            prompt: record.prompt.clone(),
            exclusion: exclusion.clone(),
        }));
        self.n_records += 1;
    }
}

impl fmt::Display for Census {
    /// A line of counts, and one for each reason of exclusions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records: overall labels {} of {}, element labels {} of {}",
            self.n_records, self.n_overall_used, self.n_records, self.n_elements_used, self.n_elements
        )?;
        if self.n_repeated_keys > 0 {
            write!(f, ", {} under a repeated key", self.n_repeated_keys)?;
        }
        let mut lost = BTreeMap::<Reason, (usize, usize)>::new();
        for Excluded { exclusion, .. } in &self.exclusions {
            let (overall, elements) = lost.entry(exclusion.reason).or_default();
            *overall += usize::from(exclusion.overall);
            *elements += exclusion.n_elements;
        }
        for (reason, (overall, elements)) in lost {
            write!(f, "\nleft out, {reason}: {overall} overall, {elements} elements")?;
        }
        Ok(())
    }
}
