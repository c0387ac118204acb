//! Predictions: read from files, paired with labels, evaluated.
//!
//! Two forms are read, as a JSON list or as objects one after the other, also mixed:
//! - the challenge's submission, `{"prompt", "img_path", "total_score", "element_score": {"red circle (color)": 0.9}}`;
//! - what `score` prints, with the item's names added: `{"img_path", "prompt", "overall": {"score"}, "elements":
//!   [{"element", "category", "score"}]}`.
//!
//! Other fields are passed over. Items pair by `img_path` and `prompt`, elements by their key, or in the second form
//! by words and canonical category.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::evalmuse::{Record, item_name};
use super::json::{Entries, field, items, quoted};
use crate::error::Context;
use crate::metrics::{self, PlccVariant};
use crate::text::Element;
use crate::{Error, Result};

/// The scores of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The picture.
    pub img_path: String,
    /// The prompt.
    pub prompt: String,
    /// The overall score, on any increasing scale.
    pub total_score: f64,
    /// The scores of its elements in the file's order.
    pub elements: Vec<(ElementKey, f64)>,
}

/// How a prediction names an element.
#[derive(Debug, Clone, PartialEq)]
pub enum ElementKey {
    /// With the label's own key.
    Key(String),
    /// By words and canonical category.
    Parts(Element),
}

impl fmt::Display for ElementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(&quoted(key)),
            Self::Parts(element) => f.write_str(&quoted(&element.to_string())),
        }
    }
}

/// The object of `eval --json`; what is undefined is `null`, and a warning says why.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EvalReport {
    /// Spearman's rank correlation.
    pub srcc: Option<f64>,
    /// Pearson's correlation in the variant asked for.
    pub plcc: Option<f64>,
    /// Kendall's tau-b.
    pub krcc: Option<f64>,
    /// Root mean squared difference of the raw scores.
    pub rmse: Option<f64>,
    /// Share of elements on the right side of a half.
    pub accuracy: Option<f64>,
    /// `srcc / 4 + plcc / 4 + accuracy / 2`.
    #[serde(rename = "final")]
    pub final_score: Option<f64>,
    /// Pictures compared.
    pub n_images: usize,
    /// Elements compared.
    pub n_elements: usize,
    /// Sentences for the reader; not part of the object.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// An item of a predictions file as it is found.
#[derive(Default)]
#[allow(clippy::option_option, reason = "a field may be absent or null")]
struct Line {
    img_path: Option<Option<String>>,
    prompt: Option<Option<String>>,
    total_score: Option<Option<f64>>,
    element_score: Option<Entries<Option<f64>>>,
    overall: Option<Overall>,
    elements: Option<Vec<Scored>>,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prediction")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut line = Line::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "img_path" => field(&mut map, &mut line.img_path, &name),
                        "prompt" => field(&mut map, &mut line.prompt, &name),
                        "total_score" => field(&mut map, &mut line.total_score, &name),
                        "element_score" => field(&mut map, &mut line.element_score, &name),
                        "overall" => field(&mut map, &mut line.overall, &name),
                        "elements" => field(&mut map, &mut line.elements, &name),
                        _ => field(&mut map, &mut None::<IgnoredAny>, &quoted(&name)),
                    }
                    .map_err(|error| match line.img_path.iter().flatten().next() {
                        Some(path) => A::Error::custom(format!("picture {}: {error}", quoted(path))),
                        None => error,
                    })?;
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Overall {
    score: Option<f64>,
}

#[derive(Deserialize)]
struct Scored {
    element: String,
    category: Option<String>,
    score: Option<f64>,
}

