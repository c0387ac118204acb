//! Items to tensors: pictures with their shared prefixes, and the questions behind them.

use std::array::from_fn;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::grounding::{GROUNDED_LAYERS, Grounding, Mention};
use crate::config::ModelConfig;
use crate::engine::plan::{Pack, packs};
use crate::engine::prefix::shared_prefix;
use crate::error::{Error, Result};
use crate::image::patches::Patches;
use crate::model::{for_tokens, token_positions};
use crate::ops::{Rotary, Seen};

/// One question with the answer that it teaches.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its complete token sequence.
    pub ids: Vec<u32>,
    /// The tokens that answer it with the share of each; shares are positive and sum to one.
    pub answer: Vec<(u32, f32)>,
    /// Its part of the picture's loss: the parts of a picture's questions sum to one.
    pub weight: f32,
    /// Whether it is about an element, not the whole.
    pub is_element: bool,
    /// Where its objects are, `[2 * M]` zeros and ones; empty where nobody asks.
    pub places: Vec<u8>,
    /// What its sequence mentions, for each grounded layer; empty where nothing is grounded.
    pub mentions: [Vec<Mention>; GROUNDED_LAYERS],
}

/// One picture with its questions, ready for the model.
#[derive(Debug, Clone)]
pub struct Item {
    /// The picture.
    pub patches: Patches,
    /// What is asked about it: at least one question.
    pub asked: Vec<Asked>,
    /// Tokens at the end of each element question that learn the answer too, its last one
    /// included; 1 for nothing but the answer position.
    pub rehearsed: usize,
    /// Dense truth for the auxiliary head, `[M, classes]`; empty without one.
    pub cells: Vec<u8>,
    /// Words that describe the picture's cells.
    pub words: Words,
}

/// Where items come from: the items of a step depend on the step alone.
pub trait Source: Sync {
    /// The items of one step; `answer` says whether their questions will be asked.
    fn items(&self, step: usize, count: usize, answer: bool) -> Result<Vec<Item>>;
}

/// Tokens that name what is in a picture, and where it is.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The tokens, the same for every item of a batch; none for no such lesson.
    pub ids: Vec<u32>,
    /// Whether each describes each cell, `[M, ids]`, zeros and ones.
    pub marks: Vec<u8>,
}

/// Several items as tensors. All pictures share one grid.
///
/// Legend: `B` items, `S` sequences, `T` tokens of the longest one. A sequence is what the
/// questions of an item share, the picture included, and the questions end to end behind it,
/// each seeing the shared part and itself only, as the engine packs them.
#[derive(Debug)]
pub struct Batch {
    /// `[B, N, C * T * p * p]`.
    pub patches: Tensor<3>,
    /// Tiles, and patches per column and row of each.
    pub grid_thw: [usize; 3],
    /// `[S * T]`, short sequences padded at their end.
    pub ids: Tensor<1, Int>,
    /// `S` and `T`.
    pub size: [usize; 2],
    /// Positions.
    pub rotary: Rotary,
    /// What each token sees.
    pub seen: Seen,
    /// The item of each sequence, `[S]`.
    pub items: Tensor<1, Int>,
    /// Index of the first picture token in a sequence.
    pub image_start: usize,
    /// Rows of `[S * T]` that learn an answer, `[R]`: the last token of each question first.
    pub answers: Tensor<1, Int>,
    /// The tokens to be answered, `[R, K]`; answers of fewer tokens repeat one with no share.
    pub targets: Tensor<2, Int>,
    /// The share of each of them, `[R, K]`, rows of sum one.
    pub shares: Tensor<2>,
    /// Weight of each row, `[R]`; those of an item sum to one.
    pub weights: Tensor<1>,
    /// Likeliest answer of each question that is about an element, with its row in `[R]`.
    pub elements: Vec<(usize, u32)>,
    /// Dense truth, `[B, M, classes]`, where the items carry it.
    pub cells: Option<Tensor<3>>,
    /// Tokens that describe cells, `[W]`, and which do, `[B, M, W]`, where the items carry them.
    pub words: Option<(Tensor<1, Int>, Tensor<3>)>,
    /// Where the objects of each row's question are, `[R, 2 * M]`, where the items carry it.
    pub places: Option<Tensor<2>>,
    /// What the text mentions, for each grounded layer, where the items carry it.
    pub grounding: [Option<Grounding>; GROUNDED_LAYERS],
}

/// One sequence before padding.
pub(super) struct Sequence {
    /// The item whose questions it asks.
    pub(super) item: usize,
    /// Tokens that all its questions see.
    pub(super) shared: usize,
    /// The shared tokens and then the pack's.
    ids: Vec<u32>,
    positions: Vec<[usize; 3]>,
    pack: Pack,
}

