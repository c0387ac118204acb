//! `InternVL`'s files: both layouts of weights, conversion, what is refused.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use imatch::config::{Family, ModelConfig};
use imatch::engine::{Engine, Place};
use imatch::error::{Kind, Result};
use imatch::format::quant::decode_f32;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::score::ScoreResult;
use imatch::text::{OverallKind, Request};
use imatch::train::Learner;
use imatch::weights::names::{self, Part, Place as TensorPlace};
use imatch::weights::{
    Adapter, Bundle, Checkpoint, ConvertJob, ConvertReport, DType, FileSource, MemorySource, ModelFacts,
    convert, layout, safetensors,
};
use pollster::block_on;
use serde_json::json;
use tempfile::TempDir;

use crate::common::{arrays, golden};
use crate::internvl_config::{json_of, read, read_image, with};

const FOLDERS: [&str; 3] = ["internvl_qwen2", "internvl_qwen2_original", "internvl_qwen3"];

fn facts(path: &Path) -> ModelFacts {
    block_on(ModelFacts::open(path)).unwrap()
}

fn bundle(path: &Path) -> Bundle<FileSource> {
    block_on(Bundle::open(path)).unwrap()
}

fn values(checkpoint: &Checkpoint<FileSource>, name: &str) -> Vec<f32> {
    let (info, bytes) = block_on(checkpoint.read(name)).unwrap();
    decode_f32(&info, &bytes).unwrap()
}

fn scores(path: &Path) -> ScoreResult {
    let mut bundle = bundle(path);
    bundle.facts.scoring = bundle.facts.scoring.with_overall(OverallKind::YesNo);
    let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
    let bytes = fs::read(golden("qwen3_vl_cases/wide.png")).unwrap();
    let picture = decode(&bytes, &DecodeLimits::default()).unwrap();
    let elements = ["red cube (object)".to_owned(), "12 balls (counting)".to_owned()];
    let request = Request::new("A café sign, it's NIGHT", &elements, None).unwrap();
    let mut session = block_on(engine.open(&picture, &())).unwrap();
    block_on(session.score(&request, &())).unwrap()
}

#[track_caller]
fn assert_equal_scores(got: &ScoreResult, want: &ScoreResult) {
    assert_eq!(got.overall.score.to_bits(), want.overall.score.to_bits());
    for (got, want) in got.elements.iter().zip(&want.elements) {
        assert_eq!(got.score.to_bits(), want.score.to_bits(), "{}", got.element);
    }
    assert_eq!(got.model.architecture, "internvl");
}

#[test]
fn what_a_model_writes_it_reads_back() {
    for folder in FOLDERS {
        let facts = facts(&golden(folder));
        let config = read(&facts.config.to_json()).unwrap();
        assert_eq!(config, ModelConfig { tiles: None, ..facts.config }, "{folder}");
        assert_eq!(read_image(&facts.image.to_json(), &config).unwrap(), facts.image, "{folder}");
    }
}

#[test]
fn both_layouts_are_the_same_model() {
    let [hf, original] = ["internvl_qwen2", "internvl_qwen2_original"].map(golden);
    let (hf_bundle, original_bundle) = (bundle(&hf), bundle(&original));
    let config = &hf_bundle.facts.config;
    assert!(!config.text.tie_word_embeddings, "the head is in the file, whatever the configuration says");
    assert_eq!(original_bundle.facts.config.to_json(), config.to_json());
    assert_eq!(original_bundle.facts.image, hf_bundle.facts.image);
    for (name, shape) in layout::expected(config) {
        assert_eq!(hf_bundle.checkpoint.info(&name).unwrap().shape, shape, "{name}");
        assert_eq!(original_bundle.checkpoint.info(&name).unwrap().shape, shape, "{name}");
        assert!(
            values(&original_bundle.checkpoint, &name) == values(&hf_bundle.checkpoint, &name),
            "{name} differs"
        );
    }
    assert_equal_scores(&scores(&original), &scores(&hf));
}

#[test]
fn no_tensor_of_the_folders_is_left_over() {
    for folder in FOLDERS.map(golden) {
        let bundle = bundle(&folder);
        let expected = layout::expected(&bundle.facts.config);
        assert_eq!(bundle.checkpoint.tensors().count(), expected.len(), "{}", folder.display());
    }
}

