//! A checkpoint of one or more files, seen as one set of canonically named tensors.

use std::collections::BTreeMap;

use super::form::is_gguf;
use super::gguf::{self, Value};
use super::names::{self, CLASS_TOKEN, PATCH_EMBEDDING, POSITION_TABLE, Place};
use super::safetensors;
use super::source::ByteSource;
use super::table::{Table, read_rows};
use crate::config::MAX_DEPTH;
use crate::error::Context;
use crate::format::quant::check_finite;
use crate::format::tensor::{DType, TensorInfo, shown};
use crate::{Error, Result};

/// Safetensors shards or GGUF files, opened: headers are read, values are not.
#[derive(Debug)]
pub struct Checkpoint<S> {
    files: Vec<(String, S)>,
    entries: BTreeMap<String, Entry>,
    metadata: Vec<(String, BTreeMap<String, Value>)>,
}

/// A canonical tensor and the pieces of files it is made of.
#[derive(Debug)]
struct Entry {
    /// Canonical name and shape; offset and length only where there is one piece.
    info: TensorInfo,
    /// `(file, tensor)`; more than one only where the canonical tensor is in pieces (see [`names`]).
    pieces: Vec<(usize, TensorInfo)>,
}

impl<S: ByteSource> Checkpoint<S> {
    /// Reads the headers of `files` (name for messages, source), each safetensors or GGUF by
    /// its first bytes.
    ///
    /// # Errors
    /// What the formats' readers say, and a tensor that two files have.
    pub async fn open(files: Vec<(String, S)>) -> Result<Self> {
        let mut checkpoint = Self { files, entries: BTreeMap::new(), metadata: Vec::new() };
        let mut places = BTreeMap::new();
        for file in 0..checkpoint.files.len() {
            let (name, source) = &checkpoint.files[file];
            let (tensors, metadata) = headers(name, source).await.context(|| name.clone())?;
            checkpoint.place(file, tensors, metadata.as_ref(), &mut places)?;
            let name = name.clone();
            checkpoint.metadata.extend(metadata.map(|metadata| (name, metadata)));
        }
        for (name, pieces) in places {
            let file = pieces.first_key_value().map_or(0, |(_, (file, _))| *file);
            let entry = entry(&name, pieces).context(|| checkpoint.files[file].0.clone())?;
            checkpoint.entries.insert(name, entry);
        }
        Ok(checkpoint)
    }

