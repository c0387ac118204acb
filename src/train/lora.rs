//! Fine-tuning at low rank: the model stays as it is, and some of its matrices get a small product
//! added to them that learns, `W + scale * (A B)` (`LoRA`, arXiv:2106.09685).
//!
//! The adapter is a property of its parameter ([`burn::module::LoraAdapter`]), so that nothing else
//! knows of it. There is no dropout in front of it, burn has none there; PEFT's `lora_dropout` is
//! written as 0.

use std::any::Any;
use std::collections::BTreeMap;

use burn::module::{LoraAdapter, Module, ModuleVisitor, Param, Reparameterizer};
use burn::tensor::{DType as DeviceDType, Device, Distribution, Tensor, TensorData};

use super::objective::Learner;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::format::quant::quantise;
use crate::weights::adapter::adaptable;
use crate::weights::device::linear;
use crate::weights::names::{HEAD, to_module};
use crate::weights::{Adapter, DType, Factors, PeftConfig, Targets, TensorInfo};

/// How the matrices lie in memory that do not learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Base {
    /// In f32.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// In 8 bits, blocks of 32 along a row (`QLoRA`, arXiv:2305.14314).
    #[serde(rename = "q8_0")]
    Q8,
    /// In 4 bits, blocks of 32 along a row; the CPU spends a byte on each.
    #[serde(rename = "q4_0")]
    Q4,
}

/// What learns in place of the whole model.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraOptions {
    /// Inner width of the product.
    pub rank: usize,
    /// The product's factor is `alpha / rank`.
    pub alpha: f64,
    /// Which linear layers are adapted, as in PEFT: names or ends of names with commas between
    /// them, a regular expression over whole names, or `all-linear`.
    pub targets: String,
    /// How the rest lies in memory.
    pub base: Base,
}

impl Default for LoraOptions {
    /// Rank 16 and twice that as alpha, for every linear layer of the decoder.
    fn default() -> Self {
        let targets = crate::weights::peft::DECODER_LINEARS.join(",");
        Self { rank: 16, alpha: 32.0, targets, base: Base::F32 }
    }
}

impl LoraOptions {
    /// The same in PEFT's terms.
    ///
    /// # Errors
    /// For a rank or alpha that is not positive, and targets that are no regular expression.
    pub fn peft(&self) -> Result<PeftConfig> {
        PeftConfig::new(self.rank, self.alpha, Targets::parse(&self.targets)?)
    }
}

/// Where the factors of a matrix `[out, in]` come from.
enum Start<'a> {
    /// `A` uniform within `1 / sqrt(in)` and `B` zero, PEFT's own start (`kaiming_uniform_` with
    /// `a = sqrt(5)` in `reset_lora_parameters`): the model begins as it was.
    New(&'a PeftConfig),
    /// Read from disk.
    Known(&'a Adapter),
}

impl Start<'_> {
    /// The factors as burn multiplies them, `[in, r]` and `[r, out]`; none where nothing is adapted.
    fn factors(&self, name: &str, [d_out, d_in]: [usize; 2], device: &Device) -> Result<Option<LoraAdapter>> {
        let (a, b, scale) = match self {
            Self::New(config) => {
                let module = to_module(name);
                if !config.is_target(&module)? {
                    return Ok(None);
                }
                let bound = (d_in as f64).powf(-0.5);
                let rank = config.rank_of(&module)?;
                let a = Tensor::random([d_in, rank], Distribution::Uniform(-bound, bound), device);
                (a, Tensor::zeros([rank, d_out], device), config.scale_of(&module)?)
            }
            Self::Known(adapter) => {
                let Some(Factors { rank, scale, a, b }) = adapter.factors.get(name) else { return Ok(None) };
                let transposed = |values: &Vec<f32>, [rows, columns]: [usize; 2]| {
                    let data = TensorData::new(transpose(values, columns), [columns, rows]);
                    Tensor::from_data(data, device)
                };
                (transposed(a, [*rank, d_in]), transposed(b, [d_out, *rank]), *scale)
            }
        };
        Ok(Some(LoraAdapter { a: Param::from_tensor(a), b: Param::from_tensor(b), scale }))
    }
}

