//! Predictions as files hold them.
//!
//! Two forms are read, as a JSON list or as objects one after the other, also mixed:
//! - the challenge's submission, `{"prompt", "img_path", "total_score", "element_score": {"red circle (color)": 0.9}}`;
//! - what `score` prints, with the item's names added: `{"img_path", "prompt", "overall": {"score"}, "elements":
//!   [{"element", "category", "score"}]}`.
//!
//! Other fields are passed over. In the first form an element is given once: an object has no order by which two of
//! one key could be told apart, and the challenge's scorer sees only the last. The second form is a list, and two of
//! the same words keep their order.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::evalmuse::item_name;
use super::json::{Entries, field, items, quoted};
use crate::error::Context;
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
    /// The probabilities behind the overall score, from the lowest level to the highest, where they are given.
    pub levels: Vec<Level>,
    /// The scoring options behind the scores as they were written, where they are given.
    pub scoring: Option<serde_json::Value>,
}

/// One level of an overall score.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Level {
    /// The level's token.
    pub token: String,
    /// Its probability among the levels.
    pub probability: f64,
}

impl Prediction {
    /// The prediction in errors: picture and prompt.
    pub(super) fn name(&self) -> String {
        item_name(&self.img_path, &self.prompt)
    }
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
    scoring: Option<Option<serde_json::Value>>,
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
                        "scoring" => field(&mut map, &mut line.scoring, &name),
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
    #[serde(default)]
    levels: Option<Vec<Level>>,
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
        let (score, levels) = self.overall.map_or((None, None), |Overall { score, levels }| (score, levels));
        let total = self.total_score.flatten().or(score);
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
        let (levels, scoring) = (levels.unwrap_or_default(), self.scoring.flatten());
        Ok(Prediction { img_path, prompt, total_score, elements, levels, scoring })
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
