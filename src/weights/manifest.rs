//! `manifest.json`: what a converted model consists of, and how to know it is whole.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::source::ByteSource;
use crate::format::tensor::shown;
use crate::{Error, Result};

/// `format` of every manifest.
pub const FORMAT: &str = "imatch";

/// The one `version` that is read and written.
pub const VERSION: u32 = 1;

/// Longest manifest that is parsed.
const MAX_BYTES: usize = 8 << 20;

/// Longest file that a manifest may promise: 64 GiB.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Most files of a model.
const MAX_FILES: usize = 1000;

/// Bytes that are hashed at a time.
const HASHED_AT_ONCE: u64 = 1 << 20;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Weights of decoder, embedding table and head.
    Text,
    /// Weights of the vision tower.
    Vision,
    /// `tokenizer.json`.
    Tokenizer,
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the manifest, with `/`.
    pub path: String,
    /// What it is for.
    pub role: Role,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A converted model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// What people call the model.
    pub name: String,
    /// `model_type` of the configuration.
    pub architecture: String,
    /// Type of most weights: `f32`, `f16`, `q8_0` or `q4_0`.
    pub quantization: String,
    /// Licence of the weights, as an SPDX expression where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license: Option<String>,
    /// One sentence about the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// The object of `config.json`.
    pub config: Map<String, Value>,
    /// The object of `preprocessor_config.json`.
    pub preprocessor: Map<String, Value>,
    /// Scoring options, the object of `imatch.json`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scoring: Option<Map<String, Value>>,
    /// Weights and tokenizer.
    pub files: Vec<FileEntry>,
    /// Questions with the scores that a correct device gives.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub golden: Vec<Value>,
}

impl Manifest {
    /// Parses `manifest.json`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] for anything malformed, a path outside the folder, a
    /// digest that is none, an absurd length or a path that comes twice;
    /// [`crate::error::Kind::Unsupported`] for another format or version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::model(format!(
                "a manifest of {} bytes, expected at most {MAX_BYTES}",
                bytes.len()
            )));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        let (format, version) = (value.get("format"), value.get("version"));
        if format.and_then(Value::as_str) != Some(FORMAT) {
            return Err(Error::unsupported(format!("format is not \"{FORMAT}\"")));
        }
        if version.and_then(Value::as_u64) != Some(u64::from(VERSION)) {
            return Err(Error::unsupported(format!("version is not {VERSION}")));
        }
        let manifest: Self = serde_json::from_value(value).map_err(malformed)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as it is written to `manifest.json`, ending in a line feed.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when JSON cannot hold it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("the manifest cannot be written").with_source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The files of one role, in order.
    pub fn files_of(&self, role: Role) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(move |file| file.role == role)
    }

    /// The model's own digest: see [`model_sha256`].
    pub fn sha256(&self) -> String {
        model_sha256(self.files.iter().map(|file| (file.path.as_str(), file.sha256.as_str())))
    }

    fn check(&self) -> Result<()> {
        let mut paths = HashSet::new();
        if self.files.len() > MAX_FILES {
            return Err(Error::model(format!("{} files, expected at most {MAX_FILES}", self.files.len())));
        }
        for (index, file) in self.files.iter().enumerate() {
            let path = shown(&file.path);
            if !is_inside(&file.path) {
                return Err(Error::model(format!(
                    "files[{index}].path is {path}, expected a path inside the folder"
                )));
            }
            if !paths.insert(file.path.as_str()) {
                return Err(Error::model(format!("files[{index}].path is {path} for the second time")));
            }
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                return Err(Error::model(format!(
                    "files[{index}].sha256 of {path} is not 64 lower-case hexadecimal digits"
                )));
            }
            if file.bytes > MAX_FILE_BYTES {
                return Err(Error::model(format!("files[{index}].bytes of {path} is {}", file.bytes)));
            }
        }
        match self.files_of(Role::Tokenizer).count() {
            _ if self.files_of(Role::Text).next().is_none() => Err(Error::model("no file of role text")),
            _ if self.files_of(Role::Vision).next().is_none() => Err(Error::model("no file of role vision")),
            1 => Ok(()),
            count => Err(Error::model(format!("{count} files of role tokenizer, expected 1"))),
        }
    }
}

/// SHA-256 of the lines `digest  path` (two spaces, line feed), sorted by path: what
/// `sha256sum` prints for a folder's files, hashed again.
pub fn model_sha256<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut files: Vec<(&str, &str)> = files.into_iter().collect();
    files.sort_unstable();
    let mut hasher = Hasher::default();
    for (path, digest) in files {
        hasher.update(format!("{digest}  {path}\n").as_bytes());
    }
    hasher.finish().1
}

/// A file's digest, taken while its bytes pass by.
#[derive(Debug, Default, Clone)]
pub struct Hasher {
    sha256: Sha256,
    bytes: u64,
}

impl Hasher {
    /// SHA-256 of a whole file in hexadecimal digits; `progress` hears the bytes of each step.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn sha256(
        source: &impl ByteSource,
        mut progress: impl AsyncFnMut(u64) -> Result<()>,
    ) -> Result<String> {
        let mut hasher = Self::default();
        while hasher.bytes < source.len() {
            let len = (source.len() - hasher.bytes).min(HASHED_AT_ONCE);
            hasher.update(&source.read(hasher.bytes, len as usize).await?);
            progress(len).await?;
        }
        Ok(hasher.finish().1)
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes there were, and their SHA-256 in hexadecimal digits.
    pub fn finish(self) -> (u64, String) {
        (self.bytes, format!("{:x}", self.sha256.finalize()))
    }

    /// Compares with what a manifest promises.
    ///
    /// # Errors
    /// As [`FileEntry::check`].
    pub fn verify(self, file: &FileEntry) -> Result<()> {
        let (bytes, sha256) = self.finish();
        file.check(bytes, &sha256)
    }
}

impl FileEntry {
    /// Compares a file's length and SHA-256 with what is promised.
    ///
    /// # Errors
    /// [`crate::error::Kind::Integrity`] names the file and what differs.
    pub fn check(&self, bytes: u64, sha256: &str) -> Result<()> {
        let Self { path, .. } = self;
        if bytes != self.bytes {
            return Err(Error::integrity(format!("{path} has {bytes} bytes, expected {}", self.bytes)));
        }
        if sha256 != self.sha256 {
            return Err(Error::integrity(format!("{path} has SHA-256 {sha256}, expected {}", self.sha256)));
        }
        Ok(())
    }
}

/// Compares a whole file with what its manifest promises.
///
/// # Errors
/// As [`Hasher::verify`].
pub fn verify(bytes: &[u8], file: &FileEntry) -> Result<()> {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.verify(file)
}

/// A relative path of plain parts, which can name nothing outside its folder.
fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= 255
        && path.split('/').all(plain)
        && !path.contains(|c: char| matches!(c, '\\' | ':' | '?' | '#' | '%') || c.is_control())
}

fn malformed(error: serde_json::Error) -> Error {
    Error::model("the manifest is malformed").with_source(error)
}
