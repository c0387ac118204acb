//! Embedding table and output head: rows on demand, never whole on a device.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use super::source::ByteSource;
use crate::error::{Error, Result};
use crate::format::quant::decode_f32;
use crate::format::tensor::{TensorInfo, shown};

/// Rows that are read although nobody asked for them, in bytes: a gap up to this is cheaper
/// to read than a second request.
const MAX_GAP: u64 = 16 << 10;

/// Rows that are remembered once read; the words of questions come again and again.
const MAX_KEPT: usize = 2048;

/// A matrix of which single rows are read.
///
/// Host memory: the stored bytes of a table that is held, or up to [`MAX_KEPT`] decoded rows (16 MB at
/// a width of 2048) of one that is not.
pub struct Table {
    info: TensorInfo,
    rows: Rows,
}

enum Rows {
    /// The stored bytes.
    Held(Vec<u8>),
    /// The file that the matrix lies in, at `info.offset`, and what was read of it.
    Ranged { file: Box<dyn Ranged>, kept: Mutex<BTreeMap<u32, Vec<f32>>> },
}

/// [`ByteSource`] behind a pointer.
trait Ranged {
    fn read<'a>(&'a self, offset: u64, len: usize) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + 'a>>;
}

impl<S: ByteSource> Ranged for S {
    fn read<'a>(&'a self, offset: u64, len: usize) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + 'a>> {
        Box::pin(ByteSource::read(self, offset, len))
    }
}

impl Table {
    /// The matrix `info`, which lies in one piece in `file`; its bytes are read and held where they are at most
    /// `held`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for anything but a matrix, and whatever reading gives.
    pub async fn open<S: ByteSource + 'static>(info: TensorInfo, file: S, held: u64) -> Result<Self> {
        let [rows, _] = matrix(&info)?;
        if info.row_bytes() as u64 * rows as u64 != info.len {
            return Err(Error::model(format!("tensor {} is no matrix of whole rows", shown(&info.name))));
        }
        let rows = if info.len <= held {
            Rows::Held(file.read(info.offset, info.len as usize).await?)
        } else {
            Rows::Ranged { file: Box::new(file), kept: Mutex::default() }
        };
        Ok(Self { info, rows })
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.info.shape[1]
    }

    /// The rows `ids`, one after the other: `ids.len() * width` values.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for an id that the table has no row for or a value that is not finite,
    /// and whatever reading gives.
    pub async fn rows(&self, ids: &[u32]) -> Result<Vec<f32>> {
        check_ids(&self.info, ids)?;
        match &self.rows {
            Rows::Held(bytes) => {
                let mut values = Vec::with_capacity(ids.len() * self.width());
                for &id in ids {
                    let start = id as usize * self.info.row_bytes();
                    values.extend(decode_row(&self.info, &bytes[start..start + self.info.row_bytes()])?);
                }
                Ok(values)
            }
            Rows::Ranged { file, kept } => {
                let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
                let mut rows: BTreeMap<u32, Vec<f32>> = {
                    let kept = lock();
                    ids.iter().filter_map(|id| Some((*id, kept.get(id)?.clone()))).collect()
                };
                let missing: Vec<u32> = ids.iter().filter(|id| !rows.contains_key(id)).copied().collect();
                rows.extend(read_rows(&self.info, &missing, |offset, len| file.read(offset, len)).await?);
                let values = ids.iter().flat_map(|id| &rows[id]).copied().collect();
                let mut kept = lock();
                if kept.len() + missing.len() > MAX_KEPT {
                    kept.clear();
                }
                // What one request asks for is kept whatever it takes.
                kept.extend(rows);
                Ok(values)
            }
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Decoded rows of a matrix by their ids; rows close to one another are read in one go.
pub(super) async fn read_rows<R: Future<Output = Result<Vec<u8>>>>(
    info: &TensorInfo,
    ids: &[u32],
    read: impl Fn(u64, usize) -> R,
) -> Result<BTreeMap<u32, Vec<f32>>> {
    check_ids(info, ids)?;
    let row_bytes = info.row_bytes() as u64;
    let mut order = ids.to_vec();
    order.sort_unstable();
    order.dedup();
    let mut rows = BTreeMap::new();
    for run in order.chunk_by(|a, b| u64::from(b - a - 1) * row_bytes <= MAX_GAP) {
        let count = u64::from(run[run.len() - 1] - run[0]) + 1;
        let bytes = read(info.offset + u64::from(run[0]) * row_bytes, (count * row_bytes) as usize).await?;
        for &id in run {
            let start = ((id - run[0]) as usize) * row_bytes as usize;
            rows.insert(id, decode_row(info, &bytes[start..start + row_bytes as usize])?);
        }
    }
    Ok(rows)
}

fn decode_row(info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>> {
    decode_f32(&TensorInfo::new(info.name.clone(), info.dtype, vec![info.shape[1]])?, bytes)
}

fn matrix(info: &TensorInfo) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(info.shape.as_slice()).map_err(|_| {
        Error::model(format!("tensor {} has shape {:?}, expected a matrix", shown(&info.name), info.shape))
    })
}

fn check_ids(info: &TensorInfo, ids: &[u32]) -> Result<()> {
    let [n_rows, _] = matrix(info)?;
    match ids.iter().find(|id| **id as usize >= n_rows) {
        Some(id) => {
            Err(Error::model(format!("row {id} of tensor {}, which has {n_rows}", shown(&info.name))))
        }
        None => Ok(()),
    }
}