    /// Every tensor in the order of names: canonical name and shape, type as stored.
    ///
    /// Tensors of no known part keep their own name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.entries.values().map(|entry| &entry.info)
    }

    /// One tensor's canonical description.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.entries.get(name).map(|entry| &entry.info)
    }

    /// Name and metadata of the GGUF files, in the files' order; empty for safetensors.
    pub fn metadata(&self) -> &[(String, BTreeMap<String, Value>)] {
        &self.metadata
    }

    /// A tensor's bytes as stored, in canonical shape; every value in them is finite.
    ///
    /// # Errors
    /// When there is no such tensor, it cannot be read or holds a value that is not finite.
    pub async fn read(&self, name: &str) -> Result<(TensorInfo, Vec<u8>)> {
        let entry = self.entry(name)?;
        let mut pieces = Vec::with_capacity(entry.pieces.len());
        for (file, piece) in &entry.pieces {
            let bytes = self.bytes(*file, piece.offset, piece.len).await?;
            check_finite(piece, &bytes).context(|| self.files[*file].0.clone())?;
            pieces.push(bytes);
        }
        let bytes = match pieces.len() {
            1 => pieces.swap_remove(0),
            _ if name == PATCH_EMBEDDING => interleave(entry, &pieces)?,
            _ => pieces.concat(),
        };
        Ok((entry.info.clone(), bytes))
    }

    /// A matrix to be read by rows; it is held in memory where it takes at most `held` bytes, and
    /// read from its file otherwise.
    ///
    /// # Errors
    /// When there is no such matrix in one piece, and whatever reading gives.
    pub async fn into_table(mut self, name: &str, held: u64) -> Result<Table>
    where
        S: 'static,
    {
        let (file, info) = self.matrix(name)?;
        let (file_name, source) = self.files.swap_remove(file);
        Table::open(info, source, held).await.context(|| file_name)
    }

    /// The type of most values.
    pub fn common_dtype(&self) -> DType {
        let mut values = BTreeMap::new();
        for info in self.tensors() {
            *values.entry(info.dtype.name()).or_insert(0) += info.values();
        }
        let most = values.into_iter().max_by_key(|(_, count)| *count);
        most.and_then(|(name, _)| DType::from_name(name)).unwrap_or(DType::F32)
    }

    /// The rows `ids` of a matrix `[R, C]`, decoded: `ids.len() * C` values in the order of `ids`.
    ///
    /// Reads those rows only; rows close to one another in one go.
    ///
    /// # Errors
    /// When there is no such matrix, an id is not below `R`, or a value is not finite.
    pub async fn rows(&self, name: &str, ids: &[u32]) -> Result<Vec<f32>> {
        let (file, info) = self.matrix(name)?;
        let (file_name, source) = &self.files[file];
        let rows = read_rows(&info, ids, |offset, len| source.read(offset, len)).await;
        let rows = rows.context(|| file_name.clone())?;
        Ok(ids.iter().flat_map(|id| &rows[id]).copied().collect())
    }

    /// A matrix that lies in one piece: its file and its place there, under its canonical name.
    fn matrix(&self, name: &str) -> Result<(usize, TensorInfo)> {
        let entry = self.entry(name)?;
        match (entry.info.shape.as_slice(), entry.pieces.as_slice()) {
            ([_, _], [(file, piece)]) => {
                let shape = entry.info.shape.clone();
                Ok((*file, TensorInfo { name: name.to_owned(), shape, ..piece.clone() }))
            }
            _ => Err(Error::internal(format!("rows of {name}, which is no matrix in one piece"))),
        }
    }

    async fn bytes(&self, file: usize, offset: u64, len: u64) -> Result<Vec<u8>> {
        let (name, source) = &self.files[file];
        let len = usize::try_from(len).map_err(|_| {
            Error::unsupported(format!("{name}: {len} bytes at once are too many on this machine"))
        })?;
        source.read(offset, len).await.context(|| name.clone())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| Error::model(format!("tensor {} is missing", shown(name))))
    }

    /// Finds the places of a file's tensors; those of no known part keep their own names.
    fn place(
        &self,
        file: usize,
        tensors: Vec<TensorInfo>,
        metadata: Option<&BTreeMap<String, Value>>,
        places: &mut BTreeMap<String, Pieces>,
    ) -> Result<()> {
        let taps = metadata.map(|metadata| taps(metadata, &tensors));
        for tensor in tensors {
            let place = match &taps {
                Some(taps) => names::from_gguf(&tensor.name, taps),
                None => names::from_hf(&tensor.name),
            };
            let Place { name, piece } =
                place.unwrap_or_else(|| Place { name: tensor.name.clone(), piece: 0 });
            if taps.is_some() && name == PATCH_EMBEDDING && tensor.shape.len() != 4 {
                let error = uneven_frames(&tensor);
                return Err(error).context(|| self.files[file].0.clone());
            }
            let shown_name = shown(&name);
            let earlier = places.entry(name).or_default().insert(piece, (file, tensor));
            if let Some((earlier, _)) = earlier {
                let (first, second) = (&self.files[earlier].0, &self.files[file].0);
                return Err(Error::model(format!("tensor {shown_name} is in {first} and again in {second}")));
            }
        }
        Ok(())
    }
}

/// The pieces of a canonical tensor by their number, each in its file.
type Pieces = BTreeMap<usize, (usize, TensorInfo)>;

/// A canonical tensor of its pieces, none of which may be missing.
fn entry(name: &str, pieces: Pieces) -> Result<Entry> {
    let n = pieces.len();
    if !pieces.keys().copied().eq(0..n) {
        return Err(Error::model(match name {
            PATCH_EMBEDDING => "a frame of v.patch_embd.weight is missing".to_owned(),
            _ => format!("a part of tensor {} is missing", shown(name)),
        }));
    }
    let pieces: Vec<(usize, TensorInfo)> = pieces.into_values().collect();
    let first = &pieces[0].1;
    if name == PATCH_EMBEDDING && (n > 1 || first.shape.len() == 4) {
        return patch_embedding(pieces);
    }
    if n > 1 {
        return stacked(name, pieces);
    }
    let shape = match name {
        PATCH_EMBEDDING => flat(&first.shape),
        // Parameters that some checkpoints store as batches of one.
        CLASS_TOKEN | POSITION_TABLE => {
            let rank = if name == CLASS_TOKEN { 1 } else { 2 };
            let extra = first.shape.len().saturating_sub(rank);
            let ones = first.shape.iter().take(extra).take_while(|size| **size == 1).count();
            first.shape[ones..].to_vec()
        }
        _ => first.shape.clone(),
    };
    let info = TensorInfo { name: name.to_owned(), shape, ..first.clone() };
    Ok(Entry { info, pieces })
}