impl Line {
    fn prediction(self) -> Result<Prediction> {
        let missing = |name: &str| Error::input(format!("{name}: expected a value, got none or null"));
        let img_path = self.img_path.flatten().ok_or_else(|| missing("img_path"))?;
        let prompt = self.prompt.flatten().ok_or_else(|| missing("prompt"))?;
        let place = item_name(&img_path, &prompt);
        if self.total_score.is_some() && self.overall.is_some() {
            return Err(Error::input("expected either total_score or overall, got both").context(place));
        }
        let total = self.total_score.flatten().or_else(|| self.overall.and_then(|overall| overall.score));
        let total_score = total.ok_or_else(|| missing("total_score")).context(|| &place)?;
        let mut elements = Vec::new();
        let entries = self.element_score.map_or_else(|| Ok(Vec::new()), Entries::once);
        for (key, score) in entries.context(|| "element_score").context(|| &place)? {
            let score = score
                .ok_or_else(|| missing(&format!("element_score: {}", quoted(&key))))
                .context(|| &place)?;
            elements.push((ElementKey::Key(key), score));
        }
        for Scored { element, category, score } in self.elements.unwrap_or_default() {
            let text = format!("{element} ({})", category.as_deref().unwrap_or("other"));
            let score =
                score.ok_or_else(|| missing(&format!("elements: {}", quoted(&text)))).context(|| &place)?;
            elements.push((ElementKey::Parts(Element::parse(&text).context(|| &place)?), score));
        }
        Ok(Prediction { img_path, prompt, total_score, elements })
    }
}

/// Reads predictions in the forms that the module describes.
///
/// # Errors
/// Text that is no such JSON (which has no NaN), a missing or `null` name or score, an element given twice in
/// `element_score`. Errors name the item, counted from 0.
pub fn read_predictions(text: &str) -> Result<Vec<Prediction>> {
    let lines: Vec<Line> = items(text, "prediction")?;
    lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| line.prediction().context(|| format!("prediction {index}")))
        .collect()
}

/// Compares predictions with labels, each the mean over its raters.
///
/// # Errors
/// No labels; a label that is `null`; a picture or element that is missing, given twice or not in the labels; a
/// score that is not finite. Errors name the item.
pub fn evaluate(labels: &[Record], predictions: &[Prediction], variant: PlccVariant) -> Result<EvalReport> {
    let mut totals = (Vec::with_capacity(labels.len()), Vec::with_capacity(labels.len()));
    let mut elements = Vec::new();
    for (record, prediction) in pair(labels, predictions)? {
        totals.0.push(finite(record.total()?).context(|| record.name())?);
        totals
            .1
            .push(finite(prediction.total_score).context(|| format!("prediction for {}", record.name()))?);
        elements.extend(pair_elements(record, prediction).context(|| record.name())?);
    }
    Ok(report(&totals.0, &totals.1, &elements, variant))
}

fn finite(value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Error::input(format!("expected a finite score, got {value}")))
    }
}

/// Every label with its prediction, in the labels' order.
fn pair<'a>(
    labels: &'a [Record],
    predictions: &'a [Prediction],
) -> Result<Vec<(&'a Record, &'a Prediction)>> {
    if labels.is_empty() {
        return Err(Error::input("labels: expected at least one record, got none"));
    }
    let mut open: HashMap<(&str, &str), &Prediction> = HashMap::with_capacity(predictions.len());
    for prediction in predictions {
        let key = (prediction.img_path.as_str(), prediction.prompt.as_str());
        if open.insert(key, prediction).is_some() {
            return Err(Error::input(format!("predictions: {} is given twice", item_name(key.0, key.1))));
        }
    }
    let mut known = HashSet::with_capacity(labels.len());
    let mut pairs = Vec::with_capacity(labels.len());
    let mut missing = Vec::new();
    for record in labels {
        let key = (record.img_path.as_str(), record.prompt.as_str());
        if !known.insert(key) {
            return Err(Error::input(format!("labels: {} is given twice", record.name())));
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
            let name = item_name(img_path, prompt);
            Err(Error::input(format!("predictions: {name} is not in the labels{}", and_more(open.len()))))
        }
    }
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() }
}

