//! Low-rank adapters: what is added to some matrices of a checkpoint, in the files of PEFT.
//!
//! A module's `lora_A` is `[r, in]`, its `lora_B` is `[out, r]`, and its weight `[out, in]` becomes
//! `W + scale * B A`. Of a convolution, only the patch embedding, the axes behind the first are
//! flattened, as the canonical weight's are.
//!
//! Source: peft 0.21.2, `tuners/lora/layer.py` (`get_delta_weight`) and `utils/save_and_load.py`.

use std::collections::BTreeMap;

use super::layout::{expected, hf_shape};
use super::manifest::Hasher;
use super::names::{EMBEDDING, HEAD, PATCH_EMBEDDING, POSITION_TABLE, from_module, to_module};
use super::peft::PeftConfig;
use super::safetensors;
use super::source::ByteSource;
use crate::config::{Family, ModelConfig};
use crate::error::Context;
use crate::format::quant::decode_f32;
use crate::format::tensor::{TensorInfo, shown};
use crate::{Error, Result};

/// What PEFT puts in front of every module's name.
const PREFIX: &str = "base_model.model.";

/// Name of the configuration's file.
pub const CONFIG: &str = "adapter_config.json";

/// Name of the factors' file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter in memory, its factors in f32.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Which modules it adapts, and by how much.
    pub config: PeftConfig,
    /// The factors by the canonical name of the weight they change.
    pub factors: BTreeMap<String, Factors>,
    /// SHA-256 of the file of factors, 64 hexadecimal digits; empty for one that was never a file.
    pub sha256: String,
}

/// What changes one matrix `[out, in]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Inner width `r`.
    pub rank: usize,
    /// Factor of the product.
    pub scale: f64,
    /// `[r, in]`.
    pub a: Vec<f32>,
    /// `[out, r]`.
    pub b: Vec<f32>,
}

impl Factors {
    /// Adds `scale * B A` to some rows of the weight, `[n, in]`, of which the first is `first_row`.
    pub fn add_to(&self, first_row: usize, rows: &mut [f32]) {
        let width = self.a.len() / self.rank;
        let scale = self.scale as f32;
        let mut product = vec![0f32; width];
        let weights = self.b.chunks_exact(self.rank).skip(first_row);
        for (row, weights) in rows.chunks_exact_mut(width).zip(weights) {
            product.fill(0.0);
            for (weight, a) in weights.iter().zip(self.a.chunks_exact(width)) {
                product.iter_mut().zip(a).for_each(|(sum, a)| *sum += weight * a);
            }
            row.iter_mut().zip(&product).for_each(|(value, product)| *value += scale * product);
        }
    }
}

/// The two tensors of a module, as far as they were found.
#[derive(Default)]
struct Pair {
    /// As the file spells it, which patterns are matched against.
    module: String,
    a: Option<TensorInfo>,
    b: Option<TensorInfo>,
}

