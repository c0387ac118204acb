//! Getting a GPU from the browser. The page's preflight has asked for adapter and features
//! before this runs, because some lacks end in a panic further down.

use burn::tensor::Device;
use burn::tensor::wgpu::MemoryConfiguration;

use crate::engine::Place;
use crate::error::{Error, Result};

/// Kernels per submission: fewer submissions than the default of 32, each still short.
const TASKS: usize = 64;

/// The browser's high-performance adapter.
///
/// # Errors
/// [`crate::error::Kind::Device`] where the browser refuses.
pub(super) async fn gpu(name: Option<String>) -> Result<Place> {
    let device = Device::wgpu_options()
        .memory_config(MemoryConfiguration::ExclusivePages)
        .tasks_max(TASKS)
        .init_async()
        .await
        .map_err(|error| Error::device("the browser gave no GPU device").with_source(error.to_string()))?;
    Ok(Place { device, name: name.unwrap_or_else(|| "gpu".into()) })
}
