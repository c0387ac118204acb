//! Everything a model consists of, wherever it lies: configuration, tokenizer, options, weights.

use super::checkpoint::Checkpoint;
use super::manifest::{FileEntry, Hasher, Manifest, Role};
use super::source::ByteSource;
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

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::path::Path;

    use super::{
        Bundle, Checkpoint, Context, Error, ImageConfig, Manifest, ModelConfig, ModelFacts, ModelIdentity,
        Result, Role, ScoringOptions,
    };
    use crate::weights::convert::{folder_name, read};
    use crate::weights::layout::expected;
    use crate::weights::report::LoadReport;
    use crate::weights::source::FileSource;

    impl ModelFacts {
        /// Reads the facts of a converted folder (`manifest.json`) or a Hugging Face one
        /// (`config.json`), no weights.
        ///
        /// # Errors
        /// Where the folder is neither, is incomplete or contradicts itself.
        pub fn open_folder(folder: &Path) -> Result<Self> {
            if let Some(manifest) = manifest(folder)? {
                let file = manifest
                    .files_of(Role::Tokenizer)
                    .next()
                    .ok_or_else(|| Error::model("the manifest lists no tokenizer"))?;
                let tokenizer = read(folder, &file.path)?;
                crate::weights::manifest::verify(&tokenizer, file)?;
                return Self::from_manifest(&manifest, tokenizer);
            }
            hugging_face(folder).context(|| folder.display().to_string())
        }
    }

    impl Bundle<FileSource> {
        /// Opens a converted folder (`manifest.json`) or a Hugging Face one (`config.json`).
        ///
        /// # Errors
        /// Where the folder is neither, is incomplete or contradicts itself.
        pub async fn open_folder(folder: &Path) -> Result<Self> {
            if let Some(manifest) = manifest(folder)? {
                return Self::from_manifest(
                    &manifest,
                    async |file| FileSource::open(folder.join(&file.path)),
                    async |_, _| Ok(()),
                )
                .await;
            }
            let place = || folder.display().to_string();
            let facts = hugging_face(folder).context(place)?;
            let checkpoint = Checkpoint::open_folder(folder).await.context(place)?;
            // Before gigabytes are hashed.
            LoadReport::compare(&expected(&facts.config), checkpoint.tensors()).complete().context(place)?;
            let identity = ModelIdentity {
                name: folder_name(folder),
                architecture: facts.config.architecture.clone(),
                quantization: checkpoint.common_dtype().to_string(),
                sha256: checkpoint.sha256().await?,
            };
            Ok(Self { identity, facts, checkpoint, golden: Vec::new() })
        }
    }

    fn manifest(folder: &Path) -> Result<Option<Manifest>> {
        if !folder.join("manifest.json").is_file() {
            return Ok(None);
        }
        let manifest = Manifest::parse(&read(folder, "manifest.json")?);
        manifest.map(Some).context(|| folder.join("manifest.json").display().to_string())
    }

    fn hugging_face(folder: &Path) -> Result<ModelFacts> {
        if !folder.join("config.json").is_file() {
            return Err(Error::input("no model folder, it has neither manifest.json nor config.json"));
        }
        let config = ModelConfig::from_json(&read(folder, "config.json")?).context(|| "config.json")?;
        let image = ImageConfig::from_json(&read(folder, "preprocessor_config.json")?, &config)
            .context(|| "preprocessor_config.json")?;
        let tokenizer = read(folder, "tokenizer.json")?;
        let scoring = if folder.join("imatch.json").is_file() {
            ScoringOptions::from_json(&read(folder, "imatch.json")?).context(|| "imatch.json")?
        } else {
            ScoringOptions::zero_shot()
        };
        Ok(ModelFacts { config, image, tokenizer, scoring })
    }
}
