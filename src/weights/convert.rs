//! A Hugging Face folder to a converted one: GGUF files, tokenizer, manifest.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Map;

use super::adapter::Adapter;
use super::bundle::{Headers, ModelFacts};
use super::checkpoint::Checkpoint;
use super::files::folder_name;
use super::form::Form;
use super::gguf::Value;
use super::gguf_write::Writer;
use super::layout::expected;
use super::llama_cpp::write::{text_metadata, tokenizer_metadata, vision_metadata};
use super::manifest::{FORMAT, FileEntry, Hasher, Manifest, Role, VERSION};
use super::names::{PATCH_EMBEDDING, POSITION_TABLE, Part, to_gguf};
use super::report::LoadReport;
use super::source::FileSource;
use crate::config::{ModelConfig, VisionConfig};
use crate::error::Context;
use crate::format::quant::{decode_f32, quantise};
use crate::format::tensor::{DType, TensorInfo};
use crate::{Error, Result};

/// Values that are converted at a time, so that no table lies whole in memory.
const CHUNK_VALUES: usize = 4 << 20;

/// What to convert.
#[derive(Debug, Clone)]
pub struct ConvertJob {
    /// The Hugging Face folder.
    pub model_dir: PathBuf,
    /// Type of the matrices.
    pub quant: DType,
    /// The folder to write, made where it is not there.
    pub out_dir: PathBuf,
    /// A `LoRA` adapter to merge.
    pub adapter: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct ConvertReport {
    /// The manifest as written.
    pub manifest: Manifest,
    /// The checkpoint compared with its configuration.
    pub load: LoadReport,
    /// Matrices whose rows are no whole number of blocks, stored as f16.
    pub fallbacks: Vec<String>,
}

/// Converts a folder with `config.json`, safetensors, `tokenizer.json`,
/// `preprocessor_config.json` and perhaps `imatch.json`.
///
/// Matrices become `quant`; vectors (norms, biases) and the position table stay f32; rows
/// that are no multiple of 32 become f16. An adapter is added to the matrices before they are
/// quantised, and the manifest's name and description say so. Files get their names when they are
/// complete, the manifest last.
///
/// # Errors
/// When the folder is incomplete or contradicts itself, the adapter is not one for this model
/// ([`Adapter::read`]), `out_dir` is `model_dir`, a value is
/// not finite in its new type, or a file cannot be written.
pub async fn convert(job: ConvertJob) -> Result<ConvertReport> {
    let ConvertJob { model_dir, quant, out_dir, adapter } = job;
    let mut model = Model::open(&model_dir).await?;
    let mut name = folder_name(&model_dir);
    if let Some(folder) = adapter {
        let adapter = folder_name(&folder);
        name = format!("{name} + {adapter}");
        model.adapt(&folder, &adapter).await?;
    }
    fs::create_dir_all(&out_dir).map_err(|error| Error::io(&out_dir, error))?;
    if same_folder(&model_dir, &out_dir)? {
        return Err(Error::input(format!(
            "{} is the model itself, choose another folder",
            out_dir.display()
        )));
    }
    let facts = &model.facts;
    let mut text = text_metadata(&facts.config, model.scoring.as_ref(), &name, quant);
    text.extend(tokenizer_metadata(&facts.tokenizer, facts.config.text.vocab_size)?);
    let vision = vision_metadata(&facts.config, &facts.image, &name, quant);
    let (text_path, vision_path) = (format!("model-{quant}.gguf"), format!("mmproj-{quant}.gguf"));
    let plan = |part| plan(&facts.config, quant, part);
    let files = vec![
        model.write(&out_dir, &text_path, &text, &plan(Part::Text)?).await?.entry(Role::Text),
        model.write(&out_dir, &vision_path, &vision, &plan(Part::Vision)?).await?.entry(Role::Vision),
        write_file(&out_dir, "tokenizer.json", &facts.tokenizer)?.entry(Role::Tokenizer),
    ];
    let fallbacks = fallbacks(&facts.config, quant);
    let manifest = model.manifest(name, quant, files)?;
    write_file(&out_dir, "manifest.json", &manifest.to_bytes()?)?;
    Ok(ConvertReport { manifest, load: model.load, fallbacks })
}

/// A Hugging Face folder, checked against its own configuration.
struct Model {
    facts: ModelFacts,
    /// Scoring options that came with it, or with the adapter.
    scoring: Option<Map<String, serde_json::Value>>,
    checkpoint: Checkpoint<FileSource>,
    load: LoadReport,
    merged: Option<Merged>,
}

/// An adapter to add to the checkpoint's matrices.
struct Merged {
    adapter: Adapter,
    /// What it is, for the manifest.
    provenance: String,
}

impl Model {
    async fn open(folder: &Path) -> Result<Self> {
        let Headers { form, facts, checkpoint, .. } = Headers::open(folder).await?;
        let Form::HuggingFace { scoring, .. } = form else {
            return Err(Error::input(format!(
                "{} is no Hugging Face folder (config.json and safetensors), which is what can be converted",
                folder.display()
            )));
        };
        let load = LoadReport::compare(&expected(&facts.config), checkpoint.tensors());
        let mut model = Self { facts, scoring: None, checkpoint, load, merged: None };
        if scoring {
            model.scoring = Some(object(&model.facts.scoring)?);
        }
        Ok(model)
    }

