//! Everything a model consists of, wherever it lies: configuration, tokenizer, options, weights.
//!
//! ```text
//! ModelFiles ── Form::of ──> Form ── Headers::read ──> Headers ── hashed ──> Bundle
//! ```

use super::checkpoint::Checkpoint;
use super::form::{CONFIG, Form, INDEX, ModelFiles, PREPROCESSOR, SAFETENSORS, SCORING, TOKENIZER, whole};
use super::hugging_face::{configurations, settle};
use super::layout::expected;
use super::llama_cpp;
use super::manifest::{Hasher, Manifest, Role, model_sha256};
use super::report::LoadReport;
use super::source::ByteSource;
use crate::config::{ImageConfig, ModelConfig};
use crate::error::{Context, Error, Result};
use crate::format::tensor::shown;
use crate::score::{ModelIdentity, ScoringOptions};

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
    /// The facts among a model's files; of GGUF files the headers are read, of others no weights at all.
    ///
    /// # Errors
    /// Where the files are no model, are incomplete or contradict one another.
    pub async fn from_files(files: &impl ModelFiles) -> Result<Self> {
        match Form::of(files).await? {
            Form::Converted(manifest) => Self::converted(&manifest, files).await,
            Form::HuggingFace { scoring, .. } => Self::hugging_face(files, scoring).await,
            form @ Form::Gguf { .. } => gguf_facts(&checkpoint(&form, files).await?),
        }
    }

    async fn converted(manifest: &Manifest, files: &impl ModelFiles) -> Result<Self> {
        let json = |object: &serde_json::Map<String, serde_json::Value>| {
            serde_json::to_vec(object)
                .map_err(|error| Error::internal("JSON of a manifest").with_source(error))
        };
        let file = manifest
            .files_of(Role::Tokenizer)
            .next()
            .ok_or_else(|| Error::model("the manifest lists no tokenizer"))?;
        let tokenizer = whole(files, &file.path).await?;
        super::manifest::verify(&tokenizer, file)?;
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

    async fn hugging_face(files: &impl ModelFiles, scoring: bool) -> Result<Self> {
        let tokenizer = whole(files, TOKENIZER).await?;
        let (config, image) =
            configurations(&whole(files, CONFIG).await?, &whole(files, PREPROCESSOR).await?, &tokenizer)?;
        let scoring = if scoring {
            ScoringOptions::from_json(&whole(files, SCORING).await?).context(|| SCORING)?
        } else {
            ScoringOptions::of_checkpoint(&files.name(), chat_template(files).await?.as_deref())?
        };
        Ok(Self { config, image, tokenizer, scoring })
    }
}

