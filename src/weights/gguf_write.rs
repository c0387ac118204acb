//! Writing GGUF version 3, tensor by tensor.

use std::io::Write;

use super::gguf::{ALIGNMENT, MAGIC, VERSION, Value, type_id};
use super::gguf_value::write_string;
use crate::format::tensor::TensorInfo;
use crate::{Error, Result};

/// A file that is being written: the header first, then each tensor's bytes in order.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// Byte lengths of the tensors that are not complete yet, the current one last.
    pending: Vec<u64>,
    /// Bytes of the current tensor that were written.
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header for `tensors`, whose `offset` is ignored: they lie one after
    /// another, aligned to 32 bytes.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn start(mut out: W, metadata: &[(String, Value)], tensors: &[TensorInfo]) -> Result<Self> {
        out.write_all(&header(metadata, tensors)).map_err(failed)?;
        Ok(Self { out, pending: tensors.iter().rev().map(|tensor| tensor.len).collect(), written: 0 })
    }

    /// Appends bytes of the current tensor; the one after it begins when it is full.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when there are more bytes than the header announced,
    /// and when `out` cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(len) = self.pending.last().copied() else {
            return Err(Error::internal("more tensors than the header announced"));
        };
        self.written += bytes.len() as u64;
        if self.written > len {
            return Err(Error::internal(format!("{} bytes of a tensor of {len} bytes", self.written)));
        }
        self.out.write_all(bytes).map_err(failed)?;
        if self.written == len {
            let padding = len.next_multiple_of(ALIGNMENT) - len;
            self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize]).map_err(failed)?;
            self.pending.pop();
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and gives its destination back.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when a tensor is not complete.
    pub fn finish(mut self) -> Result<W> {
        if !self.pending.is_empty() {
            return Err(Error::internal(format!("{} tensors are not complete", self.pending.len())));
        }
        self.out.flush().map_err(failed)?;
        Ok(self.out)
    }
}

fn header(metadata: &[(String, Value)], tensors: &[TensorInfo]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        write_string(key, &mut out);
        out.extend(value.id().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        write_string(&tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        out.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        out.extend(type_id(tensor.dtype).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + tensor.len).next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn failed(error: std::io::Error) -> Error {
    Error::new(crate::error::Kind::Io, "cannot write").with_source(error)
}
