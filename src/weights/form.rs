//! The files of one model, and which form they have by their names.
//!
//! | form | told by | made of |
//! |---|---|---|
//! | converted | `manifest.json` | what the manifest lists |
//! | Hugging Face | `config.json` | `preprocessor_config.json`, `tokenizer.json`, `imatch.json` where there is one, and `model.safetensors` or the shards of its index |
//! | GGUF | neither, and `*.gguf` | one file, or one split file, without `mmproj` in its name and one with it |

use super::manifest::{Manifest, Role};
use super::safetensors::shard_names;
use super::source::ByteSource;
use crate::error::{Context, Error, Result};
use crate::format::tensor::shown;

/// Longest part of a model that is read whole, in bytes; a tokenizer of 250,000 tokens has 20 MB.
pub(super) const MAX_WHOLE: u64 = 256 << 20;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const PREPROCESSOR: &str = "preprocessor_config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const SCORING: &str = "imatch.json";
pub(super) const SAFETENSORS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The files of one model, wherever they lie: a folder, files dropped on a page, a browser's store.
#[allow(async_fn_in_trait)]
pub trait ModelFiles {
    /// Where a file's bytes come from.
    type Source: ByteSource;

    /// What the model is called where its files do not say.
    fn name(&self) -> String;

    /// Names of the files, in any order.
    fn names(&self) -> &[String];

    /// A file by its name.
    ///
    /// # Errors
    /// When there is no such file or it cannot be read.
    async fn open(&self, name: &str) -> Result<Self::Source>;

    /// SHA-256 of a file that was hashed when it arrived, in hexadecimal digits.
    fn sha256(&self, name: &str) -> Option<&str> {
        let _ = name;
        None
    }
}

/// A form that models come in.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Converted by imatch.
    Converted(Box<Manifest>),
    /// As llama.cpp's tools write it.
    Gguf {
        /// The decoder's file, or its parts in their order.
        decoder: Vec<String>,
        /// The `mmproj` file.
        tower: String,
    },
    /// As transformers writes it.
    HuggingFace {
        /// The safetensors files; none where neither they nor their index are there, which is enough
        /// for everything but the weights.
        shards: Vec<String>,
        /// Whether scoring options lie beside them.
        scoring: bool,
    },
}

impl Form {
    /// Finds out which form `files` have; reads a manifest or an index of shards for it, no weights.
    ///
    /// # Errors
    /// [`crate::error::Kind::Input`] where they have none or are several models.
    pub async fn of(files: &impl ModelFiles) -> Result<Self> {
        let has = |name: &str| files.names().iter().any(|other| other == name);
        if has(MANIFEST) {
            let manifest = Manifest::parse(&whole(files, MANIFEST).await?).context(|| MANIFEST)?;
            return Ok(Self::Converted(Box::new(manifest)));
        }
        let has_safetensors = has(INDEX) || has(SAFETENSORS);
        // Repositories of GGUF files often have the original's configuration beside them.
        if !has(CONFIG) || (!has_safetensors && files.names().iter().any(|name| is_gguf(name))) {
            return gguf(files.names());
        }
        let shards = if has(INDEX) {
            shard_names(&whole(files, INDEX).await?).context(|| INDEX)?
        } else if has(SAFETENSORS) {
            vec![SAFETENSORS.to_owned()]
        } else {
            Vec::new()
        };
        Ok(Self::HuggingFace { shards, scoring: has(SCORING) })
    }

    /// The stable name of the form.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Converted(_) => "converted",
            Self::Gguf { .. } => "gguf",
            Self::HuggingFace { .. } => "hugging_face",
        }
    }

    /// The files that hold weights.
    pub fn weights(&self) -> Vec<String> {
        match self {
            Self::Converted(manifest) => {
                let weights = manifest.files.iter().filter(|file| file.role != Role::Tokenizer);
                weights.map(|file| file.path.clone()).collect()
            }
            Self::Gguf { decoder, tower } => decoder.iter().chain([tower]).cloned().collect(),
            Self::HuggingFace { shards, .. } => shards.clone(),
        }
    }
}

/// A file of at most [`MAX_WHOLE`] bytes.
///
/// # Errors
/// When it is longer, missing or cannot be read.
pub(super) async fn whole(files: &impl ModelFiles, name: &str) -> Result<Vec<u8>> {
    let source = files.open(name).await?;
    let len = source.len();
    if len > MAX_WHOLE {
        return Err(Error::model(format!("{name} has {len} bytes, expected at most {MAX_WHOLE}")));
    }
    source.read(0, len as usize).await.context(|| name.to_owned())
}

/// Whether a file's name says that it is GGUF.
pub(super) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file's name says that it is a vision tower, as llama.cpp's tools name them.
pub(super) fn is_tower(name: &str) -> bool {
    name.to_ascii_lowercase().contains("mmproj")
}

fn gguf(names: &[String]) -> Result<Form> {
    let mut files: Vec<String> = names.iter().filter(|name| is_gguf(name)).cloned().collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!("no model: neither {MANIFEST} nor {CONFIG} nor GGUF files")));
    }
    let (towers, decoders): (Vec<String>, Vec<String>) = files.into_iter().partition(|file| is_tower(file));
    let listed = |files: &[String]| match files {
        [] => "none".to_owned(),
        files => files.iter().map(|file| shown(file)).collect::<Vec<_>>().join(", "),
    };
    let [tower] = towers.as_slice() else {
        return Err(Error::input(format!(
            "GGUF files with mmproj in their names (vision towers): {}; expected one",
            listed(&towers)
        )));
    };
    if !whole_split(&decoders)? && decoders.len() != 1 {
        return Err(Error::input(format!(
            "GGUF files without mmproj in their names (decoders): {}; expected one",
            listed(&decoders)
        )));
    }
    Ok(Form::Gguf { decoder: decoders, tower: tower.clone() })
}

/// Base, number and count of a part of a split file.
pub(super) fn split_part(name: &str) -> Option<(String, usize, usize)> {
    let (rest, count) = name.get(..name.len().checked_sub(".gguf".len())?)?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    Some((base.to_owned(), number.parse().ok()?, count.parse().ok()?))
}

/// Whether files are the parts of one file, `NAME-00001-of-00003.gguf` and so on (llama.cpp's
/// `llama_split_path`).
///
/// # Errors
/// Where they are, and one is missing.
fn whole_split(files: &[String]) -> Result<bool> {
    let parts: Option<Vec<_>> = files.iter().map(|file| split_part(file)).collect();
    let Some([(base, _, count), ..]) = parts.as_deref() else { return Ok(false) };
    let parts = parts.as_deref().unwrap_or_default();
    if parts.iter().any(|(other, _, of)| (other, of) != (base, count)) {
        return Ok(false);
    }
    match (1..=*count).find(|number| !parts.iter().any(|(_, own, _)| own == number)) {
        Some(missing) => {
            Err(Error::input(format!("part {missing} of {count} of {} is missing", shown(base))))
        }
        None => Ok(parts.len() == *count),
    }
}
