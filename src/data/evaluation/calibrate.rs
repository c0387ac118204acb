//! Temperatures at which the predictions' probabilities fit the labels, as scoring options.

use serde::Serialize;

use crate::data::evalmuse::{Rating, Record};
use crate::data::pairing::Pair;
use crate::error::Context as _;
use crate::metrics::{Answer, TemperatureFit, fit_temperature};
use crate::score::{LevelScale, ScoringOptions};
use crate::text::OverallKind;
use crate::{Error, Result};

/// What the overall question should have been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Targets {
    /// The level of the mean over the raters.
    #[default]
    Mean,
    /// Each rater's level, for his share; the mean's level where the record has nothing but the mean.
    Raters,
}

/// Temperatures, and what they gain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Fit of the overall question; `None` where there is nothing to fit or no best temperature.
    pub overall: Option<TemperatureFit>,
    /// Fit of the elements' questions.
    pub element: Option<TemperatureFit>,
    /// The options of the predictions, each temperature multiplied by that of its fit.
    pub scoring: ScoringOptions,
    /// Sentences on what was left as it was; not part of the object.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Fits a temperature for each kind of question.
///
/// A temperature divides logits that were divided already, by the one that the predictions were made with: the
/// result is the product. `given` are the options that the predictions were made with, for predictions that do not
/// say so themselves.
///
/// # Errors
/// Predictions of different options, of others than `given`, or of unknown ones; levels in some predictions only, or
/// not those of the options; a label outside the scale; an element's score or label that is no probability. Errors
/// name the item.
pub fn calibrate(pairs: &[Pair<'_>], given: Option<ScoringOptions>, targets: Targets) -> Result<Calibration> {
    let mut scoring = options_of(pairs, given)?;
    let mut warnings = Vec::new();
    let mut fit = |name: &str, answers: std::result::Result<Vec<Answer>, &str>, temperature: &mut f64| {
        let fit = answers.map_err(str::to_owned);
        match fit.and_then(|answers| fit_temperature(&answers).map_err(|reason| reason.to_string())) {
            Ok(fit) => {
                *temperature *= fit.temperature;
                Some(fit)
            }
            Err(reason) => {
                warnings.push(format!("{name}.temperature stays {temperature}: {reason}"));
                None
            }
        }
    };
    let overall = overall_answers(pairs, &scoring, targets)?.ok_or("the predictions have no levels");
    let overall = fit("overall", overall, &mut scoring.overall.temperature);
    let element = fit("element", Ok(element_answers(pairs)?), &mut scoring.element.temperature);
    scoring.validate()?;
    Ok(Calibration { overall, element, scoring, warnings })
}

/// The options that all predictions were made with.
fn options_of(pairs: &[Pair<'_>], given: Option<ScoringOptions>) -> Result<ScoringOptions> {
    let mut options = given;
    for prediction in pairs.iter().map(|pair| pair.prediction) {
        let Some(written) = &prediction.scoring else { continue };
        let written = ScoringOptions::from_json(written.to_string().as_bytes())
            .map_err(|error| Error::input("scoring").with_source(error))
            .context(|| format!("prediction for {}", prediction.name()))?;
        match &options {
            None => options = Some(written),
            Some(options) if *options == written => {}
            Some(_) => {
                return Err(Error::input(format!(
                    "prediction for {} was made with other scoring options than expected",
                    prediction.name()
                )));
            }
        }
    }
    // A default would say how the model is asked, which nobody knows here.
    options.ok_or_else(|| {
        Error::input("expected the predictions to say their scoring options or to be given them")
    })
}

fn element_answers(pairs: &[Pair<'_>]) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for pair in pairs {
        for element in &pair.elements {
            for (what, value) in [("label", element.label), ("prediction", element.score)] {
                if !(0.0..=1.0).contains(&value) {
                    return Err(Error::input(format!(
                        "{}: expected the {what} of an element to be a probability, got {value}",
                        pair.record.name()
                    )));
                }
            }
            answers.push(Answer::yes_no(element.score, element.label));
        }
    }
    Ok(answers)
}

/// The answers of the overall question; `None` where predictions have no levels.
fn overall_answers(
    pairs: &[Pair<'_>],
    scoring: &ScoringOptions,
    targets: Targets,
) -> Result<Option<Vec<Answer>>> {
    let without = pairs.iter().all(|pair| pair.prediction.levels.is_empty());
    if without || scoring.overall.kind == OverallKind::YesNo {
        return Ok(None);
    }
    let scale = scoring.overall.level_scale()?;
    let answer = |pair: &Pair<'_>| {
        let tokens = pair.prediction.levels.iter().map(|level| &level.token);
        if !tokens.eq(&scoring.overall.tokens) {
            return Err(Error::input("expected the levels of the scoring options, got others"));
        }
        let probabilities: Vec<f64> = pair.prediction.levels.iter().map(|level| level.probability).collect();
        let sum: f64 = probabilities.iter().sum();
        if !probabilities.iter().all(|p| (0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 1e-3 {
            return Err(Error::input("expected probabilities of levels that sum to 1"));
        }
        let expected: f64 = (1..).zip(&probabilities).map(|(level, p)| f64::from(level) * p).sum();
        let (score, shown) = (scale.decode(expected), pair.prediction.total_score);
        if (score - shown).abs() > 1e-3 * (1.0 + shown.abs()) {
            return Err(Error::input(format!(
                "its levels give {score:.4} with the scoring options, but it says {shown:.4}"
            )));
        }
        let target = level_target(pair.record, pair.label, &scale, targets).context(|| "label")?;
        Ok(Answer { probabilities, target })
    };
    let named = |pair: &Pair<'_>| answer(pair).context(|| format!("prediction for {}", pair.record.name()));
    pairs.iter().map(named).collect::<Result<_>>().map(Some)
}

/// The share that each level should have.
fn level_target(record: &Record, mean: f64, scale: &LevelScale, targets: Targets) -> Result<Vec<f64>> {
    let ratings = match (&record.total_score, targets) {
        (Rating::Raters(each), Targets::Raters) => each.as_slice(),
        _ => &[mean],
    };
    let mut target = vec![0.0; scale.n_levels()];
    for rating in ratings {
        target[scale.encode(*rating)? - 1] += 1.0 / ratings.len() as f64;
    }
    Ok(target)
}
