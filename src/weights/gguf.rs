//! GGUF version 3: the header, read through ranges.
//!
//! ```text
//! "GGUF" | u32 version | u64 tensors | u64 metadata entries
//! metadata:  text key | u32 type | value
//! tensors:   text name | u32 dims | u64 sizes, innermost first | u32 type | u64 offset
//! padding to the alignment | data
//! ```
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{BTreeMap, HashSet};

use super::gguf_value::{ARRAY, BOOL, STRING, scalar_size};
pub use super::gguf_value::{Array, Value};
use super::source::ByteSource;
use crate::format::tensor::{DType, TensorInfo, check_disjoint, shown, stored_len};
use crate::{Error, Result};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The only version that is read and written.
pub const VERSION: u32 = 3;

/// Alignment of tensor data where `general.alignment` is absent.
pub const ALIGNMENT: u64 = 32;

/// Longest header: a vocabulary of 250,000 tokens with its merges takes about 12 MB.
const MAX_HEADER: u64 = 64 << 20;
/// Longest text; a whole `tokenizer.json` inside takes about 12 MB.
const MAX_STRING: u64 = 32 << 20;
/// Longest name of a tensor or key; ggml itself stops at 64 and 65535.
const MAX_NAME: u64 = 1 << 10;
/// Most values of an array.
const MAX_ARRAY: u64 = 1 << 24;
/// Most metadata entries.
const MAX_ENTRIES: u64 = 1 << 16;
/// Most tensors.
const MAX_TENSORS: u64 = 1 << 16;
/// Most dimensions (`GGML_MAX_DIMS`).
const MAX_DIMS: u32 = 4;
/// Bytes of the first read; further ones double what is there until the header is whole.
const FIRST_READ: u64 = 64 << 10;

/// What a file says before its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in the file's order; shapes in `PyTorch` order, offsets from the start of the file.
    pub tensors: Vec<TensorInfo>,
}

/// The type's id in the file (`enum ggml_type` in ggml.h).
pub(super) const fn type_id(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q8_0 => 8,
        DType::Q4K => 12,
        DType::Q5K => 13,
        DType::Q6K => 14,
        DType::BF16 => 30,
    }
}

/// Reads the header, and no more of the file than that takes.
///
/// # Errors
/// [`crate::error::Kind::Model`] for anything cut, absurd, duplicate, unaligned, overlapping
/// or outside the file; [`crate::error::Kind::Unsupported`] for other versions and types.
pub async fn read_header(source: &impl ByteSource) -> Result<Header> {
    let size = source.len();
    let limit = size.min(MAX_HEADER);
    let mut bytes = source.read(0, FIRST_READ.min(limit) as usize).await?;
    loop {
        let there = bytes.len() as u64;
        match parse(&bytes, size) {
            Ok(header) => return Ok(header),
            Err(Stop::Bad(error)) => return Err(error),
            Err(Stop::Short) if there >= limit => {
                return Err(Error::model(format!("the header of a GGUF file of {size} bytes is cut")));
            }
            Err(Stop::Short) => {
                let more = there.min(limit - there) as usize;
                bytes.reserve_exact(more);
                bytes.extend(source.read(there, more).await?);
            }
        }
    }
}

/// Why parsing ended early.
enum Stop {
    /// The bytes at hand end inside the header.
    Short,
    /// The header is wrong.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Bad(error)
    }
}

fn parse(bytes: &[u8], size: u64) -> Result<Header, Stop> {
    let mut cursor = Cursor { bytes, at: 0, size };
    if cursor.take(4)? != MAGIC {
        return Err(Error::model("a file that does not start with GGUF").into());
    }
    let version = cursor.u32()?;
    if version != VERSION {
        return Err(
            Error::unsupported(format!("GGUF version {version}, only version {VERSION} is read")).into()
        );
    }
    let n_tensors = cursor.count("tensors", MAX_TENSORS)?;
    let n_entries = cursor.count("metadata entries", MAX_ENTRIES)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..n_entries {
        let key = cursor.string(MAX_NAME)?;
        let id = cursor.u32()?;
        let value = cursor.value(id, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Error::model(format!("metadata key {} comes twice", shown(&key))).into());
        }
    }
    let alignment = alignment(&metadata)?;
    let raw = (0..n_tensors).map(|_| cursor.tensor()).collect::<Result<Vec<_>, Stop>>()?;
    let base = (cursor.at as u64).next_multiple_of(alignment);
    let tensors = raw.into_iter().map(|raw| raw.place(base, alignment, size)).collect::<Result<Vec<_>>>()?;
    let mut names = HashSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(Error::model(format!("tensor {} comes twice", shown(&twice.name))).into());
    }
    check_disjoint(&tensors)?;
    Ok(Header { metadata, tensors })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(Value::U32(value)) if value.is_power_of_two() && *value <= 1 << 16 => Ok(u64::from(*value)),
        Some(other) => Err(Error::model(format!(
            "general.alignment is {}, expected a power of two of at most 65536",
            other.as_u64().map_or_else(|| "no whole number".to_owned(), |value| value.to_string())
        ))),
    }
}