    /// Takes an adapter in; its scoring options, where it has any, replace the model's own.
    async fn adapt(&mut self, folder: &Path, name: &str) -> Result<()> {
        let (adapter, scoring) = Adapter::open_folder(folder, &self.facts.config).await?;
        if let Some(options) = scoring {
            self.scoring = Some(object(&options)?);
        }
        let provenance = format!("LoRA adapter {name} merged, SHA-256 {}", adapter.sha256);
        self.merged = Some(Merged { adapter, provenance });
        Ok(())
    }

    /// Adds the adapter's part to some rows of a matrix, of which the first is `first_row`.
    fn add_adapter(&self, canonical: &str, first_row: usize, values: &mut [f32]) {
        if let Some(factors) = self.merged.as_ref().and_then(|merged| merged.adapter.factors.get(canonical)) {
            factors.add_to(first_row, values);
        }
    }

    fn manifest(&self, name: String, quant: DType, files: Vec<FileEntry>) -> Result<Manifest> {
        Ok(Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            name,
            architecture: self.facts.config.architecture.clone(),
            quantization: quant.name().to_owned(),
            license: None,
            description: self.merged.as_ref().map(|merged| merged.provenance.clone()),
            config: object(&self.facts.config.to_json())?,
            preprocessor: object(&self.facts.image.to_json())?,
            scoring: self.scoring.clone(),
            files,
            golden: Vec::new(),
        })
    }

    /// Writes one GGUF file.
    async fn write(
        &self,
        folder: &Path,
        path: &str,
        metadata: &[(String, Value)],
        plan: &[Planned],
    ) -> Result<Written> {
        let out = Output::create(folder, path)?;
        let infos: Vec<TensorInfo> = plan.iter().map(|planned| planned.info.clone()).collect();
        let mut writer = Writer::start(out, metadata, &infos).context(|| path.to_owned())?;
        for planned in plan {
            self.write_tensor(planned, &mut writer).await.context(|| planned.canonical.clone())?;
        }
        writer.finish().context(|| path.to_owned())?.commit(path)
    }

    async fn write_tensor(&self, planned: &Planned, writer: &mut Writer<Output>) -> Result<()> {
        let Planned { canonical, info, piece } = planned;
        if let Some(Piece::Frame(frame)) = *piece {
            let (stored, bytes) = self.checkpoint.read(canonical).await?;
            let mut values = decode_f32(&stored, &bytes)?;
            self.add_adapter(canonical, 0, &mut values);
            let values = take_frame(&values, &self.facts.config.vision, frame);
            return writer.write(&quantise(&values, &info.shape, info.dtype)?);
        }
        if let Some(Piece::Rows(index)) = *piece {
            let (stored, bytes) = self.checkpoint.read(canonical).await?;
            let values = decode_f32(&stored, &bytes)?;
            let rows = values.chunks_exact(info.values()).nth(index).unwrap_or_default();
            return writer.write(&quantise(rows, &info.shape, info.dtype)?);
        }
        let &[n_rows, width] = info.shape.as_slice() else {
            let (stored, bytes) = self.checkpoint.read(canonical).await?;
            return writer.write(&quantise(&decode_f32(&stored, &bytes)?, &info.shape, info.dtype)?);
        };
        let step = (CHUNK_VALUES / width).max(1);
        for start in (0..n_rows).step_by(step) {
            let end = (start + step).min(n_rows);
            let ids: Vec<u32> = (start as u32..end as u32).collect();
            let mut values = self.checkpoint.rows(canonical, &ids).await?;
            self.add_adapter(canonical, start, &mut values);
            writer.write(&quantise(&values, &[end - start, width], info.dtype)?)?;
        }
        Ok(())
    }
}

/// A tensor to write.
struct Planned {
    canonical: String,
    /// GGUF name, type and shape.
    info: TensorInfo,
    /// Which part of the canonical tensor, where that is in several.
    piece: Option<Piece>,
}

/// A part of a canonical tensor.
#[derive(Clone, Copy)]
enum Piece {
    /// A frame of the patch embedding.
    Frame(usize),
    /// One of several equal runs of rows.
    Rows(usize),
}

