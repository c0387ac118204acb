//! Models by the names of their files: on disk, in memory, split, hashed once.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use imatch::error::{Kind, Result};
use imatch::weights::gguf::{self, Value};
use imatch::weights::gguf_write::Writer;
use imatch::weights::{Bundle, DType, Headers, MemorySource, ModelFiles};
use pollster::block_on;
use tempfile::TempDir;

use super::common::golden;
use super::gguf_pair::converted;

const FOLDERS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// Files in memory, as a page has them.
struct Dropped {
    names: Vec<String>,
    files: Vec<Vec<u8>>,
    sha256: Option<String>,
}

impl Dropped {
    fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let (names, files) = files.into_iter().unzip();
        Self { names, files, sha256: None }
    }
}

impl ModelFiles for Dropped {
    type Source = MemorySource;

    fn name(&self) -> String {
        "dropped".into()
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    async fn open(&self, name: &str) -> Result<MemorySource> {
        let index = self.names.iter().position(|other| other == name).unwrap();
        Ok(MemorySource(self.files[index].clone()))
    }

    fn sha256(&self, _name: &str) -> Option<&str> {
        self.sha256.as_deref()
    }
}

/// A folder's files.
fn dropped(folder: &Path) -> Dropped {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    Dropped::new(files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())))
}

fn opened(files: &Dropped) -> Result<Bundle<MemorySource>> {
    block_on(Bundle::from_files(files, async |_, _| Ok(())))
}

#[test]
fn the_pair_may_come_in_any_order_and_from_memory() {
    let (_, pair) = converted(&golden(FOLDERS[1]), DType::F16);
    let mut files = dropped(pair.path());
    let forward = opened(&files).unwrap();
    files.names.reverse();
    files.files.reverse();
    let backward = opened(&files).unwrap();
    assert_eq!(forward.facts.config, backward.facts.config);
    assert_eq!(forward.identity, backward.identity);
    assert!(!forward.facts.config.text.tie_word_embeddings, "it has a head of its own");
}

#[test]
fn every_form_is_told_by_the_names_of_its_files_and_none_but_those_is_hashed_twice() {
    let source = golden(FOLDERS[0]);
    let (whole, pair) = converted(&source, DType::F16);
    for (folder, form, hashed) in [
        (whole.path(), "converted", "all"),
        (pair.path(), "gguf", "all"),
        (&source, "hugging_face", "weights"),
    ] {
        let mut files = dropped(folder);
        let headers = block_on(Headers::read(&files)).unwrap();
        assert_eq!(headers.form.code(), form);
        let total = Cell::new(0);
        let bundle = block_on(Bundle::from_files(&files, async |_, bytes| {
            total.set(bytes);
            Ok(())
        }));
        let sizes: Vec<(bool, u64)> = files
            .names
            .iter()
            .zip(&files.files)
            .filter(|(name, _)| *name != "manifest.json")
            .map(|(name, bytes)| (name.contains("gguf") || name.contains("safetensors"), bytes.len() as u64))
            .collect();
        let expected = sizes.iter().filter(|(weights, _)| hashed == "all" || *weights).map(|(_, size)| size);
        assert_eq!(total.get(), expected.sum::<u64>(), "{form}");
        let sha256 = block_on(Bundle::open(folder)).unwrap().identity.sha256;
        assert_eq!(bundle.unwrap().identity.sha256, sha256, "{form}");
        files.sha256 = Some("0".repeat(64));
        total.set(0);
        let trusted = block_on(Bundle::from_files(&files, async |_, bytes| {
            total.set(bytes);
            Ok(())
        }));
        assert_eq!(total.get(), 0, "{form}");
        match trusted {
            Err(error) => assert_eq!((form, error.kind()), ("converted", Kind::Integrity)),
            Ok(_) => assert_ne!(form, "converted"),
        }
    }
}

#[test]
fn a_configuration_beside_a_pair_does_not_make_it_a_folder() {
    let (_, pair) = converted(&golden(FOLDERS[0]), DType::F16);
    let alone = opened(&dropped(pair.path())).unwrap();
    fs::copy(golden(FOLDERS[0]).join("config.json"), pair.path().join("config.json")).unwrap();
    let files = dropped(pair.path());
    assert_eq!(block_on(Headers::read(&files)).unwrap().form.code(), "gguf");
    assert_eq!(opened(&files).unwrap().identity, alone.identity);
}

#[test]
fn a_split_decoder_is_one_model_and_only_when_it_is_whole() {
    let (_, pair) = converted(&golden(FOLDERS[0]), DType::F16);
    let mut files = dropped(pair.path());
    let decoder = files.names.iter().position(|name| !name.contains("mmproj")).unwrap();
    let bytes = files.files[decoder].clone();
    let header = block_on(gguf::read_header(&MemorySource(bytes.clone()))).unwrap();
    let metadata: Vec<(String, Value)> = header.metadata.into_iter().collect();
    let parts = header.tensors.split_at(header.tensors.len() / 2);
    files.names.remove(decoder);
    files.files.remove(decoder);
    for (number, tensors) in [(1, parts.0), (2, parts.1)] {
        let metadata = if number == 1 { metadata.as_slice() } else { &[] };
        let mut writer = Writer::start(Vec::new(), metadata, tensors).unwrap();
        for tensor in tensors {
            let (start, len) = (tensor.offset as usize, tensor.len as usize);
            writer.write(&bytes[start..start + len]).unwrap();
        }
        files.names.push(format!("m-0000{number}-of-00002.gguf"));
        files.files.push(writer.finish().unwrap());
    }
    let bundle = opened(&files).unwrap();
    assert_eq!(
        bundle.checkpoint.tensors().count(),
        block_on(Bundle::open(pair.path())).unwrap().checkpoint.tensors().count()
    );
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files.names.iter().zip(&files.files) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let by_file = block_on(Bundle::open(&folder.path().join("m-00001-of-00002.gguf"))).unwrap();
    assert_eq!(by_file.identity.sha256, bundle.identity.sha256);
    files.names.pop();
    files.files.pop();
    let error = opened(&files).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("part 2 of 2 of m is missing"), "{error}");
}