/// A tensor as its file describes it.
struct Raw {
    name: String,
    shape: Vec<usize>,
    id: u32,
    offset: u64,
}

impl Raw {
    fn place(self, base: u64, alignment: u64, size: u64) -> Result<TensorInfo> {
        let what = shown(&self.name);
        let dtype = DType::ALL.into_iter().find(|dtype| type_id(*dtype) == self.id).ok_or_else(|| {
            let (id, known) = (self.id, "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K");
            Error::unsupported(format!(
                "tensor {what} is of type {} ({id}), only {known} are read",
                type_name(id)
            ))
        })?;
        let len = stored_len(dtype, &self.shape).ok_or_else(|| {
            Error::model(format!("tensor {what} cannot be {dtype} of shape {:?}", self.shape))
        })?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(Error::model(format!(
                "tensor {what} lies at {}, which is not a multiple of {alignment}",
                self.offset
            )));
        }
        let offset = base
            .checked_add(self.offset)
            .filter(|offset| offset.checked_add(len).is_some_and(|end| end <= size));
        let offset = offset.ok_or_else(|| {
            Error::model(format!(
                "tensor {what} of {len} bytes at {} leaves the file of {size} bytes",
                self.offset
            ))
        })?;
        Ok(TensorInfo { name: self.name, dtype, shape: self.shape, offset, len })
    }
}

/// The bytes at hand and how long the whole file is.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    size: u64,
}

impl<'a> Cursor<'a> {
    /// The next `len` bytes; [`Stop::Bad`] at once where the whole file cannot have them.
    fn take(&mut self, len: u64) -> Result<&'a [u8], Stop> {
        if len > self.size.saturating_sub(self.at as u64) {
            return Err(Error::model(format!(
                "{len} bytes of header at offset {} leave the file of {} bytes",
                self.at, self.size
            ))
            .into());
        }
        if len > MAX_HEADER.saturating_sub(self.at as u64) {
            return Err(Error::model(format!("a GGUF header of more than {MAX_HEADER} bytes")).into());
        }
        let end = self.at + len as usize;
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn count(&mut self, what: &str, max: u64) -> Result<u64, Stop> {
        match self.u64()? {
            count if count <= max => Ok(count),
            count => Err(Error::model(format!("{count} {what}, expected at most {max}")).into()),
        }
    }

    fn string(&mut self, max: u64) -> Result<String, Stop> {
        let at = self.at;
        let len = self.count("bytes of text", max)?;
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::model(format!("the text at offset {at} is not UTF-8")).into()),
        }
    }

    fn value(&mut self, id: u32, key: &str) -> Result<Value, Stop> {
        match id {
            BOOL => Ok(Value::Bool(flag(self.take(1)?[0], key)?)),
            STRING => Ok(Value::String(self.string(MAX_STRING)?)),
            ARRAY => Ok(Value::Array(self.array(key)?)),
            id => {
                let size = scalar_size(id).ok_or_else(|| unknown_value(id, key))?;
                let bytes = self.take(size as u64)?;
                Value::scalar(id, bytes).ok_or_else(|| unknown_value(id, key).into())
            }
        }
    }

    fn array(&mut self, key: &str) -> Result<Array, Stop> {
        let id = self.u32()?;
        let len = self.count("values in an array", MAX_ARRAY)?;
        if id == STRING {
            // Capacity grows with what is really there.
            let mut texts = Vec::new();
            for _ in 0..len {
                texts.push(self.string(MAX_STRING)?);
            }
            return Ok(Array::String(texts));
        }
        let size = scalar_size(id).ok_or_else(|| unknown_value(id, key))?;
        let bytes = self.take(len * size as u64)?;
        if id == BOOL {
            return Ok(Array::Bool(bytes.iter().map(|byte| flag(*byte, key)).collect::<Result<_>>()?));
        }
        Array::scalars(id, bytes).ok_or_else(|| unknown_value(id, key).into())
    }

    fn tensor(&mut self) -> Result<Raw, Stop> {
        let name = self.string(MAX_NAME)?;
        let dims = self.u32()?;
        if dims == 0 || dims > MAX_DIMS {
            return Err(Error::model(format!("tensor {} has {dims} dimensions", shown(&name))).into());
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            let size = self.u64()?;
            let size = usize::try_from(size).ok().filter(|size| *size > 0);
            shape.push(
                size.ok_or_else(|| Error::model(format!("tensor {} has an absurd size", shown(&name))))?,
            );
        }
        shape.reverse();
        Ok(Raw { name, shape, id: self.u32()?, offset: self.u64()? })
    }
}

fn flag(byte: u8, key: &str) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::model(format!("metadata key {} holds {other}, expected a flag", shown(key)))),
    }
}

fn unknown_value(id: u32, key: &str) -> Error {
    Error::model(format!("metadata key {} holds values of the unknown type {id}", shown(key)))
}

/// Names of the types that are not read, for messages.
fn type_name(id: u32) -> &'static str {
    match id {
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K",
        16..=23 | 29 => "IQ",
        28 => "F64",
        _ => "unknown",
    }
}