impl Batch {
    /// Puts items together on a device.
    ///
    /// # Errors
    /// When there is no item, when grids differ, when an item asks nothing, when some questions
    /// have places and others none, when a mention leaves its sequence or the picture, or when a
    /// sequence has no picture.
    pub fn new(items: &[&Item], config: &ModelConfig, device: &Device) -> Result<Self> {
        let first = *items.first().ok_or_else(|| Error::internal("a batch needs at least one item"))?;
        let grid_thw = first.patches.grid_thw;
        check(items, first, first.patches.n_tokens(config.vision.spatial_merge_size))?;
        let image_start = first.asked[0]
            .ids
            .iter()
            .position(|&id| id == config.tokens.image)
            .ok_or_else(|| Error::internal("a training sequence has no picture token"))?;
        let sequences: Vec<Sequence> = items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| packed(index, item, config, grid_thw))
            .collect();
        let t = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let lessons = lessons(items, &sequences, t);
        let weights: Vec<f32> = lessons.iter().map(|lesson| lesson.weight).collect();
        let (targets, shares) = answers(items, &lessons, device);
        let ids = sequences.iter().flat_map(|sequence| padded(&sequence.ids, t, 0));
        let positions: Vec<_> =
            sequences.iter().map(|sequence| padded(&sequence.positions, t, [0; 3])).collect();
        let (queries, keys): (Vec<_>, Vec<_>) = sequences.iter().map(|sequence| sequence.seen(t)).unzip();
        Ok(Self {
            patches: stack(items, device),
            grid_thw,
            ids: ints(ids.map(|id| id as i32).collect(), device),
            size: [sequences.len(), t],
            rotary: for_tokens(&positions, &config.text, device),
            seen: Seen::new(sequences.len(), queries.concat(), keys.concat(), device),
            items: ints(sequences.iter().map(|sequence| sequence.item as i32).collect(), device),
            image_start,
            answers: ints(lessons.iter().map(|lesson| lesson.row as i32).collect(), device),
            targets,
            shares,
            weights: Tensor::from_floats(weights.as_slice(), device),
            elements: lessons
                .iter()
                .enumerate()
                .filter(|(_, lesson)| lesson.is_element)
                .filter_map(|(row, lesson)| Some((row, likeliest(&lesson.of(items).answer)?)))
                .collect(),
            cells: marks(items, |item| &item.cells, config, device),
            words: marks(items, |item| &item.words.marks, config, device)
                .map(|marks| (ints(first.words.ids.iter().map(|&id| id as i32).collect(), device), marks)),
            places: places(items, &lessons, device),
            grounding: from_fn(|layer| Grounding::new(items, &sequences, t, layer, device)),
        })
    }
}

/// What types cannot say about the items of a batch of pictures with `cells` tokens each.
fn check(items: &[&Item], first: &Item, cells: usize) -> Result<()> {
    let placed = first.asked.first().is_some_and(|asked| !asked.places.is_empty());
    let is_whole = |asked: &Asked| !asked.answer.is_empty() && asked.places.is_empty() != placed;
    if items.iter().any(|item| item.asked.is_empty() || !item.asked.iter().all(is_whole)) {
        return Err(Error::internal("an item needs questions, and each an answer, and places or none"));
    }
    if items.iter().any(|item| item.patches.grid_thw != first.patches.grid_thw) {
        return Err(Error::internal("the pictures of a batch must share one grid"));
    }
    let inside =
        |asked: &Asked, mention: &Mention| mention.token < asked.ids.len() && mention.cells.len() == cells;
    let mut asked = items.iter().flat_map(|item| &item.asked);
    if !asked.all(|asked| asked.mentions.iter().flatten().all(|mention| inside(asked, mention))) {
        return Err(Error::internal("a mention needs a token of its question and a mark for each cell"));
    }
    Ok(())
}

/// The same, `length` long.
fn padded<T: Clone>(values: &[T], length: usize, with: T) -> Vec<T> {
    let mut values = values.to_vec();
    values.resize(length, with);
    values
}

/// The token with the largest share, the first of equals: a half is Yes, as everywhere.
fn likeliest(answer: &[(u32, f32)]) -> Option<u32> {
    answer.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(token, _)| *token)
}

/// An item's questions behind what they share: one sequence, or several where they are long.
fn packed(index: usize, item: &Item, config: &ModelConfig, grid_thw: [usize; 3]) -> Vec<Sequence> {
    let sequences: Vec<Vec<u32>> = item.asked.iter().map(|asked| asked.ids.clone()).collect();
    let shared = shared_prefix(&sequences);
    let prefix = &sequences[0][..shared];
    let (positions, next) = token_positions(prefix, config, grid_thw);
    packs(&sequences, shared, next)
        .into_iter()
        .map(|pack| Sequence {
            item: index,
            shared,
            ids: [prefix, &pack.ids].concat(),
            positions: [positions.as_slice(), &pack.positions].concat(),
            pack,
        })
        .collect()
}

