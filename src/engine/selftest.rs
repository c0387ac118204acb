//! Does this device compute what the model's own golden answers say?
//!
//! A device that fails is never asked for a score. Two questions are put to it: every operation
//! that the model uses, at the model's own sizes, whose result the CPU knows; and a request whose
//! scores were recorded on the CPU when the model was converted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Engine, products};
use crate::error::{Error, Kind, Result};
use crate::image::Picture;
use crate::model::Observer;
use crate::ops::StoredMatrix;
use crate::score::ScoreResult;
use crate::text::Request;

/// Largest difference of a score on its own scale divided by the scale's width. Devices
/// differ by rounding only, which stays well below; a wrong kernel does not.
pub const TOLERANCE: f64 = 2e-3;

/// Side of the picture that golden answers are about.
const SIDE: usize = 160;

/// A request about [`pattern`] and the scores that the CPU gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The prompt.
    pub prompt: String,
    /// Elements with categories.
    pub elements: Vec<String>,
    /// Overall score on the model's scale.
    pub overall: f64,
    /// P(yes) of each element.
    pub scores: Vec<f64>,
}

/// What a passed self-test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SelfTest {
    /// Operations that gave what the CPU gives.
    pub checked: usize,
    /// Golden answers that were compared.
    pub compared: usize,
    /// Largest difference, as [`TOLERANCE`] measures it.
    pub max_difference: f64,
}

/// A picture made of numbers only: ramps, a disc and a square, different in every channel.
pub fn pattern() -> Result<Picture> {
    let mut rgb = Vec::with_capacity(3 * SIDE * SIDE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (x as i32 - 48, y as i32 - 52);
            let pixel = if dx * dx + dy * dy < 26 * 26 {
                [214, 44, 40]
            } else if (96..136).contains(&x) && (90..130).contains(&y) {
                [38, 82, 218]
            } else {
                [150 + (x / 4) as u8, 190 - (y / 4) as u8, 160 + ((x + y) / 8) as u8]
            };
            rgb.extend(pixel);
        }
    }
    Picture::new(SIDE, SIDE, rgb)
}

/// Compares every operation and every golden answer.
///
/// # Errors
/// [`Kind::SelfTest`] with what differed and by how much; whatever scoring gives.
pub async fn run(
    engine: &Arc<Engine>,
    golden: &[serde_json::Value],
    observer: &impl Observer,
) -> Result<SelfTest> {
    if !StoredMatrix::suits(&engine.device) {
        products::check(&engine.device, engine.processor().config()).await?;
    }
    let checks = engine.checks();
    for check in &checks {
        check.run(&engine.device).await?;
        observer.between_layers().await?;
    }
    let mut test = SelfTest { checked: checks.len(), compared: 0, max_difference: 0.0 };
    for value in golden {
        let golden: Golden = serde_json::from_value(value.clone())
            .map_err(|error| Error::model("golden answer in the manifest").with_source(error))?;
        let result = answer(engine, &golden.prompt, &golden.elements, observer).await?;
        let [low, high] = result.overall.scale;
        let scores = result.elements.iter().map(|element| element.score);
        if golden.scores.len() != result.elements.len() {
            return Err(Error::model("a golden answer has another number of elements than its request"));
        }
        let difference = scores
            .zip(&golden.scores)
            .map(|(got, want)| (got - want).abs())
            .fold((result.overall.score - golden.overall).abs() / (high - low), f64::max);
        if difference > TOLERANCE {
            return Err(Error::new(
                Kind::SelfTest,
                format!(
                    "{} gave scores that differ by {difference:.4} from the model's golden answer, at most {TOLERANCE} is rounding",
                    engine.device_name
                ),
            ));
        }
        test.compared += 1;
        test.max_difference = test.max_difference.max(difference);
    }
    Ok(test)
}

/// Records golden answers on the device that is taken to be right.
///
/// # Errors
/// Whatever scoring gives.
pub async fn record(engine: &Arc<Engine>) -> Result<Vec<Golden>> {
    let prompt = "a red circle above a blue square";
    let elements =
        ["red circle (color)", "two blue squares (counting)", "red circle above blue square (spatial)"]
            .map(String::from);
    let result = answer(engine, prompt, &elements, &()).await?;
    Ok(vec![Golden {
        prompt: prompt.into(),
        elements: elements.to_vec(),
        overall: result.overall.score,
        scores: result.elements.iter().map(|element| element.score).collect(),
    }])
}

async fn answer(
    engine: &Arc<Engine>,
    prompt: &str,
    elements: &[String],
    observer: &impl Observer,
) -> Result<ScoreResult> {
    let request = Request::new(prompt, elements, None)?;
    engine.open(&pattern()?, observer).await?.score(&request, observer).await
}