/// Attaches adapters to the linear layers of a frozen module.
struct Attach<'a> {
    start: Start<'a>,
    base: Base,
    /// What may be adapted, `[out, in]` by canonical name.
    shapes: BTreeMap<String, [usize; 2]>,
    /// Modules that were adapted.
    adapted: Vec<String>,
    error: Option<Error>,
}

impl Attach<'_> {
    fn attach<const D: usize>(
        &mut self,
        name: &str,
        param: Param<Tensor<D>>,
    ) -> Result<(Param<Tensor<D>>, Option<LoraAdapter>)> {
        let Some(&shape) = self.shapes.get(name) else { return Ok((param, None)) };
        let adapter = self.start.factors(name, shape, &param.base().device())?;
        if adapter.is_some() {
            self.adapted.push(to_module(name));
        }
        if name == HEAD {
            // The head lies as it is stored, `[out, in]`: its product is the transposed one.
            let turned = adapter.map(|LoraAdapter { a, b, scale }| {
                let turn = |param: Param<Tensor<2>>| {
                    let value = param.into_value().detach();
                    let device = value.device();
                    Param::from_tensor(Tensor::from_data(value.transpose().into_data(), &device))
                };
                LoraAdapter { a: turn(b), b: turn(a), scale }
            });
            return Ok((param, turned));
        }
        Ok((self.quantised(name, shape, param)?, adapter))
    }

    /// The parameter in the precision asked for, exactly as a converted model stores it; in f32
    /// where rows are no whole number of blocks.
    fn quantised<const D: usize>(
        &self,
        name: &str,
        shape: [usize; 2],
        param: Param<Tensor<D>>,
    ) -> Result<Param<Tensor<D>>> {
        let dtype = match self.base {
            Base::F32 => return Ok(param),
            Base::Q8 => DType::Q8_0,
            Base::Q4 => DType::Q4_0,
        };
        if dtype.storable(&shape) != dtype || matches!(param.base().dtype(), DeviceDType::QFloat(_)) {
            return Ok(param);
        }
        let dense = param.base().inner();
        let device = dense.device();
        let bytes = quantise(&values(dense.swap_dims(0, 1))?, &shape, dtype)?;
        let info = TensorInfo::new(name, dtype, shape.to_vec())?;
        let packed = Tensor::from_inner(linear(&info, &bytes, &device)?);
        let packed: Box<dyn Any> = Box::new(packed);
        match packed.downcast::<Tensor<D>>() {
            Ok(packed) => Ok(param.map(|_| *packed)),
            Err(_) => Err(Error::internal(format!("{name} is no matrix"))),
        }
    }
}

/// A borrowed reparameterizer, because burn takes it whole.
struct Borrowed<'a, 'b>(&'a mut Attach<'b>);

impl Reparameterizer for Borrowed<'_, '_> {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        // The head is a parameter, not a module, and has no path of its own.
        let name = if path.is_empty() { HEAD } else { path };
        let kept = param.clone();
        self.0.attach(name, param).unwrap_or_else(|error| {
            self.0.error.get_or_insert(error);
            (kept, None)
        })
    }
}

impl Learner {
    /// The same learner with fresh adapters, which alone learn; it answers as before until they do.
    /// Their start depends on the device's seed alone.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input) where the options are wrong or a target is no
    /// linear layer of the model (a tied head is the embedding table).
    pub fn with_lora(self, options: &LoraOptions, config: &ModelConfig) -> Result<Self> {
        let peft = options.peft()?;
        let (learner, adapted) = self.attached(Start::New(&peft), options.base, config)?;
        if let Targets::Names(names) = Targets::parse(&options.targets)? {
            for name in names {
                let target = Targets::Names(vec![name.clone()]);
                if !adapted.iter().any(|module| target.matches(module).unwrap_or(false)) {
                    return Err(Error::input(format!("target {name} is no linear layer of this model")));
                }
            }
        }
        if adapted.is_empty() {
            let targets = &options.targets;
            return Err(Error::input(format!("targets {targets} match no linear layer of this model")));
        }
        Ok(learner)
    }