/// Rows of one matrix, or parts of one vector, that lie apart.
fn stacked(name: &str, pieces: Vec<(usize, TensorInfo)>) -> Result<Entry> {
    let first = &pieces[0].1;
    let other =
        |piece: &TensorInfo| piece.dtype != first.dtype || piece.shape.get(1..) != first.shape.get(1..);
    if let Some((_, piece)) = pieces.iter().find(|(_, piece)| other(piece) || piece.shape.is_empty()) {
        return Err(Error::model(format!(
            "{} is {:?} as {}, expected rows like those of {}, which is {:?} as {}",
            shown(&piece.name),
            piece.shape,
            piece.dtype,
            shown(&first.name),
            first.shape,
            first.dtype
        )));
    }
    let mut shape = first.shape.clone();
    shape[0] = pieces.iter().fold(0usize, |rows, (_, piece)| rows.saturating_add(piece.shape[0]));
    let info = TensorInfo::new(name, first.dtype, shape)?;
    Ok(Entry { info, pieces })
}

type Headers = (Vec<TensorInfo>, Option<BTreeMap<String, Value>>);

async fn headers(name: &str, source: &impl ByteSource) -> Result<Headers> {
    let start = source.read(0, source.len().min(4) as usize).await?;
    if start == gguf::MAGIC {
        let header = gguf::read_header(source).await?;
        return Ok((header.tensors, Some(header.metadata)));
    }
    if is_gguf(name) {
        // What comes instead of a file of gigabytes is often text: a page, or a pointer of Git LFS.
        return Err(Error::model(format!(
            "{} bytes that begin with \"{}\", expected a GGUF file, which begins with \"GGUF\"",
            source.len(),
            start.escape_ascii()
        )));
    }
    Ok((safetensors::read_header(source).await?, None))
}

/// The tapped vision blocks: as the metadata flags them, or those that have tensors.
fn taps(metadata: &BTreeMap<String, Value>, tensors: &[TensorInfo]) -> Vec<usize> {
    let flags = metadata.get("clip.vision.is_deepstack_layers").and_then(Value::as_bools);
    let mut taps: Vec<usize> = match flags {
        // No model is so deep; a longer list would cost every name a search through it.
        Some(flags) if flags.len() <= MAX_DEPTH => (0..flags.len()).filter(|block| flags[*block]).collect(),
        _ => tensors.iter().filter_map(|tensor| names::tapped_block(&tensor.name)).collect(),
    };
    taps.sort_unstable();
    taps.dedup();
    taps
}

/// `[D, C, T, ph, pw]` as a linear layer sees it: `[D, C * T * ph * pw]`.
fn flat(shape: &[usize]) -> Vec<usize> {
    match shape {
        [out, rest @ ..] => vec![*out, rest.iter().product()],
        [] => Vec::new(),
    }
}

/// Frames `[D, C, ph, pw]` as the one matrix `[D, C * T * ph * pw]`.
fn patch_embedding(pieces: Vec<(usize, TensorInfo)>) -> Result<Entry> {
    let first = &pieces[0].1;
    if first.shape.len() != 4 || pieces.iter().any(|(_, p)| p.shape != first.shape || p.dtype != first.dtype)
    {
        return Err(uneven_frames(first));
    }
    let mut shape = flat(&first.shape);
    shape[1] = shape[1].saturating_mul(pieces.len());
    let info = TensorInfo { offset: first.offset, ..TensorInfo::new(PATCH_EMBEDDING, first.dtype, shape)? };
    Ok(Entry { info, pieces })
}

fn uneven_frames(first: &TensorInfo) -> Error {
    Error::model(format!(
        "v.patch_embd.weight is {:?} as {}, expected 4 dimensions and the same for each frame",
        first.shape, first.dtype
    ))
}

/// Frames `[D * C, ph * pw]` to `[D * C, T, ph * pw]`.
fn interleave(entry: &Entry, frames: &[Vec<u8>]) -> Result<Vec<u8>> {
    let shape = &entry.pieces[0].1.shape;
    let planes = shape[0] * shape[1];
    let plane = frames[0].len() / planes;
    if plane * planes * frames.len() != entry.info.len as usize {
        return Err(Error::internal("frames of the patch embedding do not add up"));
    }
    let mut bytes = Vec::with_capacity(entry.info.len as usize);
    for index in 0..planes {
        for frame in frames {
            bytes.extend_from_slice(&frame[index * plane..(index + 1) * plane]);
        }
    }
    Ok(bytes)
}
