//! Embedding table and output head: rows on demand, never whole on a device.

use super::quant::decode_f32;
use super::tensor::{TensorInfo, shown};
use crate::error::{Error, Result};

/// A matrix in its stored form, decoded row by row.
#[derive(Debug, Clone)]
pub struct Table {
    info: TensorInfo,
    bytes: Vec<u8>,
}

impl Table {
    /// Keeps the stored bytes of a matrix.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for anything but a matrix.
    pub fn new(info: TensorInfo, bytes: Vec<u8>) -> Result<Self> {
        if info.shape.len() != 2 || info.row_bytes() * info.shape[0] != bytes.len() {
            return Err(Error::model(format!("tensor {} is no matrix of whole rows", shown(&info.name))));
        }
        Ok(Self { info, bytes })
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.info.shape[1]
    }

    /// The rows `ids`, one after the other: `ids.len() * width` values.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for an id that the table has no row for.
    pub fn rows(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let row_bytes = self.info.row_bytes();
        let info = TensorInfo::new(self.info.name.clone(), self.info.dtype, vec![self.width()])?;
        let mut values = Vec::with_capacity(ids.len() * self.width());
        for &id in ids {
            let start = id as usize * row_bytes;
            let row = self.bytes.get(start..start + row_bytes).ok_or_else(|| {
                Error::model(format!(
                    "token {id} has no row in {}, which has {}",
                    shown(&self.info.name),
                    self.info.shape[0]
                ))
            })?;
            values.extend(decode_f32(&info, row)?);
        }
        Ok(values)
    }
}
