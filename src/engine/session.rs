//! One picture, any number of requests about it.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use web_time::Instant;

use super::plan::{Pack, packs};
use super::prefix::{common, shared_prefix};
use super::preflight::{LARGEST_ACTIVATION, check_activations};
use super::processor::Question;
use super::{Engine, milliseconds};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::model::{
    DecoderInput, KvCache, Observer, Phase, Rotary, VisionFeatures, answer_logits, causal_mask,
};
use crate::score::{ScoreResult, Timings, element, geometric_mean, overall};
use crate::text::Request;

/// A picture that the vision tower has read, with the prefix of the last request.
///
/// What is reused is keyed by content: the features belong to this picture's pixels, and
/// of the cached prefix exactly the tokens are reused that a new request repeats.
pub struct Session {
    engine: Arc<Engine>,
    features: VisionFeatures,
    grid_thw: [usize; 3],
    picture_sha256: String,
    prefix: Option<Prefix>,
    image_ms: f64,
}

/// Tokens that have gone through the decoder.
struct Prefix {
    ids: Vec<u32>,
    cache: KvCache,
    next: usize,
}

/// Answer logits of each question, in the order of its closed set.
pub type Logits = Vec<Vec<f32>>;

impl Session {
    pub(super) async fn open(
        engine: Arc<Engine>,
        picture: &Picture,
        observer: &impl Observer,
    ) -> Result<Self> {
        let start = Instant::now();
        observer.phase(Phase::Picture);
        let (vision, grid) = (&engine.processor.config().vision, engine.processor.grid_thw(picture)?);
        check_activations(vision, grid, LARGEST_ACTIVATION)?;
        let patches = engine.processor.patches(picture)?;
        let grid_thw = patches.grid_thw;
        let shape = [1, patches.n_rows(), patches.row_len];
        let patches = Tensor::from_data(TensorData::new(patches.data, shape), &engine.device);
        let features = engine.model.visual.forward(patches, grid_thw, observer).await?;
        fence(&features.tokens).await?;
        let image_ms = milliseconds(start);
        Ok(Self { engine, features, grid_thw, picture_sha256: picture.sha256_hex(), prefix: None, image_ms })
    }

    /// SHA-256 of the decoded picture, lower-case hexadecimal.
    pub fn picture_sha256(&self) -> &str {
        &self.picture_sha256
    }

    /// Number of tokens that the picture takes in a sequence.
    pub(super) fn n_image_tokens(&self) -> usize {
        self.engine.processor.n_image_tokens(self.grid_thw)
    }