#[test]
fn names_go_to_gguf_and_back() {
    for folder in ["internvl_qwen2", "internvl_qwen3"] {
        let mut seen = std::collections::HashSet::new();
        for (name, _) in layout::expected(&facts(&golden(folder)).config) {
            let stored = names::to_gguf(&name, Family::InternVl, &[]);
            assert_eq!(stored.len(), if name.contains("attn.qkv") { 3 } else { 1 }, "{name}");
            for (piece, stored) in stored.into_iter().enumerate() {
                let place = TensorPlace { name: name.clone(), piece };
                assert_eq!(names::from_gguf(&stored.name, &[]), Some(place), "{}", stored.name);
                assert_eq!(stored.part == Part::Vision, name.starts_with("visual."), "{name}");
                assert!(seen.insert(stored.name));
            }
        }
    }
    for other in ["vision_tower.encoder.layer.01.lambda_1", "vision_tower.layernorm.weight", "mlp1.2.weight"]
    {
        assert_eq!(names::from_hf(other), None, "{other}");
    }
}

fn converted(model: &Path, quant: DType) -> (TempDir, ConvertReport) {
    let out = TempDir::new().unwrap();
    let job = ConvertJob { model_dir: model.into(), quant, out_dir: out.path().into(), adapter: None };
    let report = block_on(convert(job)).unwrap();
    (out, report)
}

#[test]
fn a_converted_folder_is_the_same_model() {
    for folder in FOLDERS.map(golden) {
        let (out, report) = converted(&folder, DType::F32);
        assert!(report.load.is_complete() && report.load.unused.is_empty() && report.fallbacks.is_empty());
        let (from, to) = (bundle(&folder), bundle(out.path()));
        assert_eq!(to.facts.config.to_json(), from.facts.config.to_json());
        assert_eq!(to.facts.image, from.facts.image);
        for (name, _) in layout::expected(&from.facts.config) {
            assert!(values(&from.checkpoint, &name) == values(&to.checkpoint, &name), "{name}");
        }
        assert_equal_scores(&scores(out.path()), &scores(&folder));
    }
}

#[test]
fn quantised_weights_score_nearly_as_the_folder() {
    for (folder, quant) in FOLDERS.map(golden).iter().zip([DType::Q8_0, DType::Q4_0, DType::Q8_0]) {
        let (out, _) = converted(folder, quant);
        let (got, want) = (scores(out.path()), scores(folder));
        assert!((got.overall.score - want.overall.score).abs() < 0.25, "{quant}: {}", got.overall.score);
        assert_ne!(got.overall.score.to_bits(), want.overall.score.to_bits(), "nothing was quantised");
    }
}

#[test]
fn other_tools_find_the_metadata_they_look_for() {
    for (folder, architecture) in [("internvl_qwen2", "qwen2"), ("internvl_qwen3", "qwen3")] {
        let (out, _) = converted(&golden(folder), DType::F16);
        let bundle = bundle(out.path());
        let [(_, text), (_, vision)] = bundle.checkpoint.metadata() else { panic!("two files") };
        assert_eq!(text["general.architecture"].as_str(), Some(architecture));
        let layers = bundle.facts.config.text.num_hidden_layers as u64;
        assert_eq!(text[&format!("{architecture}.block_count")].as_u64(), Some(layers));
        assert!(!text.keys().any(|key| key.contains("dimension_sections") || key.contains("deepstack")));
        assert_eq!(vision["clip.projector_type"].as_str(), Some("internvl"));
        assert_eq!(vision["clip.vision.projector.scale_factor"].as_u64(), Some(2));
        let side = bundle.facts.config.vision.patch_size as u64 * if architecture == "qwen2" { 6 } else { 4 };
        assert_eq!(vision["clip.vision.image_size"].as_u64(), Some(side));
        assert_eq!(vision["clip.vision.preproc_min_tiles"].as_u64(), Some(1));
        // Without the manifest there is nothing that says how pictures are cut.
        let pair = TempDir::new().unwrap();
        for file in fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "gguf") {
                fs::copy(&file, pair.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        let error = block_on(ModelFacts::open(pair.path())).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("no GGUF file of architecture qwen3vl"), "{error}");
    }
}

