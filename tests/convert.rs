//! A Hugging Face folder to GGUF files: every number arrives, and what cannot is refused.

use std::fs;
use std::path::{Path, PathBuf};

use imatch::Result;
use imatch::config::{ImageConfig, ModelConfig};
use imatch::format::quant::{decode_f32, quantise};
use imatch::weights::gguf::{Array, Value};
use imatch::weights::manifest::verify;
use imatch::weights::{
    Checkpoint, ConvertJob, ConvertReport, DType, FileSource, Manifest, Role, convert, layout, names,
    safetensors,
};
use pollster::block_on;

const FOLDERS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

fn converted(model_dir: &Path, quant: DType, out_dir: &Path) -> Result<ConvertReport> {
    let job = ConvertJob { model_dir: model_dir.into(), quant, out_dir: out_dir.into(), adapter: None };
    block_on(convert(job))
}

fn open(folder: &Path, manifest: &Manifest) -> Checkpoint<FileSource> {
    let files = manifest.files.iter().filter(|file| file.role != Role::Tokenizer);
    let files = files.map(|file| (file.path.clone(), FileSource::open(folder.join(&file.path)).unwrap()));
    block_on(Checkpoint::open(files.collect())).unwrap()
}

fn values(checkpoint: &Checkpoint<FileSource>, name: &str) -> Vec<f32> {
    let (info, bytes) = block_on(checkpoint.read(name)).unwrap();
    decode_f32(&info, &bytes).unwrap()
}

fn config(folder: &Path) -> ModelConfig {
    ModelConfig::from_json(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn every_number_of_both_folders_arrives_in_f32() {
    for folder in FOLDERS.map(golden) {
        let out = tempfile::tempdir().unwrap();
        let report = converted(&folder, DType::F32, out.path()).unwrap();
        assert!(report.load.is_complete() && report.fallbacks.is_empty());
        let (from, to) =
            (block_on(Checkpoint::open_folder(&folder)).unwrap(), open(out.path(), &report.manifest));
        for (name, shape) in layout::expected(&config(&folder)) {
            assert_eq!(to.info(&name).unwrap().shape, shape, "{name}");
            assert!(values(&from, &name) == values(&to, &name), "{name}");
        }
        assert_eq!(to.tensors().count(), layout::expected(&config(&folder)).len());
    }
}

#[test]
fn quantised_files_hold_what_the_quantiser_makes_of_each_tensor() {
    for (quant, folder) in [DType::F16, DType::Q8_0, DType::Q4_0].into_iter().zip(FOLDERS.iter().cycle()) {
        let (folder, out) = (golden(folder), tempfile::tempdir().unwrap());
        let report = converted(&folder, quant, out.path()).unwrap();
        let (from, to) =
            (block_on(Checkpoint::open_folder(&folder)).unwrap(), open(out.path(), &report.manifest));
        for (name, shape) in layout::expected(&config(&folder)) {
            let stored = to.info(&name).unwrap().dtype;
            let expected = match name.as_str() {
                names::POSITION_TABLE => DType::F32,
                names::PATCH_EMBEDDING => DType::F16,
                _ => quant.storable(&shape),
            };
            assert_eq!(stored, expected, "{name}");
            assert_eq!(
                report.fallbacks.contains(&name),
                shape.len() == 2 && stored != quant && stored == DType::F16
            );
            let original = values(&from, &name);
            let (info, bytes) = block_on(to.read(&name)).unwrap();
            assert!(bytes == quantise(&original, &info.shape, info.dtype).unwrap(), "{name}");
        }
    }
}

#[test]
fn the_manifest_describes_what_lies_beside_it() {
    let (folder, out) = (golden("qwen3_vl_tied"), tempfile::tempdir().unwrap());
    let report = converted(&folder, DType::Q8_0, out.path()).unwrap();
    let manifest = Manifest::parse(&fs::read(out.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest, report.manifest);
    for file in &manifest.files {
        verify(&fs::read(out.path().join(&file.path)).unwrap(), file).unwrap();
    }
    let paths: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["model-q8_0.gguf", "mmproj-q8_0.gguf", "tokenizer.json"]);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 4);
    assert_eq!((manifest.name.as_str(), manifest.quantization.as_str()), ("qwen3_vl_tied", "q8_0"));
    let again = ModelConfig::from_json(&serde_json::to_vec(&manifest.config).unwrap()).unwrap();
    assert_eq!(again, config(&folder));
    let image = fs::read(folder.join("preprocessor_config.json")).unwrap();
    let image = ImageConfig::from_json(&image, &again).unwrap();
    assert_eq!(
        ImageConfig::from_json(&serde_json::to_vec(&manifest.preprocessor).unwrap(), &again).unwrap(),
        image
    );
    let scoring: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("imatch.json")).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&manifest.scoring).unwrap(), scoring);
    assert_eq!(
        converted(&folder, DType::Q8_0, out.path()).unwrap().manifest,
        manifest,
        "converting is repeatable"
    );
}

