//! One picture, any number of requests about it.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use web_time::Instant;

use super::plan::{Pack, packs};
use super::prefix::{common, shared_prefix};
use super::preflight::{LARGEST_ACTIVATION, check_activations};
use super::processor::Question;
use super::{Engine, milliseconds};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::model::{DecoderInput, KvCache, Observer, Phase, VisionFeatures, answer_logits, for_tokens};
use crate::ops::{self, Seen};
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
}

/// Which hidden states of the last layer are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Those that answers are read from.
    Answers,
    /// All, for whoever looks at them.
    All,
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
        // Submitted, not waited for: what is wrong with it shows in the logits, or in what the device reports.
        engine
            .device
            .flush()
            .map_err(|error| Error::device("the device takes no work").with_source(error.to_string()))?;
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

    /// Answer logits of any questions about this picture.
    ///
    /// What they share and the first questions go through the decoder in one pass, which leaves the shared part in the
    /// cache; questions that do not fit into it follow behind that.
    ///
    /// # Errors
    /// As [`Session::score`], and where there is no question.
    pub async fn ask(
        &mut self,
        questions: &[Question],
        observer: &impl Observer,
    ) -> Result<(Logits, Timings)> {
        self.ask_for(questions, Rows::Answers, observer).await
    }

    pub(super) async fn ask_for(
        &mut self,
        questions: &[Question],
        rows: Rows,
        observer: &impl Observer,
    ) -> Result<(Logits, Timings)> {
        let start = Instant::now();
        observer.phase(Phase::Questions);
        let sequences: Vec<Vec<u32>> = questions.iter().map(|question| question.token_ids.clone()).collect();
        let shared = shared_prefix(&sequences);
        let ids = sequences.first().map(|sequence| &sequence[..shared]);
        let ids = ids.ok_or_else(|| Error::internal("a request without questions"))?;
        let (positions, next) = self.engine.processor.positions(ids, self.grid_thw);
        let mut answers = Vec::new();
        for pack in packs(&sequences, shared, next) {
            answers.push((pack.questions.clone(), self.pass(ids, &positions, &pack, rows, observer).await?));
        }
        let mut logits = Vec::with_capacity(questions.len());
        for (asked, answers) in answers {
            // What a failed pass left behind is worth nothing either.
            let values = read(answers).await.inspect_err(|_| self.prefix = None)?;
            let rows = values.chunks_exact(self.engine.answer_ids.len());
            for (question, row) in questions[asked].iter().zip(rows) {
                logits.push(self.engine.closed_set(row, &question.answer_token_ids)?);
            }
        }
        let timings = Timings {
            load: self.engine.load_ms,
            image: self.image_ms,
            prefix: 0.0,
            questions: milliseconds(start),
        };
        Ok((logits, timings))
    }

    /// One pass over what is not cached of `prefix`, which the questions of a pack share, and the pack: logits of
    /// every answer token, `[questions, A]`. The prefix is in the cache afterwards, and nothing else.
    async fn pass(
        &mut self,
        prefix: &[u32],
        positions: &[[usize; 3]],
        pack: &Pack,
        rows: Rows,
        observer: &impl Observer,
    ) -> Result<Tensor<2>> {
        let engine = self.engine.clone();
        let image = engine.processor.config().tokens.image;
        let cached = self.reusable(prefix, image);
        let past = self.prefix.take().filter(|_| cached > 0).map(|prefix| prefix.cache.truncated(cached));
        let picture = prefix.iter().position(|&id| id == image).filter(|_| cached == 0);
        let ids = [&prefix[cached..], &pack.ids].concat();
        let answers: Vec<usize> = pack.answers.iter().map(|answer| prefix.len() - cached + answer).collect();
        let (queries, keys) = pack.seen(prefix.len(), cached);
        let positions = [&positions[cached..], &pack.positions].concat();
        let input = DecoderInput {
            embeds: self.embed(&ids, picture).await?,
            rotary: for_tokens(&[positions], &engine.processor.config().text, &engine.device),
            seen: Seen::new(1, queries, keys, &engine.device),
            deepstack: picture.map(|start| (self.features.deepstack.as_slice(), start)),
            cache: past,
            wanted: (rows == Rows::Answers).then_some(&answers),
        };
        let decoder = &engine.model.language_model;
        let (mut hidden, cache) = decoder.forward(input, observer).await?;
        self.prefix = Some(Prefix { ids: prefix.to_vec(), cache: cache.truncated(prefix.len()) });
        if rows == Rows::All {
            hidden = ops::select(hidden, &answers);
        }
        let normed = decoder.final_norm(hidden, observer);
        Ok(answer_logits(normed.squeeze_dim(0), &engine.answer_rows))
    }

    /// How many tokens of `ids` the cache has: what the last prefix shares with them, as far as that reaches beyond
    /// the picture.
    fn reusable(&self, ids: &[u32], image: u32) -> usize {
        let picture_end = ids.iter().rposition(|&id| id == image).map_or(0, |last| last + 1);
        let shared = self.prefix.as_ref().map_or(0, |prefix| common(&prefix.ids, ids));
        if picture_end > 0 && shared >= picture_end { shared } else { 0 }
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
}

/// Values of a tensor, in order; all are finite.
pub(super) async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|error| {
        Error::device("the device did not return its results").with_source(format!("{error:?}"))
    })?;
    let values = data.try_into_vec::<f32>();
    let values = values.map_err(|error| Error::internal(format!("results in another type: {error:?}")))?;
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(Error::device("the device returned a number that is not finite"))
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use burn::tensor::Device;
    use pollster::block_on;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_logit_that_is_not_finite_is_the_devices_fault() {
        let logits = |last| Tensor::<1>::from_floats([0.5, -2.0, last], &Device::flex());
        assert_eq!(block_on(read(logits(3.0))).map_err(|error| error.kind()), Ok(vec![0.5, -2.0, 3.0]));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(block_on(read(logits(wrong))).map_err(|error| error.kind()), Err(Kind::Device));
        }
    }
}
