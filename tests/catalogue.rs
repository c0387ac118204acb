//! `www/models/catalogue.json`: what it says is well-formed, and true where that can be known here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use imatch::engine::Preflight;
use imatch::weights::{Folder, Manifest};
use pollster::block_on;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    format: String,
    version: u32,
    models: Vec<Entry>,
}

/// A public checkpoint. It lies at `address`, or in a publisher's `repository`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    /// `model_type` of its configuration.
    family: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    repository: Option<String>,
    files: Vec<File>,
    /// Of all files; exact where every file's size is known.
    download_bytes: u64,
    /// Of the weights on a GPU.
    device_bytes: u64,
    license: String,
    good_for: String,
    checked: Checked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    bytes: Option<u64>,
    sha256: Option<String>,
}

/// What was compared with the reference: these very weights, or only models of the same architecture.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Checked {
    Weights,
    Architecture,
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models")
}

fn catalogue() -> Catalogue {
    serde_json::from_slice(&fs::read(models().join("catalogue.json")).unwrap()).unwrap()
}

#[test]
fn every_entry_says_what_a_visitor_needs_to_know() {
    let Catalogue { format, version, models } = catalogue();
    assert_eq!((format.as_str(), version), ("imatch-catalogue", 1));
    let mut ids = HashSet::new();
    for Entry {
        id,
        name,
        family,
        address,
        repository,
        files,
        download_bytes,
        device_bytes,
        license,
        good_for,
        ..
    } in &models
    {
        assert!(
            ids.insert(id) && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')),
            "{id}"
        );
        assert!(!name.is_empty() && !license.is_empty() && good_for.ends_with('.'), "{id}");
        assert!(["qwen3_vl", "internvl"].contains(&family.as_str()), "{id}: {family}");
        assert!(address.is_some() != repository.is_some(), "{id} lies here or elsewhere");
        assert!(repository.as_ref().is_none_or(|path| path.split('/').count() == 2), "{id}");
        assert!(!files.is_empty() && files.iter().all(|file| !file.name.contains('/')), "{id}");
        let digests = files.iter().filter_map(|file| file.sha256.as_ref());
        assert!(digests.clone().all(|sha256| sha256.len() == 64), "{id}");
        let known: u64 = files.iter().filter_map(|file| file.bytes).sum();
        let exact = files.iter().all(|file| file.bytes.is_some());
        assert!(known <= *download_bytes && (!exact || known == *download_bytes), "{id}: {known}");
        assert!((1 << 20..1 << 37).contains(device_bytes), "{id}: {device_bytes}");
    }
}

#[test]
fn what_lies_here_is_as_the_catalogue_says() {
    for entry in catalogue().models {
        let Some(address) = entry.address else {
            assert!(
                entry.checked == Checked::Architecture,
                "{}: no published weights were compared",
                entry.id
            );
            continue;
        };
        let manifest = Manifest::parse(&fs::read(models().join(&address)).unwrap()).unwrap();
        assert_eq!(manifest.license.as_deref(), Some(entry.license.as_str()));
        let files: Vec<_> = manifest
            .files
            .iter()
            .map(|file| (file.path.as_str(), Some(file.bytes), Some(file.sha256.as_str())))
            .collect();
        let listed: Vec<_> =
            entry.files.iter().map(|file| (file.name.as_str(), file.bytes, file.sha256.as_deref())).collect();
        assert_eq!(files, listed, "{}", entry.id);
        let folder = Folder::at(models().join(&address).parent().unwrap()).unwrap();
        let preflight = block_on(Preflight::of(&folder)).unwrap();
        assert_eq!(preflight.architecture, entry.family);
        let told = entry.device_bytes as f64 / preflight.device_bytes.gpu as f64;
        assert!((0.9..1.1).contains(&told), "{}: {}", entry.id, preflight.device_bytes.gpu);
    }
}
