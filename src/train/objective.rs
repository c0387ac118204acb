//! What training minimises: cross-entropy where each question is answered (and rehearsed, from
//! scratch), and dense auxiliary losses where nothing is pretrained.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Initializer;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor};

use super::batch::Batch;
use super::grounding::{GROUNDED_LAYERS, Grounding, Layers};
use super::init::{frequencies, like_with_like};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{DecoderInput, Linear, VisionLanguageModel};

/// The model together with what it needs only while it learns.
#[derive(Module, Debug)]
pub struct Learner {
    /// What is exported.
    pub model: VisionLanguageModel,
    /// Embedding table, `[V, D]`.
    pub embed_tokens: Param<Tensor<2>>,
    /// Output head, `[V, D]`; none where it is tied to the table.
    pub lm_head: Option<Param<Tensor<2>>>,
    /// Reads the dense truth off each picture token; dropped on export.
    pub auxiliary: Option<Linear>,
    /// Reads off each answer where in the picture its question's objects are; dropped on export.
    pub locator: Option<Linear>,
    /// Read off each mention where what it names is, one behind each grounded layer; dropped on export.
    pub grounding: Vec<Linear>,
}

/// The two parts of the loss, each a mean over pictures, and the logits behind the first.
#[derive(Debug)]
pub struct Objective {
    /// Cross-entropy of the answers, `[1]`.
    pub answer: Tensor<1>,
    /// The auxiliary binary cross-entropies of cells, of places and of mentions, `[1]`.
    pub auxiliary: Option<Tensor<1>>,
    /// Logits over the vocabulary, `[R, V]`.
    pub logits: Tensor<2>,
}

impl Objective {
    /// Number of element questions whose most likely token is the right one.
    pub fn elements_right(&self, batch: &Batch) -> usize {
        let [_, vocabulary] = self.logits.dims();
        let logits = self.logits.clone().inner().into_data().try_into_vec::<f32>().unwrap_or_default();
        let rows: Vec<&[f32]> = logits.chunks_exact(vocabulary).collect();
        let right = batch.elements.iter().filter(|(row, target)| {
            let best =
                rows.get(*row).and_then(|row| (0..vocabulary).max_by(|&a, &b| row[a].total_cmp(&row[b])));
            best == Some(*target as usize)
        });
        right.count()
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
            lm_head: None,
            auxiliary: Some(Linear::new(width, classes, true, device)),
            locator: Some(Linear::new(width, 2 * cells, true, device)),
            grounding: (0..GROUNDED_LAYERS).map(|_| Linear::new(width, cells, true, device)).collect(),
        };
        like_with_like(frequencies(learner, &config.vision), &config.text)
    }

    /// The auxiliary loss alone: the vision tower learns to see before the decoder learns to answer.
    /// Of the decoder only the final norm and the words' rows of the embedding table take part.
    pub async fn see(&self, batch: &Batch) -> Result<Tensor<1>> {
        let features = self.model.visual.forward(batch.patches.clone(), batch.grid_thw, &()).await?;
        Ok(self
            .auxiliary_loss(features.tokens, batch)
            .unwrap_or_else(|| Tensor::zeros([1], &batch.patches.device())))
    }

    /// Answers every question of a batch.
    pub async fn answer(&self, batch: &Batch) -> Result<Objective> {
        let features = self.model.visual.forward(batch.patches.clone(), batch.grid_thw, &()).await?;
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
            seen: batch.seen.clone(),
            deepstack: Some((&deepstack, start)),
            cache: None,
            wanted: None,
        };
        let layers = Layers::new(self.grounding.len());
        let (hidden, _) = self.model.language_model.forward(input, &layers).await?;
        let answers = hidden.reshape([s * t, width]).select(0, batch.answers.clone());
        let [r, _] = answers.dims();
        let normed = self.model.language_model.final_norm(answers.reshape([1, r, width]), &());
        let normed = normed.reshape([r, width]);
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens).val();
        let logits = normed.clone().matmul(head.transpose());
        let seen = self.auxiliary_loss(features.tokens, batch);
        let located = self.locator.as_ref().zip(batch.places.clone()).map(|(locator, truth)| {
            let loss = binary_cross_entropy(locator.forward(normed), truth);
            (loss * batch.weights.clone()).sum() / batch.weights.clone().sum()
        });
        let grounded = self.grounding_loss(layers.into_hidden(), batch);
        let (targets, shares) = (batch.targets.clone(), batch.shares.clone());
        Ok(Objective {
            answer: cross_entropy(logits.clone(), targets, shares, batch.weights.clone()),
            auxiliary: [seen, located, grounded].into_iter().flatten().reduce(Tensor::add),
            logits,
        })
    }

    /// Refuses parameters that are not numbers, which only a learning rate far too high leads to.
    /// Looks at those that learn; at all where none does.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input), naming the parameter.
    pub fn check_finite(&self) -> Result<()> {
        let (learning, _) = self.parameters();
        let mut search = Search { all: learning == 0, path: Vec::new(), found: None };
        self.visit(&mut search);
        match search.found {
            Some(name) => Err(Error::input(format!(
                "{name} is no longer finite; start again with a lower learning rate"
            ))),
            None => Ok(()),
        }
    }

    /// What each picture token shows, read off by the auxiliary head and, where the batch names
    /// words, by the output head: a picture token then lies near the words that describe it,
    /// which is where the decoder looks for them.
    fn auxiliary_loss(&self, tokens: Tensor<3>, batch: &Batch) -> Option<Tensor<1>> {
        let [b, m, width] = tokens.dims();
        let flat = tokens.clone().reshape([b * m, width]);
        let over_cells =
            |logits: Tensor<2>, truth: Tensor<3>| binary_cross_entropy(logits, truth.flatten(0, 1)).mean();
        let seen = over_cells(self.auxiliary.as_ref()?.forward(flat), batch.cells.clone()?);
        let Some((ids, marks)) = batch.words.clone() else { return Some(seen) };
        let rows = self.embed_tokens.val().select(0, ids);
        let normed = self.model.language_model.final_norm(tokens, &());
        let logits = normed.reshape([b * m, width]).matmul(rows.transpose());
        Some(seen + over_cells(logits, marks))
    }

    /// Where what the text mentions is, read off each mention behind its layer, in the scale that the
    /// final norm gives.
    fn grounding_loss(&self, hidden: Vec<Tensor<3>>, batch: &Batch) -> Option<Tensor<1>> {
        let layers = self.grounding.iter().zip(hidden).zip(&batch.grounding);
        let losses = layers.filter_map(|((head, hidden), grounding)| {
            let Grounding { rows, cells, weights } = grounding.as_ref()?;
            let mentions = hidden.flatten::<2>(0, 1).select(0, rows.clone());
            let normed = self.model.language_model.final_norm(mentions.unsqueeze(), &()).squeeze_dim(0);
            let loss = binary_cross_entropy(head.forward(normed), cells.clone());
            Some((loss * weights.clone()).sum())
        });
        losses.reduce(Tensor::add)
    }
}

