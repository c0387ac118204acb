//! What a checkpoint has and what a model wants: the whole truth in one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::format::tensor::{TensorInfo, shown};
use crate::{Error, Result};

/// Names that a sentence spells out before it says how many more there are.
const SHOWN: usize = 3;

/// Unused names that are compared with a missing one.
const MAX_CANDIDATES: usize = 4096;

/// A tensor of another shape than the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Canonical name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// The checkpoint's shape.
    pub got: Vec<usize>,
}

/// A checkpoint compared with what a model expects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Names that fit.
    pub applied: Vec<String>,
    /// Names that the checkpoint lacks.
    pub missing: Vec<String>,
    /// The checkpoint's names that the model has no place for.
    pub unused: Vec<String>,
    /// Names whose shapes differ.
    pub mismatched: Vec<Mismatch>,
}

impl LoadReport {
    /// Compares `found` with `expected` (canonical name, shape).
    pub fn compare<'a>(
        expected: &[(String, Vec<usize>)],
        found: impl IntoIterator<Item = &'a TensorInfo>,
    ) -> Self {
        let found: BTreeMap<&str, &[usize]> =
            found.into_iter().map(|info| (info.name.as_str(), info.shape.as_slice())).collect();
        let wanted: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let mut report = Self {
            unused: found
                .keys()
                .filter(|name| !wanted.contains(*name))
                .map(|name| (*name).to_owned())
                .collect(),
            ..Self::default()
        };
        for (name, shape) in expected {
            match found.get(name.as_str()) {
                None => report.missing.push(name.clone()),
                Some(got) if got == shape => report.applied.push(name.clone()),
                Some(got) => report.mismatched.push(Mismatch {
                    name: name.clone(),
                    expected: shape.clone(),
                    got: got.to_vec(),
                }),
            }
        }
        report
    }

    /// Whether nothing is missing and no shape differs.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }

    /// The report, where the model can be filled.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] with the whole sentence, where it cannot.
    pub fn complete(self) -> Result<Self> {
        if self.is_complete() { Ok(self) } else { Err(Error::model(self.to_string())) }
    }

    /// The unused name that is most like `name`, if one is like it at all.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let limit = name.len() / 3;
        let candidates =
            self.unused.iter().take(MAX_CANDIDATES).filter(|other| other.len() < 2 * name.len() + 8);
        candidates
            .map(|other| (distance(name, other), other.as_str()))
            .filter(|(distance, _)| *distance <= limit)
            .min()
            .map(|(_, other)| other)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors applied", self.applied.len())?;
        list(f, "missing", &self.missing, |name| match self.nearest(name) {
            Some(other) => format!("{name}, did you mean {}?", shown(other)),
            None => name.clone(),
        })?;
        list(f, "of another shape", &self.mismatched, |mismatch| {
            format!("{} is {:?}, expected {:?}", mismatch.name, mismatch.got, mismatch.expected)
        })?;
        list(f, "unused", &self.unused, |name| shown(name))
    }
}

fn list<T>(f: &mut fmt::Formatter<'_>, what: &str, items: &[T], show: impl Fn(&T) -> String) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let first: Vec<String> = items.iter().take(SHOWN).map(show).collect();
    let rest = items.len() - first.len();
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    write!(f, ", {} {what} ({}{more})", items.len(), first.join("; "))
}

/// Levenshtein's distance of bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