fn plan(config: &ModelConfig, quant: DType, part: Part) -> Result<Vec<Planned>> {
    let taps = &config.vision.deepstack_visual_indexes;
    let mut plan = Vec::new();
    for (canonical, shape) in expected(config) {
        let names = to_gguf(&canonical, config.family, taps);
        let first = names
            .first()
            .ok_or_else(|| Error::internal(format!("tensor {canonical} has no name in GGUF")))?;
        if first.part != part {
            continue;
        }
        let mut push = |name: String, dtype: DType, shape: &[usize], piece: Option<Piece>| {
            let info = TensorInfo::new(name, dtype, shape.to_vec())?;
            plan.push(Planned { canonical: canonical.clone(), info, piece });
            Ok(())
        };
        if canonical == PATCH_EMBEDDING {
            let vision = &config.vision;
            let shape = [vision.hidden_size, vision.in_channels, vision.patch_size, vision.patch_size];
            for frame in 0..vision.temporal_patch_size {
                let name = if frame == 0 { first.name.clone() } else { format!("{}.{frame}", first.name) };
                push(name, patch_type(quant), &shape, Some(Piece::Frame(frame)))?;
            }
        } else if names.len() > 1 {
            let shape = [&[shape[0] / names.len()], &shape[1..]].concat();
            for (index, name) in names.iter().enumerate() {
                push(name.name.clone(), quant.storable(&shape), &shape, Some(Piece::Rows(index)))?;
            }
        } else {
            let dtype = if canonical == POSITION_TABLE { DType::F32 } else { quant.storable(&shape) };
            push(first.name.clone(), dtype, &shape, None)?;
        }
    }
    Ok(plan)
}

/// Convolution kernels are not quantised, as other GGUF tools expect.
fn patch_type(quant: DType) -> DType {
    if quant.is_quantised() { DType::F16 } else { quant }
}

/// Matrices that are not stored as asked for because of their rows.
fn fallbacks(config: &ModelConfig, quant: DType) -> Vec<String> {
    expected(config)
        .into_iter()
        .filter(|(name, shape)| name != POSITION_TABLE && shape.len() > 1)
        .filter(|(name, shape)| {
            let stored = if name == PATCH_EMBEDDING { patch_type(quant) } else { quant.storable(shape) };
            stored != quant
        })
        .map(|(name, _)| name)
        .collect()
}

/// One frame `[D, C, ph * pw]` of `[D, C, T, ph * pw]`.
fn take_frame(values: &[f32], vision: &VisionConfig, frame: usize) -> Vec<f32> {
    let plane = vision.patch_size * vision.patch_size;
    let planes = values.chunks_exact(plane).skip(frame).step_by(vision.temporal_patch_size);
    planes.flatten().copied().collect()
}

/// A file under another name until it is complete, hashed on its way.
#[derive(Debug)]
struct Output {
    out: Option<BufWriter<File>>,
    hasher: Hasher,
    part: PathBuf,
    path: PathBuf,
}

impl Output {
    fn create(folder: &Path, name: &str) -> Result<Self> {
        let (part, path) = (folder.join(format!("{name}.part")), folder.join(name));
        let file = File::create(&part).map_err(|error| Error::io(&part, error))?;
        Ok(Self { out: Some(BufWriter::with_capacity(1 << 20, file)), hasher: Hasher::default(), part, path })
    }

    fn commit(mut self, name: &str) -> Result<Written> {
        let done = self.flush().and_then(|()| {
            drop(self.out.take());
            fs::rename(&self.part, &self.path)
        });
        done.map_err(|error| Error::io(&self.path, error))?;
        let (bytes, sha256) = std::mem::take(&mut self.hasher).finish();
        Ok(Written { path: name.to_owned(), bytes, sha256 })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.as_mut().map_or(Ok(0), |out| out.write(bytes))?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Only a file that was not completed still has its stream; a leftover does no harm.
        if self.out.take().is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A file that is complete.
struct Written {
    path: String,
    bytes: u64,
    sha256: String,
}

impl Written {
    fn entry(self, role: Role) -> FileEntry {
        FileEntry { path: self.path, role, bytes: self.bytes, sha256: self.sha256 }
    }
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<Written> {
    let mut out = Output::create(folder, name)?;
    out.write_all(bytes).map_err(|error| Error::io(&out.part, error))?;
    out.commit(name)
}

/// A configuration or options as the object that a manifest holds.
fn object(value: &impl Serialize) -> Result<Map<String, serde_json::Value>> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        other => Err(Error::internal(format!("{other:?} is no JSON object"))),
    }
}

fn same_folder(a: &Path, b: &Path) -> Result<bool> {
    let real = |path: &Path| path.canonicalize().map_err(|error| Error::io(path, error));
    Ok(real(a)? == real(b)?)
}
