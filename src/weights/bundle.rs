//! Everything a model consists of, wherever it lies: configuration, tokenizer, options, weights.

use super::checkpoint::Checkpoint;
use super::layout::expected;
use super::llama_cpp;
use super::manifest::{FileEntry, Hasher, Manifest, Role};
use super::report::LoadReport;
use super::source::ByteSource;
use super::tensor::shown;
use crate::config::{ImageConfig, ModelConfig};
use crate::error::{Context, Error, Result};
use crate::score::{ModelIdentity, ScoringOptions};

/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// What a model consists of beside its weights.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// The model's configuration.
    pub config: ModelConfig,
    /// The picture's configuration.
    pub image: ImageConfig,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Scoring options; those of an untuned checkpoint where none came with the weights.
    pub scoring: ScoringOptions,
}

impl ModelFacts {
    /// The facts in a manifest, with the tokenizer it lists.
    ///
    /// # Errors
    /// Where a part is malformed or two parts contradict each other.
    pub fn from_manifest(manifest: &Manifest, tokenizer: Vec<u8>) -> Result<Self> {
        let json = |object: &serde_json::Map<String, serde_json::Value>| {
            serde_json::to_vec(object)
                .map_err(|error| Error::internal("JSON of a manifest").with_source(error))
        };
        let config = ModelConfig::from_json(&json(&manifest.config)?).context(|| "config in the manifest")?;
        let image = ImageConfig::from_json(&json(&manifest.preprocessor)?, &config)
            .context(|| "preprocessor in the manifest")?;
        let scoring = match &manifest.scoring {
            Some(object) => {
                ScoringOptions::from_json(&json(object)?).context(|| "scoring in the manifest")?
            }
            None => ScoringOptions::zero_shot(),
        };
        Ok(Self { config, image, tokenizer, scoring })
    }
}

/// A model before it goes to a device.
#[derive(Debug)]
pub struct Bundle<S> {
    /// Name, architecture, quantisation and digest.
    pub identity: ModelIdentity,
    /// Everything but the weights.
    pub facts: ModelFacts,
    /// The weights.
    pub checkpoint: Checkpoint<S>,
    /// Questions with the scores that a correct device gives, from the manifest.
    pub golden: Vec<serde_json::Value>,
}

impl<S: ByteSource> Bundle<S> {
    /// A converted model: `open` gives the source of each file of the manifest.
    ///
    /// Every byte is hashed before any is used; `progress` hears the bytes done and in all.
    ///
    /// # Errors
    /// [`crate::error::Kind::Integrity`] where a file is not the one promised, and whatever
    /// reading or parsing gives.
    pub async fn from_manifest(
        manifest: &Manifest,
        mut open: impl AsyncFnMut(&FileEntry) -> Result<S>,
        mut progress: impl AsyncFnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let total = manifest.files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        let mut tokenizer = None;
        let mut weights = Vec::new();
        for file in &manifest.files {
            let source = open(file).await.context(|| file.path.clone())?;
            let whole = hash(&source, file, file.role == Role::Tokenizer, async |bytes| {
                done += bytes;
                progress(done, total).await
            })
            .await?;
            match file.role {
                Role::Tokenizer => tokenizer = Some(whole),
                Role::Text | Role::Vision => weights.push((file.path.clone(), source)),
            }
        }
        let tokenizer = tokenizer.ok_or_else(|| Error::model("the manifest lists no tokenizer"))?;
        Ok(Self {
            identity: ModelIdentity {
                name: manifest.name.clone(),
                architecture: manifest.architecture.clone(),
                quantization: manifest.quantization.clone(),
                sha256: manifest.sha256(),
            },
            facts: ModelFacts::from_manifest(manifest, tokenizer)?,
            checkpoint: Checkpoint::open(weights).await?,
            golden: manifest.golden.clone(),
        })
    }

    /// A pair of GGUF files as llama.cpp's tools write them, decoder and `mmproj` in any order, with
    /// nothing beside them: configuration and tokenizer are in their metadata.
    ///
    /// # Errors
    /// What [`facts`] says about the metadata, the whole report where a tensor is missing or has
    /// another shape, and whatever reading gives.
    pub async fn from_gguf(files: Vec<(String, S)>) -> Result<Self> {
        let checkpoint = Checkpoint::open(files).await?;
        let facts = facts(&checkpoint)?;
        // A folder's other tensors are other models' business; here they say that this is another model.
        let report = LoadReport::compare(&expected(&facts.config), checkpoint.tensors());
        if let Some(name) = report.complete()?.unused.first() {
            return Err(Error::unsupported(format!(
                "tensor {} has no place in a {} model",
                shown(name),
                facts.config.architecture
            )));
        }
        let name = llama_cpp::read::name(checkpoint.metadata());
        Self::assemble(name, facts, checkpoint).await
    }

    /// Hashes weights that are all there, gigabytes of them, and names the whole.
    pub(super) async fn assemble(name: String, facts: ModelFacts, checkpoint: Checkpoint<S>) -> Result<Self> {
        let identity = ModelIdentity {
            name,
            architecture: facts.config.architecture.clone(),
            quantization: checkpoint.common_dtype().to_string(),
            sha256: checkpoint.sha256().await?,
        };
        Ok(Self { identity, facts, checkpoint, golden: Vec::new() })
    }
}

/// The facts that GGUF files carry.
pub(super) fn facts<S: ByteSource>(checkpoint: &Checkpoint<S>) -> Result<ModelFacts> {
    let shape = |name: &str| checkpoint.info(name).map(|info| info.shape.clone());
    llama_cpp::read::facts(checkpoint.metadata(), shape)
}

/// Hashes a whole file and returns its bytes where `keep`.
async fn hash<S: ByteSource>(
    source: &S,
    file: &FileEntry,
    keep: bool,
    mut progress: impl AsyncFnMut(u64) -> Result<()>,
) -> Result<Vec<u8>> {
    if source.len() != file.bytes {
        return Err(Error::integrity(format!(
            "{} has {} bytes, expected {}",
            file.path,
            source.len(),
            file.bytes
        )));
    }
    let mut hasher = Hasher::default();
    let mut whole = Vec::new();
    let mut offset = 0;
    while offset < file.bytes {
        let len = (file.bytes - offset).min(CHUNK as u64) as usize;
        let bytes = source.read(offset, len).await.context(|| file.path.clone())?;
        hasher.update(&bytes);
        if keep {
            whole.extend_from_slice(&bytes);
        }
        offset += len as u64;
        progress(len as u64).await?;
    }
    hasher.verify(file)?;
    Ok(whole)
}