    /// Answers a request: the overall question and one per element.
    ///
    /// # Errors
    /// For a request that does not fit the model, for a device that gives numbers that are
    /// not finite, and when `observer` stops.
    pub async fn score(&mut self, request: &Request, observer: &impl Observer) -> Result<ScoreResult> {
        let engine = self.engine.clone();
        let questions = engine.processor.questions(request, self.n_image_tokens())?;
        let (logits, timings) = self.ask(&questions, observer).await?;
        let scoring = engine.processor.scoring();
        let Some((first, rest)) = logits.split_first() else {
            return Err(Error::internal("a request without questions"));
        };
        let elements = request
            .elements
            .iter()
            .zip(rest)
            .map(|(part, logits)| match logits[..] {
                [yes, no] => element(&scoring.element, part, [yes, no]),
                _ => Err(Error::internal("an element's answer needs two logits")),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(ScoreResult {
            model: engine.identity.clone(),
            overall: overall(scoring, first)?,
            elements_geometric_mean: geometric_mean(&elements),
            elements,
            device: engine.device_name.clone(),
            timings_ms: timings,
            scoring: scoring.clone(),
        })
    }

    /// Answer logits of any questions about this picture: the prefix once, then all of them packed.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub async fn ask(
        &mut self,
        questions: &[Question],
        observer: &impl Observer,
    ) -> Result<(Logits, Timings)> {
        let sequences: Vec<Vec<u32>> = questions.iter().map(|question| question.token_ids.clone()).collect();
        let shared = shared_prefix(&sequences);
        let start = Instant::now();
        observer.phase(Phase::Prefix);
        self.prefill(&sequences[0][..shared], observer).await?;
        let prefix_ms = milliseconds(start);
        let start = Instant::now();
        observer.phase(Phase::Questions);
        let prefix = self.prefix.as_ref().ok_or_else(|| Error::internal("no prefix after prefill"))?;
        let mut logits = Vec::with_capacity(questions.len());
        for pack in packs(&sequences, shared, prefix.next) {
            let rows = self.answer(&pack, prefix, observer).await?;
            for (question, row) in questions[pack.questions.clone()].iter().zip(rows) {
                logits.push(self.engine.closed_set(&row, &question.answer_token_ids)?);
            }
        }
        let timings = Timings {
            load: self.engine.load_ms,
            image: self.image_ms,
            prefix: prefix_ms,
            questions: milliseconds(start),
        };
        Ok((logits, timings))
    }

    /// Makes `self.prefix` hold exactly `ids`, reusing what it shares with the last one as far
    /// as that reaches beyond the picture.
    async fn prefill(&mut self, ids: &[u32], observer: &impl Observer) -> Result<()> {
        let engine = self.engine.clone();
        let image = engine.processor.config().tokens.image;
        let (positions, next) = engine.processor.positions(ids, self.grid_thw);
        let picture_end = ids.iter().rposition(|&id| id == image).map_or(0, |last| last + 1);
        let reused = match &self.prefix {
            Some(prefix) => match common(&prefix.ids, ids) {
                shared if shared == ids.len() && shared == prefix.ids.len() => return Ok(()),
                shared if shared >= picture_end && picture_end > 0 => shared,
                _ => 0,
            },
            None => 0,
        };
        let past = self.prefix.take().filter(|_| reused > 0).map(|prefix| prefix.cache.truncated(reused));
        let cache = if reused == ids.len() {
            past.ok_or_else(|| Error::internal("a reused prefix has no cache"))?
        } else {
            let tokens = ids.len() - reused;
            let start = ids.iter().position(|&id| id == image).filter(|_| reused == 0);
            let input = DecoderInput {
                embeds: self.embed(&ids[reused..], start).await?,
                rotary: Rotary::for_tokens(
                    &[positions[reused..].to_vec()],
                    &engine.processor.config().text,
                    &engine.device,
                ),
                mask: self.mask(causal_mask(reused, tokens), tokens),
                deepstack: start.map(|start| (self.features.deepstack.as_slice(), start)),
                cache: past.as_ref(),
            };
            engine.model.language_model.forward(input, observer).await?.1
        };
        if let Some((key, _)) = cache.layers.last() {
            let [_, heads, _, width] = key.dims();
            fence(&key.clone().reshape([heads as i32, -1, width as i32])).await?;
        }
        self.prefix = Some(Prefix { ids: ids.to_vec(), cache, next });
        Ok(())
    }

    /// Logits of every answer token, one row a question of the pack.
    async fn answer(&self, pack: &Pack, prefix: &Prefix, observer: &impl Observer) -> Result<Vec<Vec<f32>>> {
        let engine = &self.engine;
        let tokens = pack.ids.len();
        let input = DecoderInput {
            embeds: self.embed(&pack.ids, None).await?,
            rotary: Rotary::for_tokens(
                std::slice::from_ref(&pack.positions),
                &engine.processor.config().text,
                &engine.device,
            ),
            mask: self.mask(pack.mask(prefix.ids.len()), tokens),
            deepstack: None,
            cache: Some(&prefix.cache),
        };
        let (hidden, _) = engine.model.language_model.forward(input, observer).await?;
        let [_, _, width] = hidden.dims();
        let answers: Vec<i32> = pack.answers.iter().map(|&answer| answer as i32).collect();
        let n = answers.len();
        let answers = Tensor::<1, Int>::from_data(TensorData::new(answers, [n]), &engine.device);
        let normed = engine.model.language_model.final_norm(hidden.select(1, answers), observer);
        let logits = answer_logits(normed.reshape([n, width]), engine.answer_rows.clone());
        let values = read(logits).await?;
        Ok(values.chunks_exact(engine.answer_ids.len()).map(<[f32]>::to_vec).collect())
    }

    /// Rows of the embedding table, with the picture's tokens from `picture` on.
    async fn embed(&self, ids: &[u32], picture: Option<usize>) -> Result<Tensor<3>> {
        let Some(start) = picture else { return self.rows(ids).await };
        let end = start + self.n_image_tokens();
        let mut parts = vec![self.features.tokens.clone()];
        if start > 0 {
            parts.insert(0, self.rows(&ids[..start]).await?);
        }
        if end < ids.len() {
            parts.push(self.rows(&ids[end..]).await?);
        }
        Ok(Tensor::cat(parts, 1))
    }

    async fn rows(&self, ids: &[u32]) -> Result<Tensor<3>> {
        let table = &self.engine.embedding;
        let data = TensorData::new(table.rows(ids).await?, [1, ids.len(), table.width()]);
        Ok(Tensor::from_data(data, &self.engine.device))
    }

    fn mask(&self, values: Vec<f32>, tokens: usize) -> Tensor<3> {
        let seen = values.len() / tokens;
        Tensor::from_data(TensorData::new(values, [1, tokens, seen]), &self.engine.device)
    }
}

/// Values of a tensor, in order.
pub(super) async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|error| {
        Error::device("the device did not return its results").with_source(format!("{error:?}"))
    })?;
    data.try_into_vec::<f32>().map_err(|error| Error::internal(format!("results in another type: {error:?}")))
}

/// Waits until `tensor` is computed, so that a stage's time is its own, and checks a value of it.
async fn fence(tensor: &Tensor<3>) -> Result<()> {
    let value = read(tensor.clone().slice([0..1, 0..1, 0..1])).await?;
    if value.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(Error::device("the device returned a number that is not finite"))
    }
}