/// (label, prediction) of every element of one picture.
fn pair_elements(record: &Record, prediction: &Prediction) -> Result<Vec<(f64, f64)>> {
    let mut open = OpenElements::default();
    for (key, score) in &prediction.elements {
        match key {
            ElementKey::Key(key) => open.keys.entry(key).or_default().push_back(*score),
            ElementKey::Parts(element) => open.parts.entry(element.clone()).or_default().push_back(*score),
        }
    }
    let mut pairs = Vec::with_capacity(prediction.elements.len());
    for (key, label) in record.elements()? {
        let Some(score) = open.take(key) else {
            return Err(Error::input(format!("element {} has no prediction", quoted(key))));
        };
        let score = finite(score).context(|| format!("prediction for element {}", quoted(key)))?;
        pairs.push((finite(label).context(|| format!("element {}", quoted(key)))?, score));
    }
    match prediction.elements.iter().find(|(key, _)| open.has(key)) {
        None => Ok(pairs),
        Some((key, _)) => {
            Err(Error::input(format!("predicted element {key} is not in the labels or given twice")))
        }
    }
}

/// Scores that no label has claimed yet.
#[derive(Default)]
struct OpenElements<'a> {
    keys: HashMap<&'a str, VecDeque<f64>>,
    parts: HashMap<Element, VecDeque<f64>>,
}

impl OpenElements<'_> {
    fn take(&mut self, key: &str) -> Option<f64> {
        let by_key = self.keys.get_mut(key).and_then(VecDeque::pop_front);
        by_key.or_else(|| self.parts.get_mut(&Element::parse(key).ok()?)?.pop_front())
    }

    fn has(&self, key: &ElementKey) -> bool {
        let left = match key {
            ElementKey::Key(key) => self.keys.get(key.as_str()),
            ElementKey::Parts(element) => self.parts.get(element),
        };
        left.is_some_and(|scores| !scores.is_empty())
    }
}

/// All figures, with a warning for each that is undefined or misleading.
fn report(labels: &[f64], predictions: &[f64], elements: &[(f64, f64)], variant: PlccVariant) -> EvalReport {
    let srcc = metrics::srcc(labels, predictions);
    let plcc = metrics::plcc(labels, predictions, variant);
    let accuracy = metrics::accuracy(elements);
    let final_score = match (srcc, plcc, accuracy) {
        (Some(srcc), Some(plcc), Some(accuracy)) => Some(metrics::final_score(srcc, plcc, accuracy)),
        _ => None,
    };
    let mut report = EvalReport {
        srcc,
        plcc,
        krcc: metrics::krcc(labels, predictions),
        rmse: metrics::rmse(labels, predictions),
        accuracy,
        final_score,
        n_images: labels.len(),
        n_elements: elements.len(),
        warnings: Vec::new(),
    };
    report.warnings.extend(why_undefined(&report, labels));
    let raw = metrics::pearson(labels, predictions).filter(|_| variant != PlccVariant::Raw);
    report.warnings.extend(raw.filter(|raw| *raw < 0.0).map(|raw| {
        format!(
            "predictions fall where labels rise (raw Pearson {raw:.4}), which the fitted plcc does not show"
        )
    }));
    report
}

/// A sentence for every reason why a figure is undefined.
fn why_undefined(report: &EvalReport, labels: &[f64]) -> Vec<String> {
    let (all, plcc) = ("srcc, plcc, krcc and final are", "plcc and final are");
    let correlation = match (report.srcc, report.plcc) {
        (None, _) if labels.len() < 2 => Some((all, "there is one picture")),
        (None, _) if !metrics::varies(labels) => Some((all, "all labels are equal")),
        (None, _) => Some((all, "all predictions are equal")),
        (_, None) if labels.len() < 4 => {
            Some((plcc, "the logistic needs four pictures (raw does without it)"))
        }
        (_, None) => Some((plcc, "the fitted logistic is flat (raw does without it)")),
        _ => None,
    };
    let rmse = report.rmse.is_none().then_some(("rmse is", "the scores are too large"));
    let accuracy = report.accuracy.is_none().then_some(("accuracy and final are", "there are no elements"));
    let reasons = [correlation, rmse, accuracy].into_iter().flatten();
    reasons.map(|(names, reason)| format!("{names} undefined: {reason}")).collect()
}
