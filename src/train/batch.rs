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
    /// Each question's complete token sequence.
    pub sequences: Vec<Vec<u32>>,
    /// The token that answers each question.
    pub targets: Vec<u32>,
    /// How much each question counts in the loss.
    pub weights: Vec<f32>,
    /// Dense truth for the auxiliary head, `[M, classes]`; empty without one.
    pub cells: Vec<u8>,
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
    /// Rows of `[Q * T]` whose answer is learnt, `[Q]`: the last token of each question.
    pub answers: Tensor<1, Int>,
    /// The tokens to be answered, `[Q]`.
    pub targets: Tensor<1, Int>,
    /// Weight of each answer, `[Q]`, mean one.
    pub weights: Tensor<1>,
    /// Dense truth, `[B, M, classes]`, where the items carry it.
    pub cells: Option<Tensor<3>>,
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
        let mut owners = Vec::new();
        for (owner, item) in items.iter().enumerate() {
            let past = shared_prefix(&item.sequences);
            let ids = &item.sequences[0][..past];
            let (positions, next) = token_positions(ids, config.tokens.image, [h / merge, w / merge]);
            prefixes.push(Row { ids, positions, past: 0 });
            for sequence in &item.sequences {
                let ids = &sequence[past..];
                let positions = (next..next + ids.len()).map(|position| [position; 3]).collect();
                questions.push(Row { ids, positions, past });
                owners.push(owner as i32);
            }
        }
        let prefix = Tokens::new(&prefixes, 0, config, device);
        let answers = last_tokens(&questions);
        let questions = Tokens::new(&questions, prefix.size[1], config, device);
        let targets = items.iter().flat_map(|item| item.targets.iter().map(|&id| id as i32)).collect();
        let weights: Vec<f32> = items.iter().flat_map(|item| item.weights.iter().copied()).collect();
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        let weights: Vec<f32> = weights.iter().map(|weight| weight / mean).collect();
        Ok(Self {
            patches: stack(items, device),
            grid_hw: [h, w],
            prefix,
            image_start,
            questions,
            items: ints(owners, device),
            answers: ints(answers, device),
            targets: ints(targets, device),
            weights: Tensor::from_floats(weights.as_slice(), device),
            cells: cells(items, config, device),
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

/// Index of each row's last token once the rows are padded to one length.
fn last_tokens(rows: &[Row<'_>]) -> Vec<i32> {
    let t = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    rows.iter().enumerate().map(|(index, row)| (index * t + row.ids.len() - 1) as i32).collect()
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

fn cells(items: &[Item], config: &ModelConfig, device: &Device) -> Option<Tensor<3>> {
    let [_, h, w] = items[0].patches.grid_thw;
    let m = h * w / config.vision.spatial_merge_size.pow(2);
    let data: Vec<f32> = items.iter().flat_map(|item| item.cells.iter().map(|&mark| f32::from(mark))).collect();
    let classes = data.len() / (items.len() * m);
    (classes > 0).then(|| Tensor::from_data(TensorData::new(data, [items.len(), m, classes]), device))
}
