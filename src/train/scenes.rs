//! Synthetic scenes as training items: questions with answers, and dense truth beside them.

use super::batch::{Item, Source, Words};
use super::blueprint::{GRID, SIDE};
use super::grounding::Mention;
use super::instructions::{Instructions, Recipe, Truth};
use crate::data::draw::{CELL_CLASSES, cells, centers, places};
use crate::data::evalmuse::Label;
use crate::data::rng::Rng;
use crate::data::scene::{Claim, Color, MARGIN, Relation, Scene, Shape, Size, Texture, Thing, Tone};
use crate::data::synth::{Sample, Sampler};
use crate::error::{Error, Result};
use crate::text::{Request, Tokenizer};
use crate::weights::ModelFacts;

/// Classes of the dense truth: what covers each cell, what has its centre there, and its own row and
/// column, without which no token says where it is.
pub const CLASSES: usize = CELL_CLASSES + Thing::COUNT + 2 * GRID;

/// Most positions that are asked about each scene beside its own elements, where they are beyond doubt.
const PLACES: usize = 4;

/// Tokens from an element's closing quote to the end of its question: `" shown? Yes or No?`, one
/// token of this tokenizer, and the template's tail.
const REHEARSED: usize = 6;

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

/// Samples as training items: batches of step `n` are the samples `n * 2^20 ..`.
pub struct Scenes<'a> {
    sampler: Sampler,
    instructions: Instructions<'a>,
    words: Vec<(usize, u32)>,
}

impl<'a> Scenes<'a> {
    /// The stream of one seed.
    pub fn new(facts: &'a ModelFacts, recipe: Recipe, seed: u64) -> Result<Self> {
        let instructions = Instructions::new(facts, recipe, seed)?;
        let words = words(instructions.tokenizer());
        Ok(Self { sampler: Sampler::new(seed).with_size(SIDE), instructions, words })
    }

    /// One sample as an item; without `answer` the overall question is its only one.
    fn item(&self, index: u64, answer: bool) -> Result<Item> {
        let sample = self.sampler.sample(index);
        let mut rng = Rng::stream(self.instructions.seed() ^ 0x5eed, index);
        let mut claims = if answer { claims(&sample, &mut rng) } else { Vec::new() };
        claims.truncate(self.instructions.recipe().questions);
        let elements: Vec<String> = claims.iter().map(|claim| claim.words.clone()).collect();
        let truth = Truth {
            request: Request::new(sample.prompt.clone(), &elements, Some(sample.prompt_type))?,
            total: Some(Label { mean: sample.score, ratings: Vec::new() }),
            elements: claims
                .iter()
                .map(|claim| Label { mean: f64::from(u8::from(claim.holds)), ratings: Vec::new() })
                .collect(),
        };
        let mut item = self.instructions.item(sample.picture()?, &truth, index)?;
        let [h, w] = self.instructions.merged(&item.patches);
        for asked in &mut item.asked {
            // The overall question is about everything at once, which is as good as nothing.
            asked.places = vec![0; 2 * h * w];
        }
        let of_elements = item.asked.iter_mut().filter(|asked| asked.is_element);
        for (asked, claim) in of_elements.zip(&claims) {
            asked.places = places(&sample.scene, &claim.claim, h, w);
        }
        let covered = cells(&sample.scene, h, w);
        let centered = centers(&sample.scene, h, w);
        item.cells = dense(&covered, &centered, [h, w])?;
        item.words = Words {
            ids: self.words.iter().map(|word| word.1).collect(),
            marks: describe(&covered, &self.words),
        };
        for asked in &mut item.asked {
            asked.mentions = [
                self.word_mentions(&asked.ids, &item.words.marks),
                self.thing_mentions(&asked.ids, &centered),
            ];
        }
        item.rehearsed = REHEARSED;
        Ok(item)
    }

    /// Every word in a sequence that describes something, with the cells that it describes.
    fn word_mentions(&self, ids: &[u32], marks: &[u8]) -> Vec<Mention> {
        let described = |word: usize| marks.chunks_exact(self.words.len()).map(|row| row[word]).collect();
        let mentions = ids.iter().enumerate().filter_map(|(token, id)| {
            let word = self.words.iter().position(|word| word.1 == *id)?;
            Some(Mention { token, cells: described(word) })
        });
        mentions.collect()
    }