/// The chat template of a Hugging Face folder, in whatever file it is; it only tells checkpoints that think.
async fn chat_template(files: &impl ModelFiles) -> Result<Option<String>> {
    for name in ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"] {
        if files.names().iter().any(|other| other == name) {
            let bytes = whole(files, name).await?;
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}

/// A model of which the headers are read: everything but the values of its weights.
#[derive(Debug)]
pub struct Headers<S> {
    /// What it is made of.
    pub form: Form,
    /// What people call it.
    pub name: String,
    /// Licence of the weights where the files name one.
    pub license: Option<String>,
    /// Everything but the weights.
    pub facts: ModelFacts,
    /// The weights, compared with the configuration.
    pub checkpoint: Checkpoint<S>,
}

impl<S: ByteSource> Headers<S> {
    /// Reads the headers of a model's files.
    ///
    /// # Errors
    /// Where the files are no model, are incomplete or contradict one another, and the whole report
    /// where a tensor is missing or has another shape.
    pub async fn read(files: &impl ModelFiles<Source = S>) -> Result<Self> {
        Self::of(Form::of(files).await?, files).await
    }

    async fn of(form: Form, files: &impl ModelFiles<Source = S>) -> Result<Self> {
        let checkpoint = checkpoint(&form, files).await?;
        let (name, license, facts) = match &form {
            Form::Converted(manifest) => {
                let facts = ModelFacts::converted(manifest, files).await?;
                (manifest.name.clone(), manifest.license.clone(), facts)
            }
            Form::HuggingFace { scoring, .. } => {
                let mut facts = ModelFacts::hugging_face(files, *scoring).await?;
                settle(&mut facts.config, &checkpoint)?;
                (files.name(), None, facts)
            }
            Form::Gguf { .. } => {
                let (name, license) = llama_cpp::read::provenance(checkpoint.metadata());
                (name.unwrap_or_else(|| files.name()), license, gguf_facts(&checkpoint)?)
            }
        };
        let report = LoadReport::compare(&expected(&facts.config), checkpoint.tensors()).complete()?;
        // A folder's other tensors are other models' business; in GGUF files they say that this is another model.
        if let (Form::Gguf { .. }, Some(name)) = (&form, report.unused.first()) {
            return Err(Error::unsupported(format!(
                "tensor {} has no place in a {} model",
                shown(name),
                facts.config.architecture
            )));
        }
        Ok(Self { form, name, license, facts, checkpoint })
    }

    /// What most weights are stored as.
    pub fn quantization(&self) -> String {
        match &self.form {
            Form::Converted(manifest) => manifest.quantization.clone(),
            _ => self.checkpoint.common_dtype().to_string(),
        }
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
    /// Opens a model; `progress` hears the bytes hashed and in all, where any have to be.
    ///
    /// Every byte that a manifest promises is compared with its digest before any is used. Without a
    /// manifest the digest says which weights gave a score, and is taken once the headers fit.
    ///
    /// # Errors
    /// [`crate::error::Kind::Integrity`] where a file is not the one promised, and as [`Headers::read`].
    pub async fn from_files(
        files: &impl ModelFiles<Source = S>,
        mut progress: impl AsyncFnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let form = Form::of(files).await?;
        let promised = match &form {
            Form::Converted(manifest) => {
                let names = manifest.files.iter().map(|file| file.path.clone()).collect();
                let digests = digests(files, names, &mut progress).await?;
                for (file, (_, bytes, sha256)) in manifest.files.iter().zip(&digests) {
                    file.check(*bytes, sha256)?;
                }
                Some((manifest.sha256(), manifest.golden.clone()))
            }
            _ => None,
        };
        let headers = Headers::of(form, files).await?;
        let (sha256, golden) = if let Some(promised) = promised {
            promised
        } else {
            let digests = digests(files, headers.form.weights(), &mut progress).await?;
            let lines = digests.iter().map(|(name, _, sha256)| (name.as_str(), sha256.as_str()));
            (model_sha256(lines), Vec::new())
        };
        let identity = ModelIdentity {
            quantization: headers.quantization(),
            name: headers.name,
            architecture: headers.facts.config.architecture.clone(),
            sha256,
        };
        Ok(Self { identity, facts: headers.facts, checkpoint: headers.checkpoint, golden })
    }
}

pub(super) async fn checkpoint<S: ByteSource>(
    form: &Form,
    files: &impl ModelFiles<Source = S>,
) -> Result<Checkpoint<S>> {
    let mut weights = Vec::new();
    if form.weights().is_empty() {
        return Err(Error::input(format!("{CONFIG} is there, but neither {SAFETENSORS} nor {INDEX}")));
    }
    for name in form.weights() {
        weights.push((name.clone(), files.open(&name).await?));
    }
    Checkpoint::open(weights).await
}

/// The facts that GGUF files carry.
fn gguf_facts<S: ByteSource>(checkpoint: &Checkpoint<S>) -> Result<ModelFacts> {
    let shape = |name: &str| checkpoint.info(name).map(|info| info.shape.clone());
    llama_cpp::read::facts(checkpoint.metadata(), shape)
}

/// Name, length and SHA-256 of each file, hashing those that were not hashed when they arrived.
async fn digests(
    files: &impl ModelFiles,
    names: Vec<String>,
    progress: &mut impl AsyncFnMut(u64, u64) -> Result<()>,
) -> Result<Vec<(String, u64, String)>> {
    let mut sources = Vec::with_capacity(names.len());
    for name in names {
        let source = files.open(&name).await?;
        sources.push((name, source));
    }
    let unknown = sources.iter().filter(|(name, _)| files.sha256(name).is_none());
    let total: u64 = unknown.map(|(_, source)| source.len()).sum();
    let mut done = 0;
    let mut digests = Vec::with_capacity(sources.len());
    for (name, source) in sources {
        let size = source.len();
        if let Some(sha256) = files.sha256(&name) {
            digests.push((name.clone(), size, sha256.to_owned()));
            continue;
        }
        let sha256 = Hasher::sha256(&source, async |bytes| {
            done += bytes;
            progress(done, total).await
        });
        let sha256 = sha256.await.context(|| name.clone())?;
        digests.push((name, size, sha256));
    }
    Ok(digests)
}
