//! Getting a GPU from the browser. The page's preflight has asked for adapter and features
//! before this runs, because some lacks end in a panic further down.

use std::cell::{Cell, RefCell};

use burn::tensor::Device;
use burn::tensor::wgpu::MemoryConfiguration;

use super::observer::next_task;
use crate::engine::Place;
use crate::error::{Error, Result};

/// Kernels per submission: fewer submissions than the default of 32, each still short.
const TASKS: usize = 64;

thread_local! {
    /// The device of this worker: kernels that were made ready on it are no use to another.
    static GPU: RefCell<Option<Device>> = const { RefCell::new(None) };
    /// Whether somebody is asking for it: burn refuses a second one.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// The browser's high-performance adapter.
///
/// # Errors
/// [`crate::error::Kind::Device`] where the browser refuses.
pub(super) async fn gpu(name: Option<String>) -> Result<Place> {
    while ASKING.get() {
        next_task().await;
    }
    let known = GPU.with_borrow(Clone::clone);
    let device = if let Some(device) = known {
        device
    } else {
        ASKING.set(true);
        let asked = ask().await;
        ASKING.set(false);
        asked?
    };
    GPU.set(Some(device.clone()));
    Ok(Place { device, name: name.unwrap_or_else(|| "gpu".into()) })
}

async fn ask() -> Result<Device> {
    Device::wgpu_options()
        .memory_config(MemoryConfiguration::ExclusivePages)
        .tasks_max(TASKS)
        .init_async()
        .await
        .map_err(|error| Error::device("the browser gave no GPU device").with_source(error.to_string()))
}