    /// Every colour and shape in a sequence that name one thing together, with the cells of its centres.
    fn thing_mentions(&self, ids: &[u32], centered: &[u8]) -> Vec<Mention> {
        let described = |id: u32| self.words.iter().find(|word| word.1 == id).map(|word| word.0);
        let mentions = ids.windows(2).zip(1..).filter_map(|(pair, token)| {
            let color = *Color::ALL.get(described(pair[0])?)?;
            let shape = *Shape::ALL.get(described(pair[1])?.checked_sub(Color::ALL.len())?)?;
            let thing = Thing { color, shape }.index();
            let cells = centered.chunks_exact(Thing::COUNT).map(|row| row[thing].min(1)).collect();
            Some(Mention { token, cells })
        });
        mentions.collect()
    }
}

/// The dense truth of [`CLASSES`], from what [`cells`] and [`centers`] say.
fn dense(covered: &[u8], centered: &[u8], grid: [usize; 2]) -> Result<Vec<u8>> {
    if grid != [GRID; 2] {
        return Err(Error::internal(format!("a scene of {grid:?} tokens, expected {GRID} by {GRID}")));
    }
    let rows = covered.chunks_exact(CELL_CLASSES).zip(centered.chunks_exact(Thing::COUNT));
    let marks = rows
        .enumerate()
        .flat_map(|(cell, (covered, centered))| {
            let mut own = [0; 2 * GRID];
            own[cell / GRID] = 1;
            own[GRID + cell % GRID] = 1;
            covered.iter().chain(centered).map(|&mark| mark.min(1)).chain(own)
        })
        .collect();
    Ok(marks)
}

impl Source for Scenes<'_> {
    fn items(&self, step: usize, count: usize, answer: bool) -> Result<Vec<Item>> {
        (0..count).map(|offset| self.item(((step as u64) << 20) + offset as u64, answer)).collect()
    }
}

/// A claim that is asked about.
struct Asking {
    claim: Claim,
    words: String,
    holds: bool,
}

/// What is asked about a sample in one step: its own elements in random order, and before them
/// what is hard to learn and seldom asked, drawn from the scene itself.
fn claims(sample: &Sample, rng: &mut Rng) -> Vec<Asking> {
    let own = sample.asked.iter().zip(&sample.elements);
    let mut own: Vec<Asking> = own
        .map(|(claim, (words, holds))| Asking { claim: *claim, words: words.clone(), holds: *holds })
        .collect();
    rng.shuffle(&mut own);
    let drills = drill(&sample.scene, rng);
    let mut asked: Vec<Asking> = drills
        .into_iter()
        .map(|claim| Asking {
            words: sample.description.element(&claim, rng),
            holds: sample.scene.holds(&claim),
            claim,
        })
        .collect();
    asked.retain(|drill| own.iter().all(|asked| asked.claim != drill.claim));
    asked.extend(own);
    asked
}

/// A size and up to [`PLACES`] positions of things that are in the scene, true and false about as often;
/// positions only where there is no doubt, as the prompts' own are.
fn drill(scene: &Scene, rng: &mut Rng) -> Vec<Claim> {
    let mut claims = Vec::new();
    if scene.objects.is_empty() {
        return claims;
    }
    let thing = scene.objects[rng.below(scene.objects.len())].thing;
    claims.push(Claim::Size(rng.pick(&Size::ALL), thing));
    for _ in 0..PLACES {
        let [first, second] = [(); 2].map(|()| scene.objects[rng.below(scene.objects.len())].thing);
        let wanted = rng.chance(0.5);
        let of_truth = |relation: &Relation| match scene.gap(first, *relation, second) {
            Some(gap) if wanted => gap >= MARGIN,
            Some(gap) => gap <= 0.0,
            None => false,
        };
        let relations: Vec<Relation> = Relation::ALL.into_iter().filter(of_truth).collect();
        if first == second || relations.is_empty() {
            continue;
        }
        let claim = Claim::Place(first, rng.pick(&relations), second);
        if !claims.contains(&claim) {
            claims.push(claim);
        }
    }
    claims
}