/// The tensors of a folder as bytes of a file, after a change.
fn changed(folder: &str, change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> Result<()> {
    let tensors = arrays(&format!("{folder}/model.safetensors"));
    let mut tensors = tensors.into_iter().map(|(name, array)| (name, array.shape, array.data)).collect();
    change(&mut tensors);
    let bytes = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice()));
    let source = MemorySource(safetensors::write_f32(bytes).unwrap());
    let checkpoint = block_on(Checkpoint::open(vec![("model.safetensors".to_owned(), source)]))?;
    let expected = layout::expected(&facts(&golden(folder)).config);
    imatch::weights::LoadReport::compare(&expected, checkpoint.tensors()).complete().map(|_| ())
}

#[test]
fn parts_of_a_fused_matrix_must_all_be_there() {
    const KEY: &str = "vision_tower.encoder.layer.1.attention.k_proj.weight";
    changed("internvl_qwen2", |_| ()).unwrap();
    let without = changed("internvl_qwen2", |tensors| tensors.retain(|(name, _, _)| name != KEY));
    let error = without.unwrap_err().to_string();
    assert!(error.contains("a part of tensor visual.blocks.1.attn.qkv.weight is missing"), "{error}");
    let short = changed("internvl_qwen2", |tensors| {
        for (_, shape, values) in tensors.iter_mut().filter(|(name, _, _)| name == KEY) {
            shape[0] -= 1;
            values.truncate(shape[0] * shape[1]);
        }
    });
    let error = short.unwrap_err().to_string();
    assert!(error.contains("visual.blocks.1.attn.qkv.weight is [95, 32], expected [96, 32]"), "{error}");
    let narrow = changed("internvl_qwen2", |tensors| {
        for (_, shape, _) in tensors.iter_mut().filter(|(name, _, _)| name == KEY) {
            *shape = vec![shape[1] * 2, shape[0] / 2];
        }
    });
    let error = narrow.unwrap_err().to_string();
    assert!(error.contains("k_proj.weight is [64, 16] as f32, expected rows like those of"), "{error}");
    let twice = changed("internvl_qwen2", |tensors| {
        let fused = "vision_model.encoder.layers.1.attn.qkv.weight".to_owned();
        tensors.push((fused, vec![96, 32], vec![0.0; 96 * 32]));
    });
    let error = twice.unwrap_err().to_string();
    assert!(error.contains("visual.blocks.1.attn.qkv.weight is in"), "{error}");
}

#[test]
fn a_tensor_that_the_configuration_leaves_out_is_named() {
    let cases = [
        (
            "internvl_qwen3",
            "/text_config/num_hidden_layers",
            json!(1),
            "language_model.layers.1.input_layernorm.weight",
        ),
        ("internvl_qwen2", "/vision_config/attention_bias", json!(false), "visual.blocks.0.attn.qkv.bias"),
        (
            "internvl_qwen2",
            "/text_config/model_type",
            json!("qwen3"),
            "language_model.layers.0.self_attn.k_proj.bias",
        ),
        (
            "qwen3_vl_tied",
            "/vision_config/deepstack_visual_indexes",
            json!([1, 2]),
            "visual.deepstack_merger_list.2",
        ),
    ];
    for (folder, pointer, new, expected) in cases {
        let copy = TempDir::new().unwrap();
        for file in fs::read_dir(golden(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        let config = with(json_of(&format!("{folder}/config.json")), pointer, new);
        fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        let opened = block_on(Bundle::open(copy.path())).map(|_| ()).unwrap_err().to_string();
        let out = TempDir::new().unwrap();
        let job = ConvertJob {
            model_dir: copy.path().into(),
            quant: DType::F16,
            out_dir: out.path().into(),
            adapter: None,
        };
        let converted = block_on(convert(job)).map(|_| ()).unwrap_err().to_string();
        for error in [opened, converted] {
            assert!(error.contains(expected) && error.contains("config.json has no place for it"), "{error}");
        }
    }
}

#[test]
fn training_and_adapters_are_refused() {
    let bundle = bundle(&golden("internvl_qwen3"));
    let device = Device::flex().autodiff();
    let learner = block_on(Learner::load(&bundle.facts, &bundle.checkpoint, &device, async |_, _| Ok(())));
    let error = learner.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.to_string(), "training of internvl models is not supported, only of qwen3_vl");
    let adapter = block_on(Adapter::open_folder(&golden("peft/text"), &bundle.facts.config));
    let error = adapter.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("adapters of internvl models are not supported"), "{error}");
}
