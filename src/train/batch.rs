//! Items to tensors: pictures with their shared prefixes, and the questions behind them.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::engine::prefix::shared_prefix;
use crate::error::{Error, Result};
use crate::image::patches::Patches;
use crate::model::{HIDDEN, Rotary, token_positions};

/// One picture with its questions, ready for the model.
#[derive(Debug, Clone)]
pub struct Item {
    /// The picture.
    pub patches: Patches,
    /// Each question's complete token sequence: the overall question, then elements.
    pub sequences: Vec<Vec<u32>>,
    /// The token that answers each question.
    pub targets: Vec<u32>,
    /// How much each question counts in the loss.
    pub weights: Vec<f32>,
    /// Tokens at the end of each element question that learn the answer too, its last one
    /// included; 1 for nothing but the answer position.
    pub rehearsed: usize,
    /// Dense truth for the auxiliary head, `[M, classes]`; empty without one.
    pub cells: Vec<u8>,
    /// Words that describe the picture's cells.
    pub words: Words,
}

/// Tokens that name what is in a picture, and where it is.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The tokens, the same for every item of a batch; none for no such lesson.
    pub ids: Vec<u32>,
    /// Whether each describes each cell, `[M, ids]`, zeros and ones.
    pub marks: Vec<u8>,
}

/// Token sequences of one length as tensors, short ones padded at their end.
#[derive(Debug)]
pub struct Tokens {
    /// `[B * T]`.
    pub ids: Tensor<1, Int>,
    /// `B` and `T`.
    pub size: [usize; 2],
    /// Positions.
    pub rotary: Rotary,
    /// What each token sees, `[B, T, S]`.
    pub mask: Tensor<3>,
}

/// Several items as tensors. All pictures share one grid.
///
/// Legend: `B` items, `P` tokens of the longest prefix, `Q` questions of all items,
/// `T` tokens of the longest question.
#[derive(Debug)]
pub struct Batch {
    /// `[B, N, C * T * p * p]`.
    pub patches: Tensor<3>,
    /// Patches per column and row.
    pub grid_hw: [usize; 2],
    /// What the questions of an item share, the picture included.
    pub prefix: Tokens,
    /// Index of the first picture token in a prefix.
    pub image_start: usize,
    /// The questions, each behind its item's prefix.
    pub questions: Tokens,
    /// The item of each question, `[Q]`.
    pub items: Tensor<1, Int>,
    /// Rows of `[Q * T]` that learn an answer, `[R]`: the last token of each question first
    /// (`R = Q` without rehearsal).
    pub answers: Tensor<1, Int>,
    /// The tokens to be answered, `[R]`.
    pub targets: Tensor<1, Int>,
    /// Weight of each row, `[R]`, mean one.
    pub weights: Tensor<1>,
    /// Target of each question that is about an element, with its row in `[R]`.
    pub elements: Vec<(usize, u32)>,
    /// Dense truth, `[B, M, classes]`, where the items carry it.
    pub cells: Option<Tensor<3>>,
    /// Tokens that describe cells, `[W]`, and which do, `[B, M, W]`, where the items carry them.
    pub words: Option<(Tensor<1, Int>, Tensor<3>)>,
}

/// Sequences before padding: tokens, positions, and how many cached tokens each sees.
struct Row<'a> {
    ids: &'a [u32],
    positions: Vec<[usize; 3]>,
    past: usize,
}

impl Batch {
    /// Puts items together on a device.
    ///
    /// # Errors
    /// When there is no item, when grids differ or when a sequence has no picture.
    pub fn new(items: &[Item], config: &ModelConfig, device: &Device) -> Result<Self> {
        let first = items.first().ok_or_else(|| Error::internal("a batch needs at least one item"))?;
        let [_, h, w] = first.patches.grid_thw;
        if items.iter().any(|item| item.patches.grid_thw != first.patches.grid_thw) {
            return Err(Error::internal("the pictures of a batch must share one grid"));
        }
        let image_start = first.sequences[0]
            .iter()
            .position(|&id| id == config.tokens.image)
            .ok_or_else(|| Error::internal("a training sequence has no picture token"))?;
        let merge = config.vision.spatial_merge_size;
        let mut prefixes = Vec::with_capacity(items.len());
        let mut questions = Vec::new();
        let mut elements = Vec::new();
        let mut owners = Vec::new();
        for (owner, item) in items.iter().enumerate() {
            let past = shared_prefix(&item.sequences);
            let ids = &item.sequences[0][..past];
            let (positions, next) = token_positions(ids, config.tokens.image, [h / merge, w / merge]);
            prefixes.push(Row { ids, positions, past: 0 });
            for (index, (sequence, &target)) in item.sequences.iter().zip(&item.targets).enumerate() {
                if index > 0 {
                    elements.push((questions.len(), target));
                }
                let ids = &sequence[past..];
                let positions = (next..next + ids.len()).map(|position| [position; 3]).collect();
                questions.push(Row { ids, positions, past });
                owners.push(owner as i32);
            }
        }
        let prefix = Tokens::new(&prefixes, 0, config, device);
        let lessons = lessons(items, &questions);
        let questions = Tokens::new(&questions, prefix.size[1], config, device);
        let mean = lessons.iter().map(|lesson| lesson.weight).sum::<f32>() / lessons.len() as f32;
        let weights: Vec<f32> = lessons.iter().map(|lesson| lesson.weight / mean).collect();
        Ok(Self {
            patches: stack(items, device),
            grid_hw: [h, w],
            prefix,
            image_start,
            questions,
            items: ints(owners, device),
            answers: ints(lessons.iter().map(|lesson| lesson.row as i32).collect(), device),
            targets: ints(lessons.iter().map(|lesson| lesson.target as i32).collect(), device),
            weights: Tensor::from_floats(weights.as_slice(), device),
            elements,
            cells: marks(items, |item| &item.cells, config, device),
            words: marks(items, |item| &item.words.marks, config, device)
                .map(|marks| (ints(first.words.ids.iter().map(|&id| id as i32).collect(), device), marks)),
        })
    }
}

