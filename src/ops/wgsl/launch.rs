//! Text and buffers to burn's runtime.

use std::fmt::Debug;
use std::hash::Hash;

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::Cube;
use burn_cubecl::cubecl::ir::attributes::BufferIOAttr;
use burn_cubecl::cubecl::prelude::KernelId;
use burn_cubecl::cubecl::server::{KernelArguments, MetadataBindingInfo};
use burn_cubecl::cubecl::{CubeCount, CubeDim};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::template::{KernelSource, SourceKernel, SourceTemplate};
use burn_cubecl::tensor::CubeTensor;

/// What burn's runtime calls a device whose kernels are WGSL.
const WGSL: &str = "wgpu<wgsl>";

/// A kernel that can be launched: its text follows from its own value.
pub(super) trait Kernel: Debug + Clone + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// The text, with entry point `main`.
    fn text(&self) -> String;
}

/// Makes a kernel known to burn's runtime.
struct Source<K>(K);

impl<K: Kernel> KernelSource for Source<K> {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(self.0.text())
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.0.clone())
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Queues a kernel over buffers that it reads, one that it writes (or changes, if it `reads` it too), and its sizes.
///
/// The buffers are bound in the order: those before `output`, `output`, the sizes, so `inputs` that follow the result
/// in a kernel's text come in `after`.
pub(super) fn launch<K: Kernel>(
    kernel: K,
    workgroups: [u32; 3],
    inputs: &[&CubeTensor],
    output: (&CubeTensor, Access),
    after: &[&CubeTensor],
    info: &[u32],
) {
    let client = output.0.client.clone();
    let (result, access) = output;
    let written = match access {
        Access::Write => BufferIOAttr::WriteOnly,
        Access::Change => BufferIOAttr::ReadWrite,
    };
    let read = |buffers: &[&CubeTensor], arguments: KernelArguments| {
        buffers.iter().fold(arguments, |arguments, buffer| {
            arguments.with_buffer_io(buffer.handle.clone().binding(), BufferIOAttr::ReadOnly)
        })
    };
    let arguments = read(inputs, KernelArguments::new());
    let arguments = read(after, arguments.with_buffer_io(result.handle.clone().binding(), written));
    let words = info.chunks(2).map(|pair| {
        let high = pair.get(1).copied().unwrap_or_default();
        u64::from(high) << 32 | u64::from(pair[0])
    });
    let arguments = arguments.with_info(MetadataBindingInfo::custom(words.collect()));
    let [x, y, z] = workgroups;
    // The text names its own number of threads; this one only takes part in the key of the compiled kernel.
    let kernel = SourceKernel::new(Source(kernel), CubeDim::new_single());
    client.launch(Box::new(kernel), CubeCount::Static(x, y, z), arguments);
}

/// What a kernel does with its result's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// It writes all that anybody reads.
    Write,
    /// It reads it too, or writes a part.
    Change,
}

/// Whether kernels in WGSL run on a device.
pub(crate) fn runs_on(device: &Device) -> bool {
    is_on(&Tensor::<1>::empty([1], device))
}

/// Whether a tensor lies on such a device and records no gradients.
pub(crate) fn is_on<const D: usize>(tensor: &Tensor<D>) -> bool {
    buffer(tensor).is_some()
}

/// The tensor's rows one after the other, where it lies on a device that runs WGSL and records no gradients.
pub(super) fn buffer<const D: usize>(tensor: &Tensor<D>) -> Option<CubeTensor> {
    let tensor = tensor.clone().try_into_primitive::<Cube>().ok()?;
    (tensor.client.name() == WGSL).then(|| into_contiguous(tensor))
}

/// The same of whole numbers.
pub(super) fn int_buffer(tensor: &Tensor<1, Int>) -> Option<CubeTensor> {
    let tensor = tensor.clone().try_into_primitive::<Cube>().ok()?;
    (tensor.client.name() == WGSL).then(|| into_contiguous(tensor))
}

/// A new tensor beside another one.
pub(super) fn beside<const D: usize>(other: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    let (client, device) = (other.client.clone(), other.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), burn::tensor::DType::F32)
}

/// A buffer as burn's tensor.
pub(super) fn tensor<const D: usize>(buffer: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(buffer)
}
