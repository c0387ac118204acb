//! Synthetic scenes as training items: questions with answers, and dense truth beside them.

use super::asking::request;
use super::batch::{Item, Source, Words};
use super::blueprint::{Blueprint, SIDE};
use crate::config::{ImageConfig, ModelConfig};
use crate::data::draw::{CELL_CLASSES, cells, centers, places};
use crate::data::rng::Rng;
use crate::data::scene::{Color, Shape, Size, Texture, Thing, Tone};
use crate::data::synth::Sampler;
use crate::error::Result;
use crate::image::patches::preprocess;
use crate::score::{AnswerTokens, ScoringOptions};
use crate::text::{ChatTemplate, Tokenizer};

/// Classes of the dense truth: what covers each cell, and what has its centre there.
pub const CLASSES: usize = CELL_CLASSES + Thing::COUNT;

/// Most questions asked about one picture in one step; which ones changes from step to step.
const QUESTIONS: usize = 8;

/// Tokens from an element's closing quote to the end of its question: `" shown? Yes or No?`, one
/// token of this tokenizer, and the template's tail.
const REHEARSED: usize = 6;

/// Weight of the overall question's loss beside an element's.
const OVERALL_WEIGHT: f32 = 1.0;

/// Kinds of description, in this order: colours, shapes, sizes, textures, tones.
const DESCRIPTIONS: usize =
    Color::ALL.len() + Shape::ALL.len() + Size::ALL.len() + Texture::ALL.len() + Tone::ALL.len();

/// Tokens that describe something, with the index of what they describe: each word after a space,
/// at the start of a quotation and in the plural, where the tokenizer has it as one token.
fn words(tokenizer: &Tokenizer) -> Vec<(usize, u32)> {
    let words = Color::ALL.map(Color::word).into_iter().chain(Shape::ALL.map(Shape::word));
    let words = words.chain(Size::ALL.map(Size::word)).chain(Texture::ALL.map(Texture::word));
    let forms = |word: &str| [format!(" {word}"), word.to_owned(), format!(" {word}s")];
    words
        .chain(Tone::ALL.map(Tone::word))
        .enumerate()
        .flat_map(|(index, word)| {
            forms(word).into_iter().filter_map(move |form| Some((index, tokenizer.single(&form).ok()?)))
        })
        .collect()
}

/// Which of `words` describe each cell, from the truth of [`cells`].
fn describe(covered: &[u8], words: &[(usize, u32)]) -> Vec<u8> {
    let mut marks = Vec::with_capacity(covered.len() / CELL_CLASSES * words.len());
    for cell in covered.chunks_exact(CELL_CLASSES) {
        let mut true_here = [0u8; DESCRIPTIONS];
        let (things, rest) = cell.split_at(Thing::COUNT);
        for (thing, _) in things.iter().enumerate().filter(|(_, mark)| **mark > 0) {
            true_here[thing % Color::ALL.len()] = 1;
            true_here[Color::ALL.len() + thing / Color::ALL.len()] = 1;
        }
        true_here[DESCRIPTIONS - rest.len()..].copy_from_slice(rest);
        marks.extend(words.iter().map(|(index, _)| true_here[*index]));
    }
    marks
}

/// One question with what it teaches.
struct Asked {
    text: String,
    target: u32,
    weight: f32,
    places: Vec<u8>,
}

/// Samples as training items: batches of step `n` are the samples `n * 2^20 ..`.
pub struct Scenes<'a> {
    sampler: Sampler,
    config: &'a ModelConfig,
    image: &'a ImageConfig,
    scoring: &'a ScoringOptions,
    template: ChatTemplate,
    answers: AnswerTokens,
    words: Vec<(usize, u32)>,
    seed: u64,
}

impl<'a> Scenes<'a> {
    /// The stream of one seed.
    pub fn new(blueprint: &'a Blueprint, seed: u64) -> Result<Self> {
        let tokenizer = Tokenizer::from_json(&blueprint.tokenizer)?;
        let answers = AnswerTokens::resolve(&tokenizer, &blueprint.scoring)?;
        Ok(Self {
            sampler: Sampler::new(seed).with_size(SIDE),
            config: &blueprint.config,
            image: &blueprint.image,
            scoring: &blueprint.scoring,
            words: words(&tokenizer),
            template: ChatTemplate::new(tokenizer, blueprint.config.tokens)?,
            answers,
            seed,
        })
    }

    /// One sample as an item; without `answer` the overall question is its only one.
    fn item(&self, index: u64, answer: bool) -> Result<Item> {
        let sample = self.sampler.sample(index);
        let patches = preprocess(&sample.picture()?, self.image)?;
        let merge = self.config.vision.spatial_merge_size;
        let [_, h, w] = patches.grid_thw;
        let (h, w) = (h / merge, w / merge);
        let covered = cells(&sample.scene, h, w);
        let centered = centers(&sample.scene, h, w);
        let cells = covered
            .chunks_exact(CELL_CLASSES)
            .zip(centered.chunks_exact(Thing::COUNT))
            .flat_map(|(covered, centered)| covered.iter().chain(centered).map(|&mark| mark.min(1)))
            .collect();
        let mut rng = Rng::stream(self.seed ^ 0x5eed, index);
        let request = request(&sample, &mut rng)?;
        let level = self.scoring.overall.level_scale()?.encode(sample.score)?;
        let mut questions = vec![Asked {
            text: request.overall_text(self.scoring.overall.question()),
            target: self.answers.levels[level - 1],
            weight: OVERALL_WEIGHT,
            // It is about everything at once, which is as good as nothing.
            places: vec![0; 2 * h * w],
        }];
        if answer {
            let mut elements: Vec<_> = request
                .element_texts()
                .zip(&sample.elements)
                .zip(&sample.asked)
                .map(|((text, (_, present)), claim)| Asked {
                    text,
                    target: if *present { self.answers.yes } else { self.answers.no },
                    weight: 1.0,
                    places: places(&sample.scene, claim, h, w),
                })
                .collect();
            rng.shuffle(&mut elements);
            questions.extend(elements.into_iter().take(QUESTIONS - 1));
        }
        let sequences = questions
            .iter()
            .map(|question| self.template.sequence(&question.text, h * w))
            .collect::<Result<_>>()?;
        Ok(Item {
            patches,
            sequences,
            targets: questions.iter().map(|question| question.target).collect(),
            weights: questions.iter().map(|question| question.weight).collect(),
            rehearsed: REHEARSED,
            words: Words {
                ids: self.words.iter().map(|word| word.1).collect(),
                marks: describe(&covered, &self.words),
            },
            cells,
            places: questions.into_iter().map(|question| question.places).collect(),
        })
    }
}

impl Source for Scenes<'_> {
    fn items(&self, step: usize, count: usize, answer: bool) -> Result<Vec<Item>> {
        (0..count).map(|offset| self.item(((step as u64) << 20) + offset as u64, answer)).collect()
    }
}
