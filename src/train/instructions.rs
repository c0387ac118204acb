//! Labels to lessons: what is asked about a picture, and the tokens that answer it.
//!
//! `QAlign` of iMatch: the answer to the overall question is one of 15 letters, learnt by
//! cross-entropy at the one position where it is read; elements answer Yes or No.

use serde::{Deserialize, Serialize};

use super::batch::{Asked, Item, Words};
use super::grounding::GROUNDED_LAYERS;
use super::strategies::{Strategies, Strategy};
use crate::config::{ImageConfig, ModelConfig};
use crate::data::evalmuse::{Label, Labels};
use crate::data::rng::Rng;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::image::patches::{Patches, preprocess};
use crate::score::{AnswerTokens, ScoringOptions};
use crate::text::{ChatTemplate, Request, Tokenizer, check_length};
use crate::weights::ModelFacts;

/// What people said about a picture.
#[derive(Debug, Clone)]
pub struct Truth {
    /// The prompt with its elements.
    pub request: Request,
    /// The whole, on the scale of the scoring options; nothing is asked about it without.
    pub total: Option<Label>,
    /// Each element, 0 to 1, in the order of the request.
    pub elements: Vec<Label>,
}

/// How labels become lessons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Part of a picture's loss that its overall question has; its elements share the rest.
    pub overall_share: f32,
    /// Most elements asked about one picture in one step; which ones changes.
    pub questions: usize,
    /// Answers are spread as the raters were, instead of one letter, and Yes or No, for their mean.
    pub soft_labels: bool,
    /// What the paper does around it.
    pub strategies: Strategies,
}

impl Recipe {
    /// The defaults of fine-tuning.
    pub fn new() -> Self {
        Self { overall_share: 0.5, questions: 16, soft_labels: false, strategies: Strategies::new() }
    }

    /// The demo model's, on scenes: each is lit anew when it is drawn, within bounds that keep their
    /// tones apart, so that no other light is added.
    pub fn shapes() -> Self {
        let strategies = Strategies { image_augmentation: Strategy::OFF, ..Strategies::new() };
        Self { overall_share: 0.1, questions: 11, soft_labels: false, strategies }
    }

    /// Whether anything is asked about a record with these labels.
    pub(super) fn asks_about(&self, labels: &Labels) -> bool {
        (labels.total.is_some() && self.overall_share > 0.0)
            || (!labels.elements.is_empty() && self.questions > 0)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input), naming the option.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.overall_share) {
            return Err(Error::input(format!("overall-share is {}, expected 0 to 1", self.overall_share)));
        }
        if self.questions == 0 && self.overall_share == 0.0 {
            return Err(Error::input("questions and overall-share are both 0: nothing is asked"));
        }
        self.strategies.validate()
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes items for one model.
pub struct Instructions<'a> {
    config: &'a ModelConfig,
    image: &'a ImageConfig,
    scoring: &'a ScoringOptions,
    template: ChatTemplate,
    answers: AnswerTokens,
    recipe: Recipe,
    seed: u64,
}

impl<'a> Instructions<'a> {
    /// Resolves every token that template and answers need.
    ///
    /// # Errors
    /// Where tokenizer, configuration and scoring options contradict each other.
    pub fn new(facts: &'a ModelFacts, recipe: Recipe, seed: u64) -> Result<Self> {
        let tokenizer = Tokenizer::from_json(&facts.tokenizer)?;
        let answers = AnswerTokens::resolve(&tokenizer, &facts.scoring)?;
        let template = ChatTemplate::new(tokenizer, facts.config.family, facts.config.tokens)?;
        let ModelFacts { config, image, scoring, .. } = facts;
        Ok(Self { config, image, scoring, template, answers, recipe, seed })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.template.tokenizer()
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.config
    }

    /// The scoring options.
    pub fn scoring(&self) -> &ScoringOptions {
        self.scoring
    }

    /// The answers' ids.
    pub fn answers(&self) -> &AnswerTokens {
        &self.answers
    }

    /// How labels become lessons.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Merged rows and columns of a picture's tokens.
    pub fn merged(&self, patches: &Patches) -> [usize; 2] {
        let merge = self.config.vision.spatial_merge_size;
        let [_, h, w] = patches.grid_thw;
        [h / merge, w / merge]
    }

    /// One picture as one sample asks about it: the overall question where the whole is rated, then
    /// the rated elements in their order, as many as the recipe asks; none at all where nothing is
    /// rated. `sample` differs for each time that a picture is seen.
    ///
    /// # Errors
    /// For labels outside their range, a sequence longer than the model's positions, and pictures
    /// of a shape that cannot be used.
    pub fn item(&self, picture: Picture, truth: &Truth, sample: u64) -> Result<Item> {
        let Recipe { strategies, overall_share, questions, .. } = &self.recipe;
        let picture = strategies.picture(picture, self.seed, sample)?;
        let patches = preprocess(&picture, self.image)?;
        let request = strategies.request(truth.request.clone(), self.seed, sample);
        let (shift, shifts) = strategies.shifts(request.elements.len(), self.seed, sample);
        let n_tokens = self.merged(&patches).iter().product();
        let mut asked = Vec::new();
        if let Some(total) = truth.total.as_ref().filter(|_| *overall_share > 0.0) {
            let answer = self.level_answer(total, shift)?;
            let text = request.overall_text(self.scoring.overall.question());
            asked.push(self.asked(&request, &text, n_tokens, answer, false)?);
        }
        let chosen = choose(truth.elements.len(), *questions, self.seed, sample);
        let labelled = request.element_texts().zip(&truth.elements).zip(shifts).zip(chosen);
        for (((text, label), shift), _) in labelled.filter(|(_, chosen)| *chosen) {
            let answer = self.element_answer(label, shift)?;
            asked.push(self.asked(&request, &text, n_tokens, answer, true)?);
        }
        weigh(&mut asked, *overall_share);
        Ok(Item { patches, asked, rehearsed: 1, cells: Vec::new(), words: Words::default() })
    }

