//! Validation-set augmentation: a model's own answers about pictures that nobody labelled become
//! labels where it is sure (second strategy of iMatch, abstract of arXiv:2504.12018).
//!
//! The paper does not publish how labels are selected; the rule here is our default.

use serde::{Deserialize, Serialize};

use super::predict::Predicted;
use crate::data::evalmuse::{Rating, Record};
use crate::error::{Error, Result};
use crate::text::Element;

/// Which answers become labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Share of pictures whose overall score becomes a label: the surest, by the score's confidence.
    pub keep: f64,
    /// Least certainty `|2 P(yes) - 1|` of an element that becomes a label.
    pub confidence: f64,
}

impl Default for Selection {
    fn default() -> Self {
        Self { keep: 0.5, confidence: 0.8 }
    }
}

impl Selection {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) for anything outside 0 to 1.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("keep", self.keep), ("confidence", self.confidence)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::input(format!("{name} is {value}, expected 0 to 1")));
            }
        }
        Ok(())
    }

    /// The pseudo-labels among predictions, as records; what is not sure enough is `null` there, and
    /// pictures about which nothing is sure are left out.
    pub fn records(&self, predicted: &[Predicted]) -> Vec<Record> {
        let mut order: Vec<usize> = (0..predicted.len()).collect();
        let confidence = |index: usize| predicted[index].overall.confidence;
        order.sort_by(|&a, &b| confidence(b).total_cmp(&confidence(a)));
        order.truncate((self.keep * predicted.len() as f64).round() as usize);
        let mut sure = vec![false; predicted.len()];
        for index in order {
            sure[index] = true;
        }
        let records = predicted.iter().zip(sure).map(|(predicted, sure)| self.record(predicted, sure));
        records.flatten().collect()
    }

    fn record(&self, predicted: &Predicted, sure: bool) -> Option<Record> {
        let elements: Vec<(String, Rating)> = predicted
            .elements
            .iter()
            .map(|element| {
                let key = Element { text: element.element.clone(), category: element.category };
                let certain = (2.0 * element.score - 1.0).abs() >= self.confidence;
                let rating = if certain { Rating::Mean(element.score) } else { Rating::Missing };
                (key.to_string(), rating)
            })
            .collect();
        if !sure && elements.iter().all(|(_, rating)| *rating == Rating::Missing) {
            return None;
        }
        Some(Record {
            prompt: predicted.prompt.clone(),
            prompt_type: predicted.prompt_type,
            img_path: predicted.img_path.clone(),
            total_score: if sure { Rating::Mean(predicted.overall.score) } else { Rating::Missing },
            element_score: elements,
            ..Record::default()
        })
    }
}