impl Sequence {
    /// The item's questions in this sequence, each with the index of its first own token.
    pub(super) fn starts(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.pack.answers.iter().map(|answer| answer + 1);
        let starts = std::iter::once(0).chain(ends).map(|start| self.shared + start);
        self.pack.questions.clone().zip(starts)
    }

    /// What each token sees, `T` queries and keys; padding sees nothing and nothing sees it.
    fn seen(&self, t: usize) -> (Vec<[i32; 2]>, Vec<i32>) {
        const NOBODY: i32 = -2;
        let (queries, keys) = self.pack.seen(self.shared, 0);
        (padded(&queries, t, [NOBODY, -1]), padded(&keys, t, NOBODY))
    }
}

/// A position that learns an answer.
struct Lesson {
    row: usize,
    weight: f32,
    is_element: bool,
    /// The item and its question.
    about: [usize; 2],
}

impl Lesson {
    fn of<'a>(&self, items: &'a [&Item]) -> &'a Asked {
        let [item, question] = self.about;
        &items[item].asked[question]
    }
}

/// The part of an element's weight that goes to its rehearsals, where it has any.
const REHEARSAL: f32 = 0.5;

/// The last token of each question, then the rehearsals.
///
/// A model that starts from nothing learns faster when the answer is also asked for right
/// behind the words it depends on: there it is one step of attention away from the picture.
fn lessons(items: &[&Item], sequences: &[Sequence], t: usize) -> Vec<Lesson> {
    let (mut answers, mut rehearsals) = (Vec::new(), Vec::new());
    for (start, sequence) in sequences.iter().enumerate().map(|(index, sequence)| (index * t, sequence)) {
        let item = &items[sequence.item];
        for (question, answer) in sequence.pack.questions.clone().zip(&sequence.pack.answers) {
            let Asked { ids, weight, is_element, .. } = &item.asked[question];
            let (weight, is_element) = (*weight, *is_element);
            let last = start + sequence.shared + answer;
            let about = [sequence.item, question];
            let length = ids.len() - sequence.shared;
            let n = if is_element { item.rehearsed.min(length).saturating_sub(1) } else { 0 };
            let spared = if n > 0 { weight * REHEARSAL } else { 0.0 };
            answers.push(Lesson { row: last, weight: weight - spared, is_element, about });
            let again =
                |back| Lesson { row: last - back, weight: spared / n as f32, is_element: false, about };
            rehearsals.extend((1..=n).map(again));
        }
    }
    answers.extend(rehearsals);
    answers
}

/// The tokens that answer each lesson and their shares, `[R, K]`.
fn answers(items: &[&Item], lessons: &[Lesson], device: &Device) -> (Tensor<2, Int>, Tensor<2>) {
    let answers: Vec<&[(u32, f32)]> =
        lessons.iter().map(|lesson| lesson.of(items).answer.as_slice()).collect();
    let k = answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
    let padded = |answer: &&[(u32, f32)]| {
        let rest = std::iter::repeat_n((answer[0].0, 0.0), k - answer.len());
        answer.iter().copied().chain(rest).collect::<Vec<_>>()
    };
    let (tokens, shares): (Vec<i32>, Vec<f32>) =
        answers.iter().flat_map(padded).map(|(token, share)| (token as i32, share)).unzip();
    let shape = [answers.len(), k];
    (
        Tensor::from_data(TensorData::new(tokens, shape), device),
        Tensor::from_data(TensorData::new(shares, shape), device),
    )
}

/// Where the objects of each lesson's question are.
fn places(items: &[&Item], lessons: &[Lesson], device: &Device) -> Option<Tensor<2>> {
    let marks: Vec<f32> =
        lessons.iter().flat_map(|lesson| &lesson.of(items).places).map(|&mark| f32::from(mark)).collect();
    let width = marks.len() / lessons.len();
    (width > 0).then(|| Tensor::from_data(TensorData::new(marks, [lessons.len(), width]), device))
}

pub(super) fn ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

fn stack(items: &[&Item], device: &Device) -> Tensor<3> {
    let patches = &items[0].patches;
    let n = patches.data.len() / patches.row_len;
    let data: Vec<f32> = items.iter().flat_map(|item| item.patches.data.iter().copied()).collect();
    Tensor::from_data(TensorData::new(data, [items.len(), n, patches.row_len]), device)
}

/// Zeros and ones per merged cell as `[B, M, classes]`; none where the items carry none.
fn marks(
    items: &[&Item],
    of: impl Fn(&Item) -> &Vec<u8>,
    config: &ModelConfig,
    device: &Device,
) -> Option<Tensor<3>> {
    let m = items[0].patches.n_tokens(config.vision.spatial_merge_size);
    let data: Vec<f32> = items.iter().flat_map(|item| of(item).iter().map(|&mark| f32::from(mark))).collect();
    let classes = data.len() / (items.len() * m);
    (classes > 0).then(|| Tensor::from_data(TensorData::new(data, [items.len(), m, classes]), device))
}
