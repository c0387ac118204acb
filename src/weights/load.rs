//! Checkpoint to module, tensor by tensor: the model never lies whole in host memory.
//!
//! Peak host memory is what the largest tensor takes on the way ([`host_bytes`](super::device::host_bytes)) and, on a
//! GPU, [`QUEUED`] bytes that it has not taken yet.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};

use super::checkpoint::Checkpoint;
use super::device::{decoded_linear, device_bytes, linear, matrix, vector};
use super::report::LoadReport;
use super::source::ByteSource;
use crate::error::{Context, Error, Result};
use crate::ops::StoredMatrix;

/// Device bytes of tensors that may wait in host memory. A GPU's queue keeps them until as many kernels are
/// waiting as one submission holds, which at loading are dozens of tensors.
pub const QUEUED: u64 = 16 << 20;

/// How a parameter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
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
    pub storage: Storage,
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
        let storage = match (shape.len(), in_linear) {
            (1, _) => Storage::Vector,
            (_, true) => Storage::Linear,
            (_, false) => Storage::Matrix,
        };
        if storage == Storage::Linear {
            shape.reverse();
        }
        let values = if self.values {
            let value = param.val();
            // Some back ends quantise anew what they transpose.
            let value = if matches!(value.dtype(), DType::QFloat(_)) { value.dequantize() } else { value };
            let value = if storage == Storage::Linear { value.swap_dims(D - 2, D - 1) } else { value };
            value.into_data().try_into_vec().unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = checkpoint_name(self.path.iter().map(|(name, _)| name.as_str()));
        self.parameters.push(Stored { name, shape, storage, values });
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
    /// Linear weights as they are stored (see [`super::device`]), the rest in f32: what scoring reads.
    Stored,
    /// Everything in f32, quantised matrices decoded: what training changes.
    Full,
}

/// A module whose parameters are filled.
#[derive(Debug)]
pub struct Loaded<M> {
    /// The module.
    pub module: M,
    /// Weights of linear layers that stay as stored, by name; their parameters are not filled.
    pub matrices: HashMap<String, StoredMatrix>,
    /// The checkpoint compared with the module.
    pub report: LoadReport,
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
) -> Result<Loaded<M>> {
    let parameters = stored(&module, false);
    let wanted: Vec<(String, Vec<usize>)> = parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
        .chain(outside.iter().cloned())
        .collect();
    let report = LoadReport::compare(&wanted, checkpoint.tensors()).complete()?;
    let size = |name: &str| checkpoint.info(name).map_or(0, |info| info.len);
    let total = parameters.iter().map(|parameter| size(&parameter.name)).sum();
    let (mut done, mut queued) = (0, 0);
    let mut tensors: HashMap<String, Box<dyn Any>> = HashMap::with_capacity(parameters.len());
    let mut matrices = HashMap::new();
    let stay = precision == Precision::Stored && StoredMatrix::suits(device);
    for Stored { name, storage, .. } in parameters {
        let (info, bytes) = checkpoint.read(&name).await.context(|| format!("tensor {name}"))?;
        done += size(&name);
        queued += match precision {
            Precision::Stored => device_bytes(&info, storage)[0],
            Precision::Full => 4 * info.values() as u64,
        };
        if queued >= QUEUED {
            flush(device)?;
            queued = 0;
        }
        let tensor: Box<dyn Any> = match storage {
            Storage::Vector => Box::new(vector(&info, &bytes, device)?),
            Storage::Matrix => Box::new(matrix(&info, &bytes, device)?),
            Storage::Linear if stay => {
                matrices.insert(name, StoredMatrix::new(&info, bytes, device)?);
                progress(done, total).await?;
                continue;
            }
            Storage::Linear if precision == Precision::Stored => Box::new(linear(&info, &bytes, device)?),
            Storage::Linear => Box::new(decoded_linear(&info, &bytes, device)?),
        };
        tensors.insert(name, tensor);
        progress(done, total).await?;
    }
    flush(device)?;
    Ok(Loaded { module: module.map(&mut Fill { path: Vec::new(), tensors }), matrices, report })
}

/// Hands the device what waits for it. In a browser that frees the memory it took; native queues keep a copy until it
/// has arrived.
fn flush(device: &Device) -> Result<()> {
    device
        .flush()
        .map_err(|error| Error::device("the device takes no weights").with_source(error.to_string()))
}