#[test]
fn other_tools_find_the_metadata_they_look_for() {
    let (folder, out) = (golden("qwen3_vl_tied"), tempfile::tempdir().unwrap());
    let report = converted(&folder, DType::F16, out.path()).unwrap();
    let config = config(&folder);
    let checkpoint = open(out.path(), &report.manifest);
    let [(_, text), (_, vision)] = checkpoint.metadata() else { panic!("two files") };
    assert_eq!(text["general.architecture"].as_str(), Some("qwen3vl"));
    assert_eq!(text["qwen3vl.block_count"].as_u64(), Some(config.text.num_hidden_layers as u64));
    let mut sections = config.text.mrope_section.map(|size| size as i32).to_vec();
    sections.push(0);
    assert_eq!(text["qwen3vl.rope.dimension_sections"], Value::Array(Array::I32(sections)));
    let levels = config.vision.deepstack_visual_indexes.len();
    assert_eq!(text["qwen3vl.n_deepstack_layers"].as_u64(), Some(levels as u64));
    assert_eq!(vision["general.architecture"].as_str(), Some("clip"));
    assert_eq!(vision["clip.projector_type"].as_str(), Some("qwen3vl_merger"));
    let flags = vision["clip.vision.is_deepstack_layers"].as_bools().unwrap();
    assert_eq!(flags.len(), config.vision.depth);
    assert!(config.vision.deepstack_visual_indexes.iter().all(|tap| flags[*tap]));
    let Value::Array(Array::String(tokens)) = &text["tokenizer.ggml.tokens"] else { panic!("tokens") };
    assert_eq!(tokens.len(), config.text.vocab_size);
    assert_eq!(tokens[config.tokens.image as usize], "<|image_pad|>");
    let Value::Array(Array::I32(kinds)) = &text["tokenizer.ggml.token_type"] else { panic!("types") };
    assert_eq!((kinds.len(), kinds[config.tokens.image as usize]), (tokens.len(), 3));
}

/// A copy of a golden folder to damage.
fn copy(folder: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(golden(folder)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

fn refused(folder: &Path) -> String {
    let out = tempfile::tempdir().unwrap();
    let error = converted(folder, DType::Q8_0, out.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "nothing is left behind: {error}");
    error.to_string()
}

#[test]
fn a_folder_is_never_converted_into_itself() {
    let folder = copy("qwen3_vl_tied");
    let roundabout = folder.path().join("sub").join("..");
    fs::create_dir(folder.path().join("sub")).unwrap();
    for out in [folder.path(), &roundabout] {
        let error = converted(folder.path(), DType::F32, out).unwrap_err();
        assert_eq!(error.code(), "invalid_input");
    }
    assert!(!folder.path().join("manifest.json").exists());
}

#[test]
fn incomplete_and_contradictory_folders_are_refused_by_name() {
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"] {
        let folder = copy("qwen3_vl_tied");
        fs::remove_file(folder.path().join(file)).unwrap();
        assert!(refused(folder.path()).contains(file), "{file}");
    }
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "imatch.json"] {
        let folder = copy("qwen3_vl_tied");
        fs::write(folder.path().join(file), "{").unwrap();
        assert!(refused(folder.path()).contains(file), "{file}");
    }
    let folder = copy("qwen3_vl_untied");
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(refused(folder.path()).contains("model-00002-of-00002.safetensors"));
    let folder = copy("qwen3_vl_tied");
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let untied = text.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    fs::write(folder.path().join("config.json"), untied).unwrap();
    assert!(refused(folder.path()).contains("1 missing (lm_head.weight"));
    let deeper = text.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
    assert_ne!(deeper, text);
    fs::write(folder.path().join("config.json"), deeper).unwrap();
    assert!(refused(folder.path()).contains("11 missing (language_model.layers.4."));
}

#[test]
fn a_value_that_is_not_finite_stops_the_conversion_and_leaves_nothing() {
    let folder = copy("qwen3_vl_tied");
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let checkpoint = block_on(Checkpoint::open_folder(folder.path())).unwrap();
    let info = checkpoint.info("language_model.layers.1.mlp.up_proj.weight").unwrap().clone();
    assert_eq!(info.dtype, DType::F16);
    bytes[info.offset as usize + 1] = 0x7e;
    fs::write(&path, bytes).unwrap();
    let error = refused(folder.path());
    assert!(
        error.contains("language_model.layers.1.mlp.up_proj.weight") && error.contains("not finite"),
        "{error}"
    );
}

#[test]
fn what_is_written_as_safetensors_is_a_folder_like_any_other() {
    let folder = copy("qwen3_vl_tied");
    let config = config(folder.path());
    let checkpoint = block_on(Checkpoint::open_folder(folder.path())).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = layout::expected(&config)
        .into_iter()
        .map(|(name, shape)| {
            let shape = layout::hf_shape(&name, &shape, &config.vision);
            (names::to_hf(&name), shape, values(&checkpoint, &name))
        })
        .collect();
    let written =
        tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice()));
    let bytes = safetensors::write_f32(written).unwrap();
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let again = block_on(Checkpoint::open_folder(folder.path())).unwrap();
    for ((name, shape), (_, _, before)) in layout::expected(&config).into_iter().zip(&tensors) {
        assert_eq!(again.info(&name).unwrap().shape, shape);
        assert!(values(&again, &name) == *before, "{name}");
    }
}
