//! Checkpoint to module, tensor by tensor: the model never lies whole in host memory.
//!
//! Peak host memory is one stored tensor and its decoded copy.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};

use super::checkpoint::Checkpoint;
use super::device::{decoded_linear, linear, matrix, vector};
use super::report::LoadReport;
use super::source::ByteSource;
use crate::error::{Context, Result};

/// How a parameter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One axis.
    Vector,
    /// Two axes, as is.
    Matrix,
    /// Two axes, transposed.
    Linear,
}

/// A parameter of a module as checkpoints know it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Canonical name.
    pub name: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub form: Form,
    /// Its values in stored order, where they were asked for.
    pub values: Vec<f32>,
}

/// Every parameter of a module in checkpoint terms, in visiting order; `values` reads them back.
pub fn stored<M: Module>(module: &M, values: bool) -> Vec<Stored> {
    let mut expected = Expected { path: Vec::new(), parameters: Vec::new(), values };
    module.visit(&mut expected);
    expected.parameters
}

struct Expected {
    path: Vec<(String, bool)>,
    parameters: Vec<Stored>,
    values: bool,
}

/// The checkpoint's name of a parameter: norms call their scale and shift `gamma` and `beta` here.
fn checkpoint_name<'a>(path: impl Iterator<Item = &'a str>) -> String {
    let name: Vec<&str> = path
        .map(|part| match part {
            "gamma" => "weight",
            "beta" => "bias",
            other => other,
        })
        .collect();
    name.join(".")
}

impl ModuleVisitor for Expected {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_owned(), container_type == "Struct:Linear"));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().to_vec();
        let in_linear = self.path.iter().any(|(_, linear)| *linear);
        let form = match (shape.len(), in_linear) {
            (1, _) => Form::Vector,
            (_, true) => Form::Linear,
            (_, false) => Form::Matrix,
        };
        if form == Form::Linear {
            shape.reverse();
        }
        let values = if self.values {
            let value = param.val();
            // Some back ends quantise anew what they transpose.
            let value = if matches!(value.dtype(), DType::QFloat(_)) { value.dequantize() } else { value };
            let value = if form == Form::Linear { value.swap_dims(D - 2, D - 1) } else { value };
            value.into_data().try_into_vec().unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = checkpoint_name(self.path.iter().map(|(name, _)| name.as_str()));
        self.parameters.push(Stored { name, shape, form, values });
    }
}

/// Puts loaded tensors into the module's parameters.
struct Fill {
    path: Vec<String>,
    tensors: HashMap<String, Box<dyn Any>>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = checkpoint_name(self.path.iter().map(String::as_str));
        let loaded = self.tensors.remove(&name).and_then(|tensor| tensor.downcast::<Tensor<D>>().ok());
        match loaded {
            Some(tensor) => Param::initialized(param.id, *tensor),
            None => param,
        }
    }
}

/// How values lie on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Quantised matrices in whole numbers (see [`super::device`]), the rest in f32: what scoring reads.
    Stored,
    /// Everything in f32, quantised matrices decoded: what training changes.
    Full,
}

/// Fills every parameter of `module` from the checkpoint, telling `progress` the stored bytes
/// done and in all.
///
/// `outside` names tensors (with their stored shapes) that belong to the model but not to the
/// module: the embedding table and the head.
///
/// # Errors
/// [`crate::error::Kind::Model`] with the whole report where a tensor is missing or has another
/// shape, and whatever reading gives.
pub async fn load<M: Module, S: ByteSource>(
    module: M,
    outside: &[(String, Vec<usize>)],
    checkpoint: &Checkpoint<S>,
    (device, precision): (&Device, Precision),
    mut progress: impl AsyncFnMut(u64, u64) -> Result<()>,
) -> Result<(M, LoadReport)> {
    let parameters = stored(&module, false);
    let wanted: Vec<(String, Vec<usize>)> = parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
        .chain(outside.iter().cloned())
        .collect();
    let report = LoadReport::compare(&wanted, checkpoint.tensors()).complete()?;
    let size = |name: &str| checkpoint.info(name).map_or(0, |info| info.len);
    let total = parameters.iter().map(|parameter| size(&parameter.name)).sum();
    let mut done = 0;
    let mut tensors: HashMap<String, Box<dyn Any>> = HashMap::with_capacity(parameters.len());
    for Stored { name, form, .. } in parameters {
        let (info, bytes) = checkpoint.read(&name).await.context(|| format!("tensor {name}"))?;
        let tensor: Box<dyn Any> = match form {
            Form::Vector => Box::new(vector(&info, &bytes, device)?),
            Form::Matrix => Box::new(matrix(&info, &bytes, device)?),
            Form::Linear if precision == Precision::Stored => Box::new(linear(&info, &bytes, device)?),
            Form::Linear => Box::new(decoded_linear(&info, &bytes, device)?),
        };
        done += size(&name);
        tensors.insert(name, tensor);
        progress(done, total).await?;
    }
    Ok((module.map(&mut Fill { path: Vec::new(), tensors }), report))
}
