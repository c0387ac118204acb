//! Predictions beside the labels they are for.
//!
//! Items pair by `img_path` and `prompt`, elements by their key, or by words and canonical category where a
//! prediction gives those. A key that a record's labels hold several times needs as many predictions, which pair in
//! order; fewer are an error, for nothing says which of the labels one is for.

use std::collections::{HashMap, HashSet, VecDeque};

use super::evalmuse::{Record, item_name};
use super::json::quoted;
use super::submission::{ElementKey, Prediction};
use crate::error::Context as _;
use crate::text::{Category, Element};
use crate::{Error, Result};

/// A picture's labels, each the mean over its raters, and its predictions; all finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<'a> {
    /// The labels as they were read.
    pub record: &'a Record,
    /// The prediction as it was read.
    pub prediction: &'a Prediction,
    /// The overall label.
    pub label: f64,
    /// The overall prediction.
    pub score: f64,
    /// The elements in the record's order.
    pub elements: Vec<PairedElement>,
}

/// An element's label and prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedElement {
    /// The canonical category.
    pub category: Category,
    /// The label, 1 for shown.
    pub label: f64,
    /// The prediction.
    pub score: f64,
}

/// Every label with its prediction, in the labels' order.
///
/// # Errors
/// No labels; a label that is `null`; a picture or element that is missing, given twice or not in the labels; a
/// score that is not finite. Errors name the item.
pub fn pair<'a>(labels: &'a [Record], predictions: &'a [Prediction]) -> Result<Vec<Pair<'a>>> {
    let pairs = pair_items(labels, "labels", predictions)?.into_iter().map(|(record, prediction)| {
        let label = finite(record.total()?).context(|| record.name())?;
        let score = finite(prediction.total_score).context(|| format!("prediction for {}", record.name()))?;
        let elements = pair_elements(record, prediction).context(|| record.name())?;
        Ok(Pair { record, prediction, label, score, elements })
    });
    pairs.collect()
}

pub(super) fn finite(value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Error::input(format!("expected a finite score, got {value}")))
    }
}

/// Every record of a list with its prediction, in the order of the list, which errors call `name`.
pub(super) fn pair_items<'a>(
    list: &'a [Record],
    name: &str,
    predictions: &'a [Prediction],
) -> Result<Vec<(&'a Record, &'a Prediction)>> {
    if list.is_empty() {
        return Err(Error::input(format!("{name}: expected at least one record, got none")));
    }
    let mut open: HashMap<(&str, &str), &Prediction> = HashMap::with_capacity(predictions.len());
    for prediction in predictions {
        let key = (prediction.img_path.as_str(), prediction.prompt.as_str());
        if open.insert(key, prediction).is_some() {
            return Err(Error::input(format!("predictions: {} is given twice", item_name(key.0, key.1))));
        }
    }
    let mut known = HashSet::with_capacity(list.len());
    let mut pairs = Vec::with_capacity(list.len());
    let mut missing = Vec::new();
    for record in list {
        let key = (record.img_path.as_str(), record.prompt.as_str());
        if !known.insert(key) {
            return Err(Error::input(format!("{name}: {} is given twice", record.name())));
        }
        match open.remove(&key) {
            Some(prediction) => pairs.push((record, prediction)),
            None => missing.push(record.name()),
        }
    }
    if let Some(first) = missing.first() {
        return Err(Error::input(format!("predictions: {first} is missing{}", and_more(missing.len()))));
    }
    let extra = predictions
        .iter()
        .find(|prediction| open.contains_key(&(&*prediction.img_path, &*prediction.prompt)));
    match extra {
        None => Ok(pairs),
        Some(Prediction { img_path, prompt, .. }) => {
            let item = item_name(img_path, prompt);
            let more = and_more(open.len());
            Err(Error::input(format!("predictions: {item} is not in the {name}{more}")))
        }
    }
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() }
}

/// The elements of one picture.
fn pair_elements(record: &Record, prediction: &Prediction) -> Result<Vec<PairedElement>> {
    let mut open = OpenElements::new(prediction);
    let mut pairs = Vec::with_capacity(prediction.elements.len());
    for (key, label) in record.elements()? {
        let score = open.take(record, key)?;
        let category = Element::parse(key).map_or(Category::Other, |element| element.category);
        let score = finite(score).context(|| format!("prediction for element {}", quoted(key)))?;
        let label = finite(label).context(|| format!("element {}", quoted(key)))?;
        pairs.push(PairedElement { category, label, score });
    }
    open.expect_empty(prediction, "labels")?;
    Ok(pairs)
}

/// Scores that no label has claimed yet.
#[derive(Default)]
pub(super) struct OpenElements<'a> {
    keys: HashMap<&'a str, VecDeque<f64>>,
    parts: HashMap<Element, VecDeque<f64>>,
}

impl<'a> OpenElements<'a> {
    pub(super) fn new(prediction: &'a Prediction) -> Self {
        let mut open = Self::default();
        for (key, score) in &prediction.elements {
            match key {
                ElementKey::Key(key) => open.keys.entry(key).or_default().push_back(*score),
                ElementKey::Parts(element) => {
                    open.parts.entry(element.clone()).or_default().push_back(*score);
                }
            }
        }
        open
    }

    /// The score of the next element of `record` with this key.
    pub(super) fn take(&mut self, record: &Record, key: &str) -> Result<f64> {
        let by_key = self.keys.get_mut(key).and_then(VecDeque::pop_front);
        let score = by_key.or_else(|| self.parts.get_mut(&Element::parse(key).ok()?)?.pop_front());
        score.ok_or_else(|| match record.element_score.iter().filter(|(other, _)| other == key).count() {
            0 | 1 => Error::input(format!("element {} has no prediction", quoted(key))),
            n => {
                Error::input(format!("element {} is there {n} times and has fewer predictions", quoted(key)))
            }
        })
    }

    /// Refuses scores that are left, which are of nothing in the list called `name`.
    pub(super) fn expect_empty(&self, prediction: &Prediction, name: &str) -> Result<()> {
        let left = |key: &ElementKey| {
            let left = match key {
                ElementKey::Key(key) => self.keys.get(key.as_str()),
                ElementKey::Parts(element) => self.parts.get(element),
            };
            left.is_some_and(|scores| !scores.is_empty())
        };
        match prediction.elements.iter().find(|(key, _)| left(key)) {
            None => Ok(()),
            Some((key, _)) => {
                Err(Error::input(format!("predicted element {key} is not in the {name} or given twice")))
            }
        }
    }
}
