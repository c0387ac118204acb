//! What training minimises: cross-entropy where each question is answered (and rehearsed, from
//! scratch), and dense auxiliary losses where nothing is pretrained.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};

use super::batch::Batch;
use super::init::{frequencies, like_with_like};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{DecoderInput, Linear, VisionLanguageModel};
use crate::weights::stored;

/// The model together with what it needs only while it learns.
#[derive(Module, Debug)]
pub struct Learner {
    /// What is exported.
    pub model: VisionLanguageModel,
    /// Embedding table, tied to the output head, `[V, D]`.
    pub embed_tokens: Param<Tensor<2>>,
    /// Reads the dense truth off each picture token; dropped on export.
    pub auxiliary: Linear,
    /// Reads off each answer where in the picture its question's objects are; dropped on export.
    pub locator: Linear,
}

/// The two parts of the loss and the logits behind the first.
#[derive(Debug)]
pub struct Objective {
    /// Mean cross-entropy of the answers, `[1]`.
    pub answer: Tensor<1>,
    /// The auxiliary binary cross-entropies: their mean over cells, and the locator's over rows, `[1]`.
    pub auxiliary: Option<Tensor<1>>,
    /// Logits over the vocabulary, `[R, V]`.
    pub logits: Tensor<2>,
}

impl Objective {
    /// Share of element questions whose most likely token is the right one.
    pub fn element_accuracy(&self, batch: &Batch) -> f32 {
        let [_, vocabulary] = self.logits.dims();
        let logits = self.logits.clone().inner().into_data().try_into_vec::<f32>().unwrap_or_default();
        let rows: Vec<&[f32]> = logits.chunks_exact(vocabulary).collect();
        let right = batch.elements.iter().filter(|(row, target)| {
            let best =
                rows.get(*row).and_then(|row| (0..vocabulary).max_by(|&a, &b| row[a].total_cmp(&row[b])));
            best == Some(*target as usize)
        });
        right.count() as f32 / batch.elements.len().max(1) as f32
    }
}

impl Learner {
    /// Random parameters, but for patches read in frequencies and keys that start as queries.
    /// `classes` is the width of the dense truth, `cells` the number of picture tokens.
    pub fn new(config: &ModelConfig, classes: usize, cells: usize, device: &Device) -> Self {
        let width = config.text.hidden_size;
        let learner = Self {
            model: VisionLanguageModel::new(config, device),
            embed_tokens: Initializer::Normal { mean: 0.0, std: 0.3 }
                .init([config.text.vocab_size, width], device),
            auxiliary: Linear::new(width, classes, true, device),
            locator: Linear::new(width, 2 * cells, true, device),
        };
        like_with_like(frequencies(learner, &config.vision), &config.text)
    }

    /// The auxiliary loss alone: the vision tower learns to see before the decoder learns to answer.
    /// Of the decoder only the final norm and the words' rows of the embedding table take part.
    pub async fn see(&self, batch: &Batch) -> Result<Tensor<1>> {
        let features = self.model.visual.forward(batch.patches.clone(), batch.grid_hw, &()).await?;
        Ok(self
            .auxiliary_loss(features.tokens, batch)
            .unwrap_or_else(|| Tensor::zeros([1], &batch.patches.device())))
    }

    /// Answers every question of a batch.
    pub async fn answer(&self, batch: &Batch) -> Result<Objective> {
        let features = self.model.visual.forward(batch.patches.clone(), batch.grid_hw, &()).await?;
        let [s, t] = batch.size;
        let of = |features: Tensor<3>| features.select(0, batch.items.clone());
        let picture = of(features.tokens.clone());
        let [_, m, width] = picture.dims();
        let rows = self.embed_tokens.val().select(0, batch.ids.clone()).reshape([s, t, width]);
        let (start, end) = (batch.image_start, batch.image_start + m);
        let embeds =
            Tensor::cat(vec![rows.clone().narrow(1, 0, start), picture, rows.narrow(1, end, t - end)], 1);
        let deepstack: Vec<_> = features.deepstack.into_iter().map(of).collect();
        let input = DecoderInput {
            embeds,
            rotary: batch.rotary.clone(),
            mask: batch.mask.clone(),
            deepstack: Some((&deepstack, start)),
            cache: None,
        };
        let (hidden, _) = self.model.language_model.forward(input, &()).await?;
        let answers = hidden.reshape([s * t, width]).select(0, batch.answers.clone());
        let [r, _] = answers.dims();
        let normed = self.model.language_model.final_norm(answers.reshape([1, r, width]), &());
        let normed = normed.reshape([r, width]);
        let logits = normed.clone().matmul(self.embed_tokens.val().transpose());
        let seen = self.auxiliary_loss(features.tokens, batch);
        let located = batch
            .places
            .clone()
            .map(|truth| binary_cross_entropy(self.locator.forward(normed).unsqueeze(), truth.unsqueeze()));
        Ok(Objective {
            answer: cross_entropy(logits.clone(), batch.targets.clone(), batch.weights.clone()),
            auxiliary: match (seen, located) {
                (Some(seen), Some(located)) => Some(seen + located),
                (seen, located) => seen.or(located),
            },
            logits,
        })
    }

    /// Refuses parameters that are not numbers, which only a learning rate far too high leads to.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input), naming the parameter.
    pub fn check_finite(&self) -> Result<()> {
        match stored(self, true).iter().find(|parameter| parameter.values.iter().any(|v| !v.is_finite())) {
            Some(parameter) => Err(Error::input(format!(
                "{} is no longer finite; start again with a lower learning rate",
                parameter.name
            ))),
            None => Ok(()),
        }
    }

    /// What each picture token shows, read off by the auxiliary head and, where the batch names
    /// words, by the output head: a picture token then lies near the words that describe it,
    /// which is where the decoder looks for them.
    fn auxiliary_loss(&self, tokens: Tensor<3>, batch: &Batch) -> Option<Tensor<1>> {
        let seen = binary_cross_entropy(self.auxiliary.forward(tokens.clone()), batch.cells.clone()?);
        let Some((ids, marks)) = batch.words.clone() else { return Some(seen) };
        let [b, m, width] = tokens.dims();
        let [_, _, words] = marks.dims();
        let rows = self.embed_tokens.val().select(0, ids);
        let normed = self.model.language_model.final_norm(tokens, &());
        let logits = normed.reshape([b * m, width]).matmul(rows.transpose()).reshape([b, m, words]);
        Some(seen + binary_cross_entropy(logits, marks))
    }
}

/// Binary cross-entropy of logits `x` and truth `y`, summed over classes and averaged over cells,
/// without overflow: `max(x, 0) - x y + ln(1 + exp(-|x|))`.
///
/// # Shapes
/// - `logits`, `truth`: `[B, M, classes]`
fn binary_cross_entropy(logits: Tensor<3>, truth: Tensor<3>) -> Tensor<1> {
    let [b, m, _] = truth.dims();
    let loss = logits.clone().clamp_min(0.0) - logits.clone() * truth + logits.abs().neg().exp().log1p();
    loss.sum() / (b * m) as f64
}

/// Weighted mean of `-ln softmax(logits)[target]`.
///
/// The logits of a row were computed at the token before its target, a question's last one for an
/// answer: the shift is in the choice of rows, not in the labels.
///
/// # Shapes
/// - `logits`: `[R, V]`; `targets`, `weights`: `[R]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, weights: Tensor<1>) -> Tensor<1> {
    let [r, _] = logits.dims();
    let picked = log_softmax(logits, 1).gather(1, targets.reshape([r, 1])).reshape([r]);
    (picked * weights).mean().neg()
}
