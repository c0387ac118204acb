//! Models on disk.

use std::path::{Path, PathBuf};

use super::bundle::{Bundle, Headers, ModelFacts, checkpoint};
use super::checkpoint::Checkpoint;
use super::files::folder_name;
use super::form::{Form, MANIFEST, ModelFiles, is_gguf, is_tower, split_part};
use super::source::FileSource;
use crate::error::{Context, Error, Result};

/// A folder with a model in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    names: Vec<String>,
}

impl Folder {
    /// The model at `path`: a folder, or the decoder's GGUF file in a folder where others may lie.
    ///
    /// # Errors
    /// [`crate::error::Kind::Input`] where there is nothing, or a file that names no model.
    pub fn at(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if metadata.is_dir() {
            return Ok(Self { path: path.to_owned(), names: names(path)? });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_gguf(&name) {
            return Err(Error::input(format!("{} is neither a folder nor a GGUF file", path.display())));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if folder.join(MANIFEST).is_file() {
            return Err(Error::input(format!(
                "{} belongs to the converted model in {}; name the folder, which has its scoring options",
                path.display(),
                folder.display()
            )));
        }
        if is_tower(&name) {
            return Err(Error::input(format!(
                "{} is a vision tower; name the decoder's file",
                path.display()
            )));
        }
        let mut names = names(folder)?;
        // Of a split file, its other parts belong to it too.
        let split = |name: &str| split_part(name).map(|(base, _, count)| (base, count));
        let own = split(&name);
        names.retain(|other| {
            is_gguf(other) && (is_tower(other) || *other == name || (own.is_some() && split(other) == own))
        });
        Ok(Self { path: folder.to_owned(), names })
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl ModelFiles for Folder {
    type Source = FileSource;

    fn name(&self) -> String {
        folder_name(&self.path)
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    async fn open(&self, name: &str) -> Result<FileSource> {
        FileSource::open(self.path.join(name))
    }
}

impl ModelFacts {
    /// [`ModelFacts::from_files`] of a [`Folder`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::from_files(&Folder::at(path)?).await.context(|| path.display().to_string())
    }
}

impl Checkpoint<FileSource> {
    /// The weights of a model's folder, whatever its form: nothing but their headers is looked at.
    ///
    /// # Errors
    /// When there are none, a file is missing, or as [`Checkpoint::open`].
    pub async fn open_folder(path: &Path) -> Result<Self> {
        let folder = Folder::at(path)?;
        checkpoint(&Form::of(&folder).await?, &folder).await.context(|| path.display().to_string())
    }
}

impl Headers<FileSource> {
    /// [`Headers::read`] of a [`Folder`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::read(&Folder::at(path)?).await.context(|| path.display().to_string())
    }
}

impl Bundle<FileSource> {
    /// [`Bundle::from_files`] of a [`Folder`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(path: &Path) -> Result<Self> {
        let opened = Self::from_files(&Folder::at(path)?, async |_, _| Ok(())).await;
        opened.context(|| path.display().to_string())
    }
}
