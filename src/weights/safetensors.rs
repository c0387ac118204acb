//! safetensors: an 8-byte header length, a JSON header, raw little-endian values.
//!
//! The `safetensors` crate wants the whole file in memory; the header is read here so
//! that values can come in ranges. Writing goes through the crate.
//!
//! Source: <https://github.com/huggingface/safetensors#format>.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::source::ByteSource;
use crate::format::tensor::{DType, TensorInfo, check_disjoint, shown, stored_len};
use crate::{Error, Result};

/// Longest header that is read, in bytes; published ones are below 1 MB.
const MAX_HEADER: u64 = 32 << 20;

/// Most tensors of a file.
const MAX_TENSORS: usize = 1 << 16;

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// Longest `model.safetensors.index.json`.
const MAX_INDEX: usize = 32 << 20;

/// Reads the header: every tensor and its place in the file.
///
/// # Errors
/// [`crate::error::Kind::Model`] for a header that is cut, no JSON, has duplicate names or
/// ranges that overlap, leave holes, leave the file or do not fit their shapes;
/// [`crate::error::Kind::Unsupported`] for types other than F32, F16 and BF16.
pub async fn read_header(source: &impl ByteSource) -> Result<Vec<TensorInfo>> {
    let size = source.len();
    if size < 8 {
        return Err(Error::model(format!("a safetensors file of {size} bytes, expected at least 8")));
    }
    let prefix = source.read(0, 8).await?;
    let header_len = prefix.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if header_len > (size - 8).min(MAX_HEADER) {
        return Err(Error::model(format!(
            "a safetensors header of {header_len} bytes in a file of {size} bytes (limit {MAX_HEADER})"
        )));
    }
    let header = source.read(8, header_len as usize).await?;
    let header: Header = serde_json::from_slice(&header)
        .map_err(|error| Error::model("the safetensors header is malformed").with_source(error))?;
    let base = 8 + header_len;
    let tensors = header
        .0
        .into_iter()
        .map(|(name, entry)| entry.place(name, base, size))
        .collect::<Result<Vec<_>>>()?;
    check_disjoint(&tensors)?;
    let used: u64 = tensors.iter().map(|tensor| tensor.len).sum();
    if base + used != size {
        return Err(Error::model(format!("a safetensors file of {size} bytes, expected {}", base + used)));
    }
    Ok(tensors)
}

/// The files that `model.safetensors.index.json` names, sorted, each once.
///
/// # Errors
/// When it is malformed or names a file outside its folder.
pub fn shard_names(index: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    if index.len() > MAX_INDEX {
        return Err(Error::model(format!("an index of {} bytes, expected at most {MAX_INDEX}", index.len())));
    }
    let index: Index = serde_json::from_slice(index)
        .map_err(|error| Error::model("the index of shards is malformed").with_source(error))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort_unstable();
    files.dedup();
    if files.is_empty() {
        return Err(Error::model("the index of shards names no file"));
    }
    match files
        .iter()
        .find(|file| file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':']))
    {
        Some(file) => {
            Err(Error::model(format!("the index names {}, expected a plain file name", shown(file))))
        }
        None => Ok(files),
    }
}

/// A whole file of f32 tensors `(name, shape, values)`, with `format: pt` as transformers expects.
///
/// # Errors
/// When a shape does not fit its values or a name comes twice.
pub fn write_f32<'a>(tensors: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>) -> Result<Vec<u8>> {
    let mut names = HashSet::new();
    let mut bytes = Vec::new();
    for (name, shape, values) in tensors {
        if !names.insert(name.clone()) {
            return Err(Error::internal(format!("tensor {name} would be written twice")));
        }
        bytes.push((name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|error| {
                    Error::internal(format!("tensor {name} cannot be written")).with_source(error)
                })
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into_iter().collect());
    safetensors::serialize(views, metadata)
        .map_err(|error| Error::internal("safetensors cannot be written").with_source(error))
}

/// One tensor as the header describes it.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn place(self, name: String, base: u64, size: u64) -> Result<TensorInfo> {
        let what = shown(&name);
        let dtype = match self.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => {
                let other = shown(other);
                return Err(Error::unsupported(format!(
                    "tensor {what} is {other}, expected F32, F16 or BF16"
                )));
            }
        };
        if self.shape.len() > MAX_DIMS {
            return Err(Error::model(format!("tensor {what} has {} dimensions", self.shape.len())));
        }
        let shape: Option<Vec<usize>> = self.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
        let len = shape.as_deref().and_then(|shape| stored_len(dtype, shape));
        let (begin, end) = self.data_offsets;
        match (shape, len) {
            (Some(shape), Some(len)) if end.checked_sub(begin) == Some(len) && end <= size - base => {
                Ok(TensorInfo { name, dtype, shape, offset: base + begin, len })
            }
            _ => Err(Error::model(format!(
                "tensor {what} of shape {:?} as {dtype} cannot lie at {begin}..{end} of {} bytes",
                self.shape,
                size - base
            ))),
        }
    }
}

/// The header's tensors in their order; a name that comes twice is an error.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{} comes twice", shown(&name))));
                    }
                    if seen.len() > MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
