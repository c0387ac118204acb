//! The paper's strategies around instruction tuning, each on or off by itself and with a seed of
//! its own: what one draws does not depend on which others are on.
//!
//! The abstract of arXiv:2504.12018 names element augmentation, prompt type augmentation, image
//! augmentation ("random lighting"), score perturbation and validation-set augmentation (see
//! [`super::pseudo`]); wordings, ranges and probabilities are not published, so those here are our
//! defaults. Paraphrased instructions are ours too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::lighting::Lighting;
use crate::data::rng::Rng;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::text::{Category, Request, Wording};

/// Whether a strategy is on, and where its random numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// Whether it is on.
    pub on: bool,
    /// Seed of its random numbers; `None` for the run's.
    pub seed: Option<u64>,
}

impl Strategy {
    /// On, with the run's seed.
    pub const ON: Self = Self { on: true, seed: None };
    /// Off.
    pub const OFF: Self = Self { on: false, seed: None };

    /// The random numbers of one sample; none when off. `salt` keeps strategies of one seed apart.
    fn rng(self, salt: u64, run_seed: u64, sample: u64) -> Option<Rng> {
        self.on.then(|| Rng::stream(self.seed.unwrap_or(run_seed) ^ salt, sample))
    }
}

impl FromStr for Strategy {
    type Err = Error;

    /// `on`, `off` or `on:SEED`.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("on:").map(str::parse)) {
            ("on", _) => Ok(Self::ON),
            ("off", _) => Ok(Self::OFF),
            (_, Some(Ok(seed))) => Ok(Self { on: true, seed: Some(seed) }),
            _ => Err(Error::input(format!("expected on, off or on:SEED, got {text:?}"))),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.on, self.seed) {
            (false, _) => f.write_str("off"),
            (true, None) => f.write_str("on"),
            (true, Some(seed)) => write!(f, "on:{seed}"),
        }
    }
}

/// Every strategy that changes what one sample teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strategies {
    /// The element's category label is part of its question.
    pub element_augmentation: Strategy,
    /// The prompt's type, real or synthetic, is part of the instruction.
    pub prompt_type_augmentation: Strategy,
    /// The picture is lit anew each time: brightness, contrast and gamma.
    pub image_augmentation: Strategy,
    /// Labels are moved a little before they become tokens.
    pub score_perturbation: Strategy,
    /// Instructions come in several wordings.
    pub paraphrase: Strategy,
    /// Share of elements whose category is left out all the same, as people do.
    pub uncategorised: f32,
    /// Share of prompts whose type is left out all the same.
    pub untyped: f32,
    /// Most that a light changes brightness, contrast and gamma, as a part of one.
    pub lighting: f32,
}

/// Most that an overall label is moved, in levels: half of one makes rounding to levels unbiased,
/// since the expected level is then the unrounded one.
const LEVELS: f64 = 0.5;

/// Most that an element's label is moved, as a part of its range: two raters of three then decide
/// five times out of six, and all three always.
const ELEMENT: f64 = 0.25;

impl Strategies {
    /// The defaults: categories, types and lights are on; perturbation and paraphrases are off.
    pub fn new() -> Self {
        Self {
            element_augmentation: Strategy::ON,
            prompt_type_augmentation: Strategy::ON,
            image_augmentation: Strategy::ON,
            score_perturbation: Strategy::OFF,
            paraphrase: Strategy::OFF,
            uncategorised: 0.15,
            untyped: 0.33,
            lighting: 0.15,
        }
    }

    /// Plain instruction tuning.
    pub fn none() -> Self {
        Self {
            element_augmentation: Strategy::OFF,
            prompt_type_augmentation: Strategy::OFF,
            image_augmentation: Strategy::OFF,
            ..Self::new()
        }
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) for shares outside 0 to 1 and lights that leave
    /// colours unrecognisable.
    pub fn validate(&self) -> Result<()> {
        for (name, value, most) in [
            ("uncategorised", self.uncategorised, 1.0),
            ("untyped", self.untyped, 1.0),
            ("lighting", self.lighting, 0.25),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(Error::input(format!("{name} is {value}, expected 0 to {most}")));
            }
        }
        Ok(())
    }

    /// The request as it is asked in one sample.
    pub(super) fn request(&self, mut request: Request, run_seed: u64, sample: u64) -> Request {
        let mut types = self.prompt_type_augmentation.rng(0x7e, run_seed, sample);
        if types.as_mut().is_none_or(|rng| rng.chance(self.untyped)) {
            request.prompt_type = None;
        }
        let mut categories = self.element_augmentation.rng(0xe1, run_seed, sample);
        for element in &mut request.elements {
            if categories.as_mut().is_none_or(|rng| rng.chance(self.uncategorised)) {
                element.category = Category::Other;
            }
        }
        if let Some(mut rng) = self.paraphrase.rng(0x9a, run_seed, sample) {
            request.wording = rng.pick(&Wording::ALL);
        }
        request
    }

    /// The request as it is asked when nothing is drawn: with what the strategies name, in the usual
    /// wording.
    pub(super) fn usual(&self, mut request: Request) -> Request {
        if !self.prompt_type_augmentation.on {
            request.prompt_type = None;
        }
        if !self.element_augmentation.on {
            request.elements.iter_mut().for_each(|element| element.category = Category::Other);
        }
        request
    }

    /// The picture as it is seen in one sample.
    pub(super) fn picture(&self, picture: Picture, run_seed: u64, sample: u64) -> Result<Picture> {
        match self.image_augmentation.rng(0x11, run_seed, sample) {
            Some(mut rng) => Lighting::random(self.lighting, &mut rng).relit(&picture),
            None => Ok(picture),
        }
    }

    /// How far one sample's labels are moved: the overall one in levels, then each element's.
    pub(super) fn shifts(&self, elements: usize, run_seed: u64, sample: u64) -> (f64, Vec<f64>) {
        let Some(mut rng) = self.score_perturbation.rng(0x5c, run_seed, sample) else {
            return (0.0, vec![0.0; elements]);
        };
        let mut within = |most: f64| most * f64::from(rng.between(-1.0, 1.0));
        (within(LEVELS), (0..elements).map(|_| within(ELEMENT)).collect())
    }
}

impl Default for Strategies {
    fn default() -> Self {
        Self::new()
    }
}