/// Looks for a parameter that is not finite.
struct Search {
    /// Not only at parameters that learn.
    all: bool,
    path: Vec<String>,
    found: Option<String>,
}

impl ModuleVisitor for Search {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let learns = param.is_require_grad();
        if self.found.is_some() || !(self.all || learns) {
            return;
        }
        let value = param.val().inner();
        let value = if matches!(value.dtype(), DType::QFloat(_)) { value.dequantize() } else { value };
        let is_finite: bool = value.is_finite().all().into_scalar();
        if !is_finite {
            self.found = Some(self.path.join("."));
        }
    }
}

/// Binary cross-entropy of logits `x` and truth `y`, summed over classes, without overflow:
/// `max(x, 0) - x y + ln(1 + exp(-|x|))`.
///
/// # Shapes
/// - `logits`, `truth`: `[R, classes]`
/// - output: `[R]`
fn binary_cross_entropy(logits: Tensor<2>, truth: Tensor<2>) -> Tensor<1> {
    let loss = logits.clone().clamp_min(0.0) - logits.clone() * truth + logits.abs().neg().exp().log1p();
    loss.sum_dim(1).squeeze_dim(1)
}

/// Weighted mean over rows of the cross-entropy with their answers,
/// `-sum_k share_k ln softmax(logits)[target_k]`; an answer of one token is the usual case.
///
/// The logits of a row were computed at the token before its target, a question's last one for an
/// answer: the shift is in the choice of rows, not in the labels.
///
/// # Shapes
/// - `logits`: `[R, V]`; `targets`, `shares`: `[R, K]`; `weights`: `[R]`
/// - output: `[1]`
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<2, Int>,
    shares: Tensor<2>,
    weights: Tensor<1>,
) -> Tensor<1> {
    let picked = (log_softmax(logits, 1).gather(1, targets) * shares).sum_dim(1).squeeze_dim(1);
    (picked * weights.clone()).sum().neg() / weights.sum()
}
