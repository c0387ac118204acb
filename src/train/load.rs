//! A learner that starts where a checkpoint ended, or where another learner was.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};

use super::objective::Learner;
use crate::config::Family;
use crate::error::{Context, Error, Result};
use crate::model::VisionLanguageModel;
use crate::weights::device::matrix;
use crate::weights::layout::expected;
use crate::weights::names::{EMBEDDING, HEAD};
use crate::weights::{ByteSource, Checkpoint, LoadReport, ModelFacts, Precision, load};

impl Learner {
    /// The model of a checkpoint, every parameter in f32 and trainable, without auxiliary heads.
    ///
    /// Any type that the readers know will do; quantised values are decoded, so that training goes
    /// on from exactly what was scored. `progress` hears stored bytes done and in all, embedding
    /// table and head not counted. Peak host memory is the largest tensor, stored and decoded.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind::Unsupported) for a family that is not trained here;
    /// [`Kind::Model`](crate::error::Kind::Model) with the whole report where a tensor is missing
    /// or has another shape, and whatever reading gives.
    pub async fn load<S: ByteSource>(
        facts: &ModelFacts,
        checkpoint: &Checkpoint<S>,
        device: &Device,
        progress: impl AsyncFnMut(u64, u64) -> Result<()>,
    ) -> Result<(Self, LoadReport)> {
        let config = &facts.config;
        if config.family != Family::Qwen3Vl {
            return Err(Error::unsupported(format!(
                "training of {} models is not supported, only of {}",
                config.architecture,
                Family::Qwen3Vl.model_type()
            )));
        }
        let is_outside = |name: &str| name == EMBEDDING || name == HEAD;
        let outside: Vec<_> =
            expected(&facts.config).into_iter().filter(|(name, _)| is_outside(name)).collect();
        let model = VisionLanguageModel::new(&facts.config, device);
        let loaded = load(model, &outside, checkpoint, (device, Precision::Full), progress).await?;
        let (model, report) = (loaded.module, loaded.report);
        let table = async |name: &'static str| -> Result<Param<Tensor<2>>> {
            let (info, bytes) = checkpoint.read(name).await.context(|| format!("tensor {name}"))?;
            Ok(Param::from_tensor(matrix(&info, &bytes, device)?))
        };
        let lm_head = if facts.config.text.tie_word_embeddings { None } else { Some(table(HEAD).await?) };
        let learner = Self {
            model,
            embed_tokens: table(EMBEDDING).await?,
            lm_head,
            auxiliary: None,
            locator: None,
            grounding: Vec::new(),
        };
        // Loaded tensors are frozen until somebody says otherwise.
        Ok((learner.unfreeze(), report))
    }

    /// The parameters that learn: all of them, or the adapters of a frozen model, a small part. On
    /// a device with automatic differentiation.
    pub fn record(&self) -> ModuleRecord {
        self.clone().into_record_group(ParamGroup::from_ids(self.learning()))
    }

    /// The same learner with the parameters of a [`Learner::record`]. Those that do not learn stay.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) where the record is of other parameters than
    /// those that learn here.
    pub fn with_record(self, record: ModuleRecord) -> Result<Self> {
        let (got, expected) = (record.len(), self.learning().len());
        if got != expected {
            return Err(Error::input(format!(
                "a record of {got} parameters, expected the {expected} that learn"
            )));
        }
        self.try_load_record(record.allow_partial(true))
            .map_err(|error| Error::input("the record is of another model").with_source(error.to_string()))
    }

    fn learning(&self) -> Vec<ParamId> {
        let mut learning = Learning(Vec::new());
        self.visit(&mut learning);
        learning.0
    }
}

struct Learning(Vec<ParamId>);

impl ModuleVisitor for Learning {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.push(param.id);
        }
    }
}