impl Tokens {
    /// Pads rows to one length behind `cached` slots, of which each row sees its own `past`.
    fn new(rows: &[Row<'_>], cached: usize, config: &ModelConfig, device: &Device) -> Self {
        let (b, t) = (rows.len(), rows.iter().map(|row| row.ids.len()).max().unwrap_or(0));
        let s = cached + t;
        let mut ids = Vec::with_capacity(b * t);
        let mut positions = Vec::with_capacity(b);
        let mut mask = vec![HIDDEN; b * t * s];
        for (row, plane) in rows.iter().zip(mask.chunks_exact_mut(t * s)) {
            ids.extend(row.ids.iter().map(|&id| id as i32));
            ids.resize(ids.len().next_multiple_of(t), 0);
            let mut padded = row.positions.clone();
            padded.resize(t, [0; 3]);
            positions.push(padded);
            for (token, seen) in plane.chunks_exact_mut(s).enumerate() {
                seen[..row.past].fill(0.0);
                seen[cached..=cached + token].fill(0.0);
            }
        }
        Self {
            ids: ints(ids, device),
            size: [b, t],
            rotary: Rotary::for_tokens(&positions, &config.text, device),
            mask: Tensor::from_data(TensorData::new(mask, [b, t, s]), device),
        }
    }
}

/// A position that learns a token.
struct Lesson {
    row: usize,
    target: u32,
    weight: f32,
}

/// Weight of all rehearsals of a question together, beside its answer.
const REHEARSAL: f32 = 1.0;

/// The last token of each question, then the rehearsals.
///
/// A model that starts from nothing learns faster when the answer is also asked for right
/// behind the words it depends on: there it is one step of attention away from the picture.
fn lessons(items: &[Item], questions: &[Row<'_>]) -> Vec<Lesson> {
    let t = questions.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let (mut answers, mut rehearsals) = (Vec::new(), Vec::new());
    let mut rows = questions.iter().enumerate();
    for item in items {
        for (question, (&target, &weight)) in item.targets.iter().zip(&item.weights).enumerate() {
            let Some((index, row)) = rows.next() else { break };
            let last = index * t + row.ids.len() - 1;
            answers.push(Lesson { row: last, target, weight });
            if question > 0 {
                let n = item.rehearsed.min(row.ids.len()).saturating_sub(1);
                let weight = weight * REHEARSAL / n.max(1) as f32;
                rehearsals.extend((1..=n).map(|back| Lesson { row: last - back, target, weight }));
            }
        }
    }
    answers.extend(rehearsals);
    answers
}

fn ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

fn stack(items: &[Item], device: &Device) -> Tensor<3> {
    let patches = &items[0].patches;
    let n = patches.data.len() / patches.row_len;
    let data: Vec<f32> = items.iter().flat_map(|item| item.patches.data.iter().copied()).collect();
    Tensor::from_data(TensorData::new(data, [items.len(), n, patches.row_len]), device)
}

/// Zeros and ones per merged cell as `[B, M, classes]`; none where the items carry none.
fn marks(
    items: &[Item],
    of: impl Fn(&Item) -> &Vec<u8>,
    config: &ModelConfig,
    device: &Device,
) -> Option<Tensor<3>> {
    let [_, h, w] = items[0].patches.grid_thw;
    let m = h * w / config.vision.spatial_merge_size.pow(2);
    let data: Vec<f32> = items.iter().flat_map(|item| of(item).iter().map(|&mark| f32::from(mark))).collect();
    let classes = data.len() / (items.len() * m);
    (classes > 0).then(|| Tensor::from_data(TensorData::new(data, [items.len(), m, classes]), device))
}