    /// The same learner with an adapter from disk, which alone learns on.
    ///
    /// # Errors
    /// When a value cannot be quantised.
    pub fn with_adapter(self, adapter: &Adapter, base: Base, config: &ModelConfig) -> Result<Self> {
        Ok(self.attached(Start::Known(adapter), base, config)?.0)
    }

    fn attached(self, start: Start<'_>, base: Base, config: &ModelConfig) -> Result<(Self, Vec<String>)> {
        let shapes = adaptable(config).collect();
        let mut attach = Attach { start, base, shapes, adapted: Vec::new(), error: None };
        let Self { model, embed_tokens, lm_head, auxiliary, locator, grounding } = self.freeze();
        let model = model.apply_reparameterization(Borrowed(&mut attach));
        let lm_head = lm_head.map(|head| head.apply_reparameterization(Borrowed(&mut attach)));
        match attach.error {
            Some(error) => Err(error),
            None => {
                Ok((Self { model, embed_tokens, lm_head, auxiliary, locator, grounding }, attach.adapted))
            }
        }
    }

    /// What the adapters have learned; `peft` is what they were made with, see
    /// [`LoraOptions::peft`] and [`Adapter::config`].
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind::Internal) where the learner has other adapters than
    /// `peft` says.
    pub fn adapter(&self, peft: &PeftConfig, config: &ModelConfig) -> Result<Adapter> {
        let mut found = Found::default();
        self.visit(&mut found);
        let mut factors = BTreeMap::new();
        for (name, [d_out, d_in]) in adaptable(config) {
            let module = to_module(&name);
            let pair = found.a.remove(&name).zip(found.b.remove(&name));
            if pair.is_some() != peft.is_target(&module)? {
                return Err(Error::internal(format!("{module} is not adapted as its configuration says")));
            }
            let Some((a, b)) = pair else { continue };
            let (rank, scale) = (peft.rank_of(&module)?, peft.scale_of(&module)?);
            if [a.len(), b.len()] != [rank * d_in, d_out * rank] {
                return Err(Error::internal(format!(
                    "the factors of {module} have another rank than {rank}"
                )));
            }
            factors.insert(name, Factors { rank, scale, a, b });
        }
        match found.error {
            Some(error) => Err(error),
            None => Ok(Adapter { config: peft.clone(), factors, sha256: String::new() }),
        }
    }

    /// Number of parameters that learn, and of all; on a device with automatic differentiation.
    pub fn parameters(&self) -> (usize, usize) {
        let mut count = Count::default();
        self.visit(&mut count);
        (count.learning, count.all)
    }
}

/// Factors in PEFT's layout by the canonical weight they change.
#[derive(Default)]
struct Found {
    path: Vec<String>,
    a: BTreeMap<String, Vec<f32>>,
    b: BTreeMap<String, Vec<f32>>,
    error: Option<Error>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let [weight @ .., "lora", which] = path.as_slice() else { return };
        let is_head = weight == ["lm_head"];
        let name = match weight {
            ["model", inner @ ..] => inner.join("."),
            _ => HEAD.to_owned(),
        };
        let value = param.val().inner();
        let value = if is_head { value } else { value.swap_dims(0, 1) };
        // The head's product is the transposed one, so that its factors change places.
        let factors = if (*which == "a") == is_head { &mut self.b } else { &mut self.a };
        match values(value) {
            Ok(values) => drop(factors.insert(name, values)),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }
}

#[derive(Default)]
struct Count {
    learning: usize,
    all: usize,
}

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let n = param.lazy_shape().num_elements();
        self.all += n;
        self.learning += if param.is_require_grad() { n } else { 0 };
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec().map_err(|error| Error::internal(format!("{error:?}")))
}

/// Rows of `columns` values as columns.
fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}
