//! Kernels made ready while a model's weights are still on their way.

use std::collections::HashSet;

use burn::tensor::Device;

use crate::error::Result;
use crate::model::VisionLanguageModel;
use crate::ops::StoredMatrix;
use crate::ops::check::Check;
use crate::weights::{ByteSource, Headers};

/// Runs the kernels that the layers of a model of such headers will use, with as little work as they do, so that the
/// device has compiled them before the weights come. Gives the number of operations.
///
/// # Errors
/// Where an operation is wrong or the device fails, which the self-test of the loaded model will find again.
pub async fn prepare<S: ByteSource>(headers: &Headers<S>, device: &Device) -> Result<usize> {
    VisionLanguageModel::check_device(&headers.facts.config, device)?;
    // Its parameters come to life when they are first used, which they are not.
    let mut model = VisionLanguageModel::new(&headers.facts.config, device);
    model.each_linear(|name, layer| {
        if let Some(info) = headers.checkpoint.info(&format!("{name}.weight"))
            && let [rows, columns] = info.shape[..]
        {
            layer.store(StoredMatrix::planned(info.dtype, [rows, columns], device));
        }
    });
    let mut known = HashSet::new();
    for check in model.checks().into_iter().map(Check::smallest) {
        if known.insert(check.clone()) {
            check.run(device).await?;
        }
    }
    Ok(known.len())
}