    /// A picture with every question of a request in the usual wording, and nothing to learn:
    /// answers are only places where they would be.
    pub(super) fn questions(&self, picture: &Picture, request: &Request) -> Result<Item> {
        let patches = preprocess(picture, self.image)?;
        let request = self.recipe.strategies.usual(request.clone());
        let n_tokens = self.merged(&patches).iter().product();
        let text = request.overall_text(self.scoring.overall.question());
        let mut asked = vec![self.asked(&request, &text, n_tokens, self.yes_no(1.0), false)?];
        for text in request.element_texts() {
            asked.push(self.asked(&request, &text, n_tokens, self.yes_no(1.0), true)?);
        }
        weigh(&mut asked, 0.5);
        Ok(Item { patches, asked, rehearsed: 1, cells: Vec::new(), words: Words::default() })
    }

    fn asked(
        &self,
        request: &Request,
        text: &str,
        n_tokens: usize,
        answer: Vec<(u32, f32)>,
        is_element: bool,
    ) -> Result<Asked> {
        let ids = self.template.sequence(text, n_tokens)?;
        check_length(&request.prompt, ids.len(), self.config.text.max_position_embeddings)?;
        Ok(Asked {
            ids,
            answer,
            weight: 0.0,
            is_element,
            places: Vec::new(),
            mentions: <[_; GROUNDED_LAYERS]>::default(),
        })
    }

    /// The letters that say how good the whole is, moved by `shift` levels.
    ///
    /// Soft: each rater's score lies between two letters that share it by their distance, so that
    /// the expected level is the mean score's, unrounded.
    fn level_answer(&self, label: &Label, shift: f64) -> Result<Vec<(u32, f32)>> {
        let [low, high] = self.scoring.overall.scale;
        if self.answers.levels.is_empty() {
            return Ok(self.yes_no(((label.mean - low) / (high - low)).clamp(0.0, 1.0)));
        }
        let scale = self.scoring.overall.level_scale()?;
        let steps = (scale.n_levels() - 1) as f64;
        let moved = |score: f64| moved(score, shift * (high - low) / steps, [low, high]);
        // Refuses what lies outside before anything is moved.
        scale.encode(label.mean)?;
        if !self.recipe.soft_labels {
            return Ok(vec![(self.answers.levels[scale.encode(moved(label.mean))? - 1], 1.0)]);
        }
        let mut shares = vec![0.0; scale.n_levels()];
        let ratings = if label.ratings.is_empty() { &[label.mean] } else { label.ratings.as_slice() };
        for rating in ratings {
            scale.encode(*rating)?;
            let step = (moved(*rating) - low) / (high - low) * steps;
            let (below, above) = (step.floor(), step.fract());
            shares[below as usize] += (1.0 - above) / ratings.len() as f64;
            if above > 0.0 {
                shares[below as usize + 1] += above / ratings.len() as f64;
            }
        }
        Ok(positive(self.answers.levels.iter().copied().zip(shares)))
    }

    /// Yes or no, after the label is moved by `shift`.
    fn element_answer(&self, label: &Label, shift: f64) -> Result<Vec<(u32, f32)>> {
        if !(0.0..=1.0).contains(&label.mean) {
            return Err(Error::input(format!("an element's label is {}, expected 0 to 1", label.mean)));
        }
        let moved = moved(label.mean, shift, [0.0, 1.0]);
        let yes = if self.recipe.soft_labels { moved } else { f64::from(u8::from(moved >= 0.5)) };
        Ok(self.yes_no(yes))
    }

    fn yes_no(&self, yes: f64) -> Vec<(u32, f32)> {
        positive([(self.answers.yes, yes), (self.answers.no, 1.0 - yes)].into_iter())
    }
}

/// Which of `n` elements are asked about in one sample: all, or `most` of them, other ones each time.
fn choose(n: usize, most: usize, run_seed: u64, sample: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..n).collect();
    if n > most {
        Rng::stream(run_seed ^ 0x0a5c, sample).shuffle(&mut order);
    }
    let mut chosen = vec![false; n];
    order.into_iter().take(most).for_each(|element| chosen[element] = true);
    chosen
}

/// A label that was moved by at most `shift`, and by less towards an end of its scale that is
/// nearer: on average it stays.
fn moved(label: f64, shift: f64, [low, high]: [f64; 2]) -> f64 {
    let most = (label - low).min(high - label).max(0.0);
    label + shift.clamp(-most, most)
}

/// Answers that have a share at all.
fn positive(shares: impl Iterator<Item = (u32, f64)>) -> Vec<(u32, f32)> {
    shares.filter(|(_, share)| *share > 0.0).map(|(token, share)| (token, share as f32)).collect()
}

/// Gives each question its part of the picture's loss; what nobody claims goes to those that are there.
pub(super) fn weigh(asked: &mut [Asked], overall_share: f32) {
    let elements = asked.iter().filter(|asked| asked.is_element).count();
    let whole = asked.len() - elements;
    let overall = match (whole, elements) {
        (0, _) => 0.0,
        (_, 0) => 1.0,
        _ => overall_share,
    };
    for asked in asked {
        asked.weight =
            if asked.is_element { (1.0 - overall) / elements as f32 } else { overall / whole as f32 };
    }
}
