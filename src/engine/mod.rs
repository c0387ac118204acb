//! Picture and questions to scores: one asynchronous engine for native code and browsers.
//!
//! ```text
//! Bundle ── Engine::load ──> Engine ── open(picture) ──> Session ── score(request) ──> ScoreResult
//!                              |                            |
//!                          Processor                prefix once, questions packed
//! ```
//!
//! Nothing here names a model family, a file format or the wording of a question.

pub mod plan;
pub mod prefix;
mod preflight;
mod prepare;
mod processor;
mod products;
pub mod selftest;
mod session;
mod trace;

use std::sync::Arc;

use burn::tensor::Device;
use web_time::Instant;

pub use preflight::{DeviceBytes, Preflight, Work};
use preflight::{LARGEST_ON_CPU, check_weights};
pub use prepare::prepare;
pub use processor::{Processor, Question};
pub use session::{Logits, Session};
pub use trace::{Trace, TracedStage};

use crate::error::{Error, Result};
use crate::image::Picture;
use crate::model::{Observer, VisionLanguageModel};
use crate::ops::StoredMatrix;
use crate::ops::check::{Check, Finish};
use crate::score::ModelIdentity;
use crate::weights::device::device_bytes;
use crate::weights::names::{EMBEDDING, HEAD};
use crate::weights::{Bundle, ByteSource, LoadReport, Loaded, Precision, Table, load, stored};

/// Largest embedding table that is kept in host memory, in stored bytes; of larger ones the rows that a
/// prompt needs are read from the model's file, so that a tab's heap stays small.
const HELD_TABLE: u64 = 16 << 20;

/// A model on a device, ready to open pictures.
pub struct Engine {
    processor: Processor,
    model: VisionLanguageModel,
    embedding: Table,
    /// Every token that answers some question, and its rows of the head, `[A, D]`.
    answer_ids: Vec<u32>,
    answer_rows: StoredMatrix,
    device: Device,
    device_name: String,
    identity: ModelIdentity,
    report: LoadReport,
    device_bytes: u64,
    load_ms: f64,
}

/// Where to compute, and what to call it in results.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// `cpu`, or the name of the GPU.
    pub name: String,
}

impl Place {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::flex(), name: "cpu".into() }
    }
}

impl Engine {
    /// Moves a model to a device, tensor by tensor; `progress` hears stored bytes done and in all.
    ///
    /// # Errors
    /// Where parts contradict each other, tensors are missing or have other shapes, or reading fails.
    pub async fn load<S: ByteSource + 'static>(
        bundle: Bundle<S>,
        place: Place,
        progress: impl AsyncFnMut(u64, u64) -> Result<()>,
    ) -> Result<Arc<Self>> {
        let start = Instant::now();
        let Bundle { identity, facts, checkpoint, .. } = bundle;
        let text = &facts.config.text;
        let tied = text.tie_word_embeddings;
        let table = vec![text.vocab_size, text.hidden_size];
        let names: &[&str] = if tied { &[EMBEDDING] } else { &[EMBEDDING, HEAD] };
        let outside: Vec<_> = names.iter().map(|name| ((*name).to_owned(), table.clone())).collect();
        let processor = Processor::new(facts)?;
        VisionLanguageModel::check_device(processor.config(), &place.device)?;
        let model = VisionLanguageModel::new(processor.config(), &place.device);
        let on_cpu = place.device == Device::flex();
        let weights = stored(&model, false).into_iter().filter_map(|parameter| {
            let [gpu, cpu] = device_bytes(checkpoint.info(&parameter.name)?, parameter.storage);
            Some(if on_cpu { cpu } else { gpu })
        });
        let device_bytes = weights.sum();
        if on_cpu {
            check_weights(device_bytes, LARGEST_ON_CPU)?;
        }
        let Loaded { module: mut model, mut matrices, report } =
            load(model, &outside, &checkpoint, (&place.device, Precision::Stored), progress).await?;
        model.each_linear(|name, layer| {
            if let Some(matrix) = matrices.remove(&format!("{name}.weight")) {
                layer.store(matrix);
            }
        });
        if let Some(name) = matrices.keys().next() {
            return Err(Error::internal(format!("the model has no layer for {name}")));
        }
        let mut answer_ids = processor.answers().overall();
        answer_ids.extend(processor.answers().element());
        answer_ids.sort_unstable();
        answer_ids.dedup();
        let rows = checkpoint.rows(if tied { EMBEDDING } else { HEAD }, &answer_ids).await?;
        let embedding = checkpoint.into_table(EMBEDDING, HELD_TABLE).await?;
        let rows = StoredMatrix::from_values(&rows, [answer_ids.len(), embedding.width()], &place.device)?;
        #[allow(clippy::arc_with_non_send_sync, reason = "one thread scores; in a browser there is no other")]
        Ok(Arc::new(Self {
            answer_rows: rows,
            processor,
            model,
            embedding,
            answer_ids,
            device: place.device,
            device_name: place.name,
            identity,
            report,
            device_bytes,
            load_ms: milliseconds(start),
        }))
    }

    /// Encodes a picture.
    ///
    /// # Errors
    /// Where the picture's shape cannot be used, the device fails, or `observer` stops.
    pub async fn open(self: &Arc<Self>, picture: &Picture, observer: &impl Observer) -> Result<Session> {
        Session::open(self.clone(), picture, observer).await
    }

    /// What stands before the model.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Which weights these are.
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// What it runs on.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// The checkpoint compared with the model.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Bytes of the weights on the device, see [`crate::weights::device`].
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// Milliseconds that loading took.
    pub fn load_ms(&self) -> f64 {
        self.load_ms
    }

    /// What the device has to show before it scores: nothing on the CPU, where each operation has one form.
    fn checks(&self) -> Vec<Check> {
        if self.device == Device::flex() {
            return Vec::new();
        }
        let [answers, width] = self.answer_rows.shape();
        let mut checks = self.model.checks();
        checks.push(Check::Product {
            stored: self.answer_rows.dtype().name().to_owned(),
            rows: 3,
            d_in: width,
            d_out: answers,
            finish: Finish::default(),
        });
        checks
    }

    /// The logits of `ids` out of a row over all answer tokens.
    fn closed_set(&self, row: &[f32], ids: &[u32]) -> Result<Vec<f32>> {
        ids.iter()
            .map(|id| {
                let column = self.answer_ids.binary_search(id);
                column
                    .map(|column| row[column])
                    .map_err(|_| Error::internal(format!("token {id} is no answer")))
            })
            .collect()
    }
}

fn milliseconds(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1e5).round() / 100.0
}
