//! Checkpoint to module, tensor by tensor: the model never lies whole in host memory.
//!
//! Peak host memory is one stored tensor and its decoded copy.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::checkpoint::Checkpoint;
use super::device::{linear, matrix, vector};
use super::report::LoadReport;
use super::source::ByteSource;
use crate::error::{Context, Result};

/// How a parameter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One axis.
    Vector,
    /// Two axes, as is.
    Matrix,
    /// Two axes, transposed.
    Linear,
}

/// Name, shape as stored, and form of every parameter of a module.
#[derive(Default)]
struct Expected {
    path: Vec<(String, bool)>,
    parameters: Vec<(String, Vec<usize>, Form)>,
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
        self.parameters.push((checkpoint_name(self.path.iter().map(|(name, _)| name.as_str())), shape, form));
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
    device: &Device,
    mut progress: impl AsyncFnMut(u64, u64) -> Result<()>,
) -> Result<(M, LoadReport)> {
    let mut expected = Expected::default();
    module.visit(&mut expected);
    let wanted: Vec<(String, Vec<usize>)> = expected
        .parameters
        .iter()
        .map(|(name, shape, _)| (name.clone(), shape.clone()))
        .chain(outside.iter().cloned())
        .collect();
    let report = LoadReport::compare(&wanted, checkpoint.tensors()).complete()?;
    let size = |name: &str| checkpoint.info(name).map_or(0, |info| info.len);
    let total = expected.parameters.iter().map(|(name, ..)| size(name)).sum();
    let mut done = 0;
    let mut tensors: HashMap<String, Box<dyn Any>> = HashMap::with_capacity(expected.parameters.len());
    for (name, _, form) in expected.parameters {
        let (info, bytes) = checkpoint.read(&name).await.context(|| format!("tensor {name}"))?;
        let tensor: Box<dyn Any> = match form {
            Form::Vector => Box::new(vector(&info, &bytes, device)?),
            Form::Matrix => Box::new(matrix(&info, &bytes, device)?),
            Form::Linear => Box::new(linear(&info, &bytes, device)?),
        };
        done += size(&name);
        tensors.insert(name, tensor);
        progress(done, total).await?;
    }
    Ok((module.map(&mut Fill { path: Vec::new(), tensors }), report))
}
