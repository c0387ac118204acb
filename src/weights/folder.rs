//! Models on disk: which of the forms a path is, and what lies in it.

use std::path::{Path, PathBuf};

use super::bundle::{Bundle, ModelFacts, facts};
use super::checkpoint::Checkpoint;
use super::files::{folder_name, read_part};
use super::hugging_face::{configurations, settle};
use super::layout::expected;
use super::manifest::{Manifest, Role, verify};
use super::report::LoadReport;
use super::source::FileSource;
use crate::error::{Context, Error, Result};
use crate::score::ScoringOptions;

impl ModelFacts {
    /// Reads the facts of a converted folder (`manifest.json`), a Hugging Face one
    /// (`config.json`), or a pair of GGUF files (their folder, or the decoder's file): no weights.
    ///
    /// # Errors
    /// Where it is none of them, is incomplete or contradicts itself.
    pub async fn open(path: &Path) -> Result<Self> {
        if let Some(pair) = gguf_pair(path)? {
            return facts(&Checkpoint::open(pair).await?).context(|| path.display().to_string());
        }
        if let Some(manifest) = manifest(path)? {
            let file = manifest
                .files_of(Role::Tokenizer)
                .next()
                .ok_or_else(|| Error::model("the manifest lists no tokenizer"))?;
            let tokenizer = read_part(path, &file.path)?;
            verify(&tokenizer, file)?;
            return Self::from_manifest(&manifest, tokenizer);
        }
        hugging_face(path).context(|| path.display().to_string())
    }
}

impl Bundle<FileSource> {
    /// Opens a converted folder (`manifest.json`), a Hugging Face one (`config.json`), or a pair
    /// of GGUF files (their folder, or the decoder's file).
    ///
    /// # Errors
    /// Where it is none of them, is incomplete or contradicts itself.
    pub async fn open(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        if let Some(pair) = gguf_pair(path)? {
            return Self::from_gguf(pair).await.context(place);
        }
        if let Some(manifest) = manifest(path)? {
            return Self::from_manifest(
                &manifest,
                async |file| FileSource::open(path.join(&file.path)),
                async |_, _| Ok(()),
            )
            .await;
        }
        let mut facts = hugging_face(path).context(place)?;
        let checkpoint = Checkpoint::open_folder(path).await.context(place)?;
        settle(&mut facts.config, &checkpoint).context(place)?;
        LoadReport::compare(&expected(&facts.config), checkpoint.tensors()).complete().context(place)?;
        Self::assemble(folder_name(path), facts, checkpoint).await.context(place)
    }
}

/// Decoder and `mmproj` where `path` is a GGUF file, or a folder of such files and nothing that
/// says more; none otherwise.
fn gguf_pair(path: &Path) -> Result<Option<Vec<(String, FileSource)>>> {
    let is_gguf =
        |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_tower = |path: &Path| name(path).to_lowercase().contains("mmproj");
    let is_file = path.is_file() && is_gguf(path);
    let folder = if is_file { path.parent().unwrap_or(Path::new(".")) } else { path };
    if !is_file
        && (!path.is_dir() || ["manifest.json", "config.json"].iter().any(|own| path.join(own).is_file()))
    {
        return Ok(None);
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if is_file && folder.join("manifest.json").is_file() {
        return Err(Error::input(format!(
            "{} belongs to the converted model in {}; name the folder, which has its scoring options",
            path.display(),
            folder.display()
        )));
    }
    if is_file && is_tower(path) {
        return Err(Error::input(format!("{} is a vision tower; name the decoder's file", path.display())));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        files.push(entry.map_err(|error| Error::io(folder, error))?.path());
    }
    files.retain(|file| is_gguf(file));
    files.sort();
    let (towers, mut decoders): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| is_tower(file));
    if is_file {
        decoders = vec![path.to_owned()];
    } else if decoders.is_empty() && towers.is_empty() {
        return Ok(None);
    }
    let ([decoder], [tower]) = (decoders.as_slice(), towers.as_slice()) else {
        let names: Vec<String> = decoders.iter().chain(&towers).map(|file| name(file)).collect();
        return Err(Error::input(format!(
            "{} has {} GGUF files for the decoder and {} with mmproj in their names ({}), expected one of each",
            folder.display(),
            decoders.len(),
            towers.len(),
            names.join(", ")
        )));
    };
    let opened = [decoder, tower].into_iter().map(|file| Ok((name(file), FileSource::open(file)?)));
    opened.collect::<Result<_>>().map(Some)
}

fn manifest(folder: &Path) -> Result<Option<Manifest>> {
    if !folder.join("manifest.json").is_file() {
        return Ok(None);
    }
    let manifest = Manifest::parse(&read_part(folder, "manifest.json")?);
    manifest.map(Some).context(|| folder.join("manifest.json").display().to_string())
}

fn hugging_face(folder: &Path) -> Result<ModelFacts> {
    if !folder.join("config.json").is_file() {
        return Err(Error::input(
            "no model folder, it has neither manifest.json nor config.json nor GGUF files",
        ));
    }
    let config = read_part(folder, "config.json")?;
    let image = read_part(folder, "preprocessor_config.json")?;
    let tokenizer = read_part(folder, "tokenizer.json")?;
    let (config, image) = configurations(&config, &image, &tokenizer)?;
    let scoring = if folder.join("imatch.json").is_file() {
        ScoringOptions::from_json(&read_part(folder, "imatch.json")?).context(|| "imatch.json")?
    } else {
        ScoringOptions::zero_shot()
    };
    Ok(ModelFacts { config, image, tokenizer, scoring })
}