/// Canonical name and shape `[out, in]` of every matrix that can be adapted: tables are no layers.
pub fn adaptable(model: &ModelConfig) -> impl Iterator<Item = (String, [usize; 2])> {
    let tables = [EMBEDDING, POSITION_TABLE];
    expected(model).into_iter().filter_map(move |(name, shape)| {
        let shape = <[usize; 2]>::try_from(shape).ok()?;
        (!tables.contains(&name.as_str())).then_some((name, shape))
    })
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors` of an adapter for `model`.
    ///
    /// Modules may be named as any version of transformers named them. F32, F16 and BF16 are read.
    ///
    /// # Errors
    /// A model of another family than Qwen3-VL; what [`PeftConfig::from_json`] refuses; tensors that are no factor of a matrix of the model,
    /// come twice, without their other half, in another shape or with values that are not finite;
    /// modules that the configuration adapts and the file does not, or the other way round.
    pub async fn read<S: ByteSource>(config: &[u8], weights: &S, model: &ModelConfig) -> Result<Self> {
        if model.family != Family::Qwen3Vl {
            return Err(Error::unsupported(format!(
                "adapters of {} models are not supported, only of {}",
                model.architecture,
                Family::Qwen3Vl.model_type()
            )));
        }
        let config = PeftConfig::from_json(config).context(|| CONFIG)?;
        let read = async {
            let mut pairs = pairs(safetensors::read_header(weights).await?)?;
            let mut factors = BTreeMap::new();
            for (name, shape) in adaptable(model) {
                let Some(pair) = pairs.remove(&name) else {
                    let module = to_module(&name);
                    if config.is_target(&module)? {
                        return Err(Error::model(format!("{module} is adapted, but has no factors")));
                    }
                    continue;
                };
                factors.insert(name, pair.read(shape, &config, weights).await?);
            }
            match pairs.pop_first() {
                Some((name, _)) if name == HEAD => Err(Error::unsupported(
                    "lm_head is the embedding table of this model, whose other half an adapter cannot change",
                )),
                Some((_, Pair { module, .. })) => {
                    Err(Error::model(format!("{} is no matrix of this model", shown(&module))))
                }
                None if factors.is_empty() => Err(Error::model("the adapter adapts nothing")),
                None => Ok(factors),
            }
        };
        let factors = read.await.context(|| WEIGHTS)?;
        Ok(Self {
            config,
            factors,
            sha256: Hasher::sha256(weights, async |_| Ok(())).await.context(|| WEIGHTS)?,
        })
    }

    /// Both files: `adapter_config.json` and `adapter_model.safetensors`, in f32 and with the names
    /// of transformers 5.
    ///
    /// # Errors
    /// When factors do not fit the model or are not finite.
    pub fn to_files(&self, base: &str, model: &ModelConfig) -> Result<[Vec<u8>; 2]> {
        let shapes: BTreeMap<String, [usize; 2]> = adaptable(model).collect();
        let mut tensors = Vec::with_capacity(2 * self.factors.len());
        for (name, Factors { rank, a, b, .. }) in &self.factors {
            let module = to_module(name);
            let fits =
                shapes.get(name).filter(|[d_out, d_in]| [a.len(), b.len()] == [rank * d_in, d_out * rank]);
            let [d_out, d_in] =
                *fits.ok_or_else(|| Error::internal(format!("factors of {module} do not fit the model")))?;
            if a.iter().chain(b).any(|value| !value.is_finite()) {
                return Err(Error::input(format!("factors of {module} are no longer finite")));
            }
            let (mut wide, mut tall) = (vec![*rank, d_in], vec![d_out, *rank]);
            if name == PATCH_EMBEDDING {
                wide.splice(1.., hf_shape(name, &wide, &model.vision).split_off(1));
                tall.extend([1, 1, 1]);
            }
            tensors.push((format!("{PREFIX}{module}.lora_A.weight"), wide, a.as_slice()));
            tensors.push((format!("{PREFIX}{module}.lora_B.weight"), tall, b.as_slice()));
        }
        let mut config = self.config.to_json();
        config["base_model_name_or_path"] = base.into();
        let config = serde_json::to_vec_pretty(&config)
            .map_err(|error| Error::internal("an adapter's configuration is no JSON").with_source(error))?;
        Ok([config, safetensors::write_f32(tensors)?])
    }
}

/// Tensors of the file by the canonical weight that they change.
fn pairs(tensors: Vec<TensorInfo>) -> Result<BTreeMap<String, Pair>> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for tensor in tensors {
        let what = shown(&tensor.name);
        let module = tensor.name.strip_prefix(PREFIX).and_then(|name| {
            let a = name.strip_suffix(".lora_A.weight").map(|module| (module, true));
            a.or_else(|| name.strip_suffix(".lora_B.weight").map(|module| (module, false)))
        });
        let Some((module, is_a)) = module else {
            return Err(Error::unsupported(format!(
                "tensor {what} is no factor of a linear layer, expected {PREFIX}MODULE.lora_A.weight or .lora_B.weight"
            )));
        };
        let name = from_module(module)
            .ok_or_else(|| Error::model(format!("{} is no matrix of this model", shown(module))))?;
        let pair = pairs.entry(name).or_default();
        let half = if is_a { &mut pair.a } else { &mut pair.b };
        if half.is_some() || (!pair.module.is_empty() && pair.module != module) {
            return Err(Error::model(format!("tensor {what} is there under two names")));
        }
        module.clone_into(&mut pair.module);
        *half = Some(tensor);
    }
    Ok(pairs)
}

impl Pair {
    async fn read<S: ByteSource>(
        self,
        [d_out, d_in]: [usize; 2],
        config: &PeftConfig,
        weights: &S,
    ) -> Result<Factors> {
        let Self { module, a, b } = self;
        if !config.is_target(&module)? {
            return Err(Error::model(format!("{module} has factors, but is not among target_modules")));
        }
        let (Some(a), Some(b)) = (a, b) else {
            return Err(Error::model(format!("{module} has only one of lora_A and lora_B")));
        };
        let (rank, scale) = (config.rank_of(&module)?, config.scale_of(&module)?);
        let values = async |tensor: TensorInfo, expected: [usize; 2]| {
            let flat = [tensor.shape.first().copied().unwrap_or(0), tensor.shape.iter().skip(1).product()];
            let is_flat = tensor.shape.len() == 2 || from_module(&module).as_deref() == Some(PATCH_EMBEDDING);
            if flat != expected || !is_flat {
                return Err(Error::model(format!(
                    "tensor {} is {:?}, expected {expected:?}",
                    shown(&tensor.name),
                    tensor.shape
                )));
            }
            decode_f32(&tensor, &weights.read(tensor.offset, tensor.len as usize).await?)
        };
        Ok(Factors { rank, scale, a: values(a, [rank, d_in]).await?, b: values(b, [d_out, rank]).await? })
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::fs;
    use std::path::Path;

    use super::{Adapter, CONFIG, Context, Error, ModelConfig, Result, WEIGHTS};
    use crate::score::ScoringOptions;
    use crate::weights::files::{read_part, write_whole};
    use crate::weights::source::FileSource;

    /// Scoring options beside an adapter: how a model that has it merged is to be read.
    const SCORING: &str = "imatch.json";

    impl Adapter {
        /// Reads an adapter's folder and the scoring options that lie in it, where there are any.
        ///
        /// # Errors
        /// As [`Adapter::read`], and when a file is missing.
        pub async fn open_folder(
            folder: &Path,
            model: &ModelConfig,
        ) -> Result<(Self, Option<ScoringOptions>)> {
            let place = || folder.display().to_string();
            let config = read_part(folder, CONFIG)?;
            let weights = FileSource::open(folder.join(WEIGHTS))?;
            let adapter = Self::read(&config, &weights, model).await.context(place)?;
            let scoring = if folder.join(SCORING).is_file() {
                let options = ScoringOptions::from_json(&read_part(folder, SCORING)?);
                Some(options.context(|| folder.join(SCORING).display().to_string())?)
            } else {
                None
            };
            Ok((adapter, scoring))
        }

        /// Writes an adapter's folder; `base` is what the configuration calls the base model.
        ///
        /// # Errors
        /// As [`Adapter::to_files`], and when a file cannot be written.
        pub fn write_folder(
            &self,
            folder: &Path,
            base: &str,
            model: &ModelConfig,
            scoring: &ScoringOptions,
        ) -> Result<()> {
            let [config, weights] = self.to_files(base, model)?;
            let scoring = serde_json::to_vec_pretty(scoring)
                .map_err(|error| Error::internal("scoring options are no JSON").with_source(error))?;
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
            for (name, bytes) in [(WEIGHTS, weights), (SCORING, scoring), (CONFIG, config)] {
                write_whole(&folder.join(name), &bytes)?;
            }
            Ok(())
        }
    }
}
