//! A pair of GGUF files with nothing beside them: its metadata says what a Hugging Face folder says in files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imatch::config::Geometry;
use imatch::engine::{Engine, Place};
use imatch::error::{Kind, Result};
use imatch::image::decode::{DecodeLimits, decode};
use imatch::score::ScoreResult;
use imatch::text::{OverallKind, Request, Tokenizer};
use imatch::weights::gguf::{Array, Value};
use imatch::weights::{Bundle, Checkpoint, ConvertJob, DType, FileSource, ModelFacts, convert, llama_cpp};
use pollster::block_on;
use tempfile::TempDir;

use super::common::golden;

const FOLDERS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// A converted folder, and the same weights as a pair alone.
pub(crate) fn converted(model: &Path, quant: DType) -> (TempDir, TempDir) {
    let (whole, pair) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let job = ConvertJob { model_dir: model.into(), quant, out_dir: whole.path().into(), adapter: None };
    block_on(convert(job)).unwrap();
    for file in ggufs(whole.path()) {
        fs::copy(&file, pair.path().join(file.file_name().unwrap())).unwrap();
    }
    (whole, pair)
}

/// The demo model.
fn shapes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/shapes")
}

/// The GGUF files of a folder, the vision tower's first.
fn ggufs(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    files
}

fn scores(path: &Path) -> ScoreResult {
    let mut bundle = block_on(Bundle::open(path)).unwrap();
    bundle.facts.scoring = bundle.facts.scoring.with_overall(OverallKind::YesNo);
    let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
    let bytes = fs::read(golden("qwen3_vl_cases/wide.png")).unwrap();
    let picture = decode(&bytes, &DecodeLimits::default()).unwrap();
    let elements = ["red cube (object)".to_owned(), "12 balls (counting)".to_owned()];
    let request = Request::new("A café sign, it's NIGHT", &elements, None).unwrap();
    let mut session = block_on(engine.open(&picture, &())).unwrap();
    block_on(session.score(&request, &())).unwrap()
}

#[test]
fn a_pair_says_what_the_folder_said_that_it_was_made_of() {
    for folder in FOLDERS.map(golden) {
        let (_, pair) = converted(&folder, DType::F32);
        let (from, to) =
            (block_on(ModelFacts::open(&folder)).unwrap(), block_on(ModelFacts::open(pair.path())).unwrap());
        assert_eq!(to.config, from.config);
        assert_eq!(to.image, from.image);
        assert_eq!(to.scoring, from.scoring);
        let [from, to] = [from, to].map(|facts| Tokenizer::from_json(&facts.tokenizer).unwrap());
        for text in [
            "A café sign, 12 green stars;  it's NIGHT\n\nYes",
            "<think>",
            "<|im_end|>",
            "e\u{301}\t\u{1f600} ",
        ] {
            assert_eq!(to.encode(text).unwrap(), from.encode(text).unwrap(), "{text:?}");
        }
        for token in ["<|im_end|>", "<|image_pad|>", "<think>"] {
            assert_eq!(to.added_id(token), from.added_id(token), "{token}");
            assert!(to.added_id(token).is_some(), "{token}");
        }
    }
}

#[test]
fn a_pair_scores_as_its_converted_folder() {
    for (folder, quant) in FOLDERS.map(golden).iter().zip([DType::F32, DType::F16]) {
        let (whole, pair) = converted(folder, quant);
        let decoder = ggufs(pair.path()).pop().unwrap();
        let want = scores(whole.path());
        for path in [pair.path(), &decoder] {
            let got = scores(path);
            assert_eq!(got.overall.score.to_bits(), want.overall.score.to_bits());
            for (got, want) in got.elements.iter().zip(&want.elements) {
                assert_eq!(got.score.to_bits(), want.score.to_bits(), "{}", got.element);
            }
            assert_eq!(got.model.architecture, "qwen3_vl");
            assert_eq!(got.model.quantization, quant.name());
        }
    }
}

#[test]
fn words_that_are_split_in_a_way_without_a_name_travel_whole() {
    let shapes = shapes();
    let facts = block_on(ModelFacts::open(&shapes)).unwrap();
    let entries =
        llama_cpp::write::tokenizer_metadata(&facts.tokenizer, facts.config.text.vocab_size).unwrap();
    let of = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    assert_eq!(of("tokenizer.ggml.pre").unwrap().as_str(), Some("imatch"));
    assert_eq!(of("tokenizer.huggingface.json").unwrap().as_str().unwrap().as_bytes(), facts.tokenizer);
    let tied = block_on(ModelFacts::open(&golden(FOLDERS[0]))).unwrap();
    let entries = llama_cpp::write::tokenizer_metadata(&tied.tokenizer, tied.config.text.vocab_size).unwrap();
    let of = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    assert_eq!(of("tokenizer.ggml.pre").unwrap().as_str(), Some("qwen2"));
    assert_eq!(of("tokenizer.huggingface.json"), None);
}

#[test]
fn a_tower_says_its_own_epsilon_whatever_the_decoder_has() {
    let mut facts = block_on(ModelFacts::open(&golden(FOLDERS[0]))).unwrap();
    facts.config.text.rms_norm_eps = 1e-5;
    let entries = llama_cpp::write::vision_metadata(&facts.config, &facts.image, "model", DType::F16);
    let (_, value) =
        entries.iter().find(|(key, _)| key == "clip.vision.attention.layer_norm_epsilon").unwrap();
    assert_eq!(*value, Value::F32(1e-6));
}

type Metadata = BTreeMap<String, Value>;

/// The facts of a pair after something was changed in its metadata.
fn facts_with(change: impl Fn(&mut Metadata)) -> Result<ModelFacts> {
    let (_, pair) = converted(&golden(FOLDERS[0]), DType::F16);
    let opened = |file: &PathBuf| (file.display().to_string(), FileSource::open(file).unwrap());
    let checkpoint = block_on(Checkpoint::open(ggufs(pair.path()).iter().map(opened).collect())).unwrap();
    let mut files: Vec<(String, Metadata)> = checkpoint.metadata().to_vec();
    for (_, metadata) in &mut files {
        change(metadata);
    }
    llama_cpp::read::facts(&files, |name| checkpoint.info(name).map(|info| info.shape.clone()))
}

#[test]
fn what_converters_leave_out_has_the_usual_values() {
    let facts = facts_with(|metadata| {
        for key in ["spatial_merge_size", "image_min_pixels", "image_max_pixels"] {
            metadata.remove(&format!("clip.vision.{key}"));
        }
        metadata.remove("qwen3vl.vocab_size");
        metadata.remove("qwen3vl.attention.value_length");
        metadata.remove("imatch.scoring");
    });
    let facts = facts.unwrap();
    assert_eq!(facts.config, block_on(ModelFacts::open(&golden(FOLDERS[0]))).unwrap().config);
    assert_eq!(facts.scoring.overall.kind, OverallKind::YesNo);
    let usual = Geometry::Scaled { min_pixels: 65_536, max_pixels: 1 << 20 };
    assert_eq!(facts.image.geometry, usual);
}

#[test]
fn metadata_that_is_missing_or_of_another_kind_is_named() {
    let cases: [(&str, Option<Value>, &str); 20] = [
        (
            "general.architecture",
            Some("llama".into()),
            "no GGUF file of architecture qwen3vl, which is the decoder; there are llama and llama",
        ),
        (
            "clip.projector_type",
            Some("mlp".into()),
            "metadata key clip.projector_type is \"mlp\", only \"qwen3vl_merger\"",
        ),
        ("qwen3vl.block_count", None, "metadata key qwen3vl.block_count is missing, expected a whole number"),
        (
            "qwen3vl.rope.freq_base",
            Some(Value::Bool(true)),
            "qwen3vl.rope.freq_base is true, expected a number",
        ),
        (
            "qwen3vl.rope.dimension_sections",
            Some(Value::Array(Array::I32(vec![-1, 2, 3]))),
            "qwen3vl.rope.dimension_sections is [-1, 2, 3], expected three whole numbers",
        ),
        (
            "qwen3vl.attention.value_length",
            Some(Value::U32(7)),
            "qwen3vl.attention.value_length is 7, expected the same as attention.key_length, 32",
        ),
        (
            "clip.vision.image_mean",
            Some(Value::Array(Array::F32(vec![0.5]))),
            "clip.vision.image_mean is [0.5], expected three numbers",
        ),
        (
            "clip.vision.is_deepstack_layers",
            None,
            "clip.vision.is_deepstack_layers is missing, expected a flag for each block",
        ),
        ("clip.vision.patch_size", Some(Value::U32(0)), "vision_config.patch_size is 0"),
        (
            "clip.vision.block_count",
            Some(Value::U32(3)),
            "but clip.vision.block_count 3: decoder and mmproj are of different models",
        ),
        (
            "qwen3vl.n_deepstack_layers",
            Some(Value::U32(0)),
            "qwen3vl.n_deepstack_layers gives 0, but clip.vision.is_deepstack_layers 3",
        ),
        (
            "clip.vision.projection_dim",
            Some(Value::U32(7)),
            "but clip.vision.projection_dim 7: decoder and mmproj",
        ),
        ("qwen3vl.rope.dimension_count", Some(Value::U32(8)), "expected the same as attention.key_length"),
        (
            "clip.vision.is_deepstack_layers",
            Some(Value::Array(Array::Bool(vec![false; 513]))),
            "clip.vision.is_deepstack_layers is a list of 513 values, expected a flag for each block",
        ),
        (
            "tokenizer.ggml.pre",
            Some("llama-bpe".into()),
            "metadata key tokenizer.ggml.pre is \"llama-bpe\", only \"qwen2\"",
        ),
        ("tokenizer.ggml.pre", Some(Value::Bool(true)), "tokenizer.ggml.pre is true, expected \"qwen2\""),
        (
            "clip.vision.attention.layer_norm_epsilon",
            Some(Value::F32(1e-5)),
            "clip.vision.attention.layer_norm_epsilon is 0.00001, only 0.000001 is supported",
        ),
        (
            "clip.vision.attention.layer_norm_epsilon",
            None,
            "clip.vision.attention.layer_norm_epsilon is missing, expected a number",
        ),
        (
            "tokenizer.ggml.token_type",
            Some(Value::Array(Array::I32(vec![1]))),
            "expected a type for each token",
        ),
        ("tokenizer.ggml.tokens", Some(Value::Array(Array::String(vec![]))), "a type for each token"),
    ];
    for (key, value, expected) in cases {
        let found = Cell::new(false);
        let error = facts_with(|metadata| {
            if metadata.remove(key).is_some() {
                found.set(true);
                metadata.extend(value.clone().map(|value| (key.to_owned(), value)));
            }
        });
        assert!(found.get(), "{key} is in neither file");
        let error = error.map(|_| ()).expect_err(key);
        assert!(error.to_string().contains(expected), "{key}: {error}");
        assert!(matches!(error.kind(), Kind::Model | Kind::Unsupported), "{key}");
    }
}

#[test]
fn a_message_names_the_file_of_the_key() {
    let of = |key: &str| {
        let error = facts_with(|metadata| drop(metadata.remove(key))).map(|_| ()).unwrap_err();
        error.to_string()
    };
    let (text, vision) = (of("qwen3vl.block_count"), of("clip.vision.block_count"));
    let is_tower = |message: &str| message.split(": ").next().unwrap().contains("mmproj");
    assert!(!is_tower(&text) && text.contains(".gguf: metadata key qwen3vl.block_count"), "{text}");
    assert!(is_tower(&vision) && vision.contains(".gguf: metadata key clip.vision.block_count"), "{vision}");
}

#[test]
fn a_whole_tokenizer_has_the_ids_of_the_vocabulary_beside_it() {
    let whole = fs::read_to_string(golden(FOLDERS[0]).join("tokenizer.json")).unwrap();
    let with = |change: fn(&mut Vec<String>)| {
        facts_with(|metadata| {
            if let Some(Value::Array(Array::String(tokens))) = metadata.get_mut("tokenizer.ggml.tokens") {
                change(tokens);
                metadata.insert("tokenizer.huggingface.json".to_owned(), whole.as_str().into());
            }
        })
    };
    // Rows that no token has may be called anything.
    let facts = with(|tokens| "unused".clone_into(&mut tokens[511])).unwrap();
    assert_eq!(facts.tokenizer, whole.as_bytes());
    let error = with(|tokens| tokens.swap(70, 71)).map(|_| ()).unwrap_err();
    let expected = "token 70 is \"g\" in tokenizer.huggingface.json, but \"h\" in tokenizer.ggml.tokens";
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.kind(), Kind::Model);
    let error = with(|tokens| tokens.truncate(20)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("a type for each token"), "{error}");
}

#[test]
fn rotary_frequencies_of_another_kind_are_refused() {
    let with = |kind: &str| {
        facts_with(|metadata| {
            if metadata.contains_key("qwen3vl.block_count") {
                metadata.insert("qwen3vl.rope.scaling.type".to_owned(), kind.into());
            }
        })
    };
    with("none").unwrap();
    let error = with("yarn").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("rope.scaling.type is \"yarn\", only \"none\""), "{error}");
}

#[test]
fn a_tower_that_calls_itself_another_model_is_refused() {
    let with = |tower: &'static str| {
        facts_with(|metadata| {
            let size = if metadata.contains_key("clip.projector_type") { tower } else { "2B" };
            metadata.insert("general.basename".to_owned(), "Qwen3-VL".into());
            metadata.insert("general.size_label".to_owned(), size.into());
        })
    };
    with("2b").unwrap();
    let error = with("30B-A3B").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("general.size_label") && error.contains("of different models"), "{error}");
}

#[test]
fn an_embedding_model_is_refused() {
    let with = |key: &str, value: Value| {
        facts_with(|metadata| {
            if metadata.contains_key("qwen3vl.block_count") {
                metadata.insert(format!("qwen3vl.{key}"), value.clone());
            }
        })
    };
    with("pooling_type", Value::U32(0)).unwrap();
    with("attention.causal", Value::Bool(true)).unwrap();
    for (key, value, said) in [
        ("pooling_type", Value::U32(3), "qwen3vl.pooling_type is 3, expected 0"),
        ("attention.causal", Value::Bool(false), "qwen3vl.attention.causal is false, expected true"),
    ] {
        let error = with(key, value).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_tensor_without_a_place_means_another_model() {
    // A head under another name would leave the embedding table in its place.
    let (_, pair) = converted(&golden(FOLDERS[1]), DType::F16);
    let decoder = ggufs(pair.path()).pop().unwrap();
    let name = |name: &str| [(name.len() as u64).to_le_bytes().as_slice(), name.as_bytes()].concat();
    let (old, new) = (name("output.weight"), name("outpux.weight"));
    let mut bytes = fs::read(&decoder).unwrap();
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(&new);
    fs::write(&decoder, bytes).unwrap();
    let error = block_on(Bundle::open(&decoder)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("tensor outpux.weight has no place in a qwen3_vl model"), "{error}");
}

#[test]
fn scoring_options_travel_in_the_decoder() {
    let tuned = TempDir::new().unwrap();
    for file in fs::read_dir(golden(FOLDERS[0])).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, tuned.path().join(file.file_name().unwrap())).unwrap();
    }
    let options = r#"{"overall": {"kind": "levels", "temperature": 1.5}}"#;
    fs::write(tuned.path().join("imatch.json"), options).unwrap();
    let (whole, pair) = converted(tuned.path(), DType::F16);
    let facts = block_on(ModelFacts::open(pair.path())).unwrap();
    assert_eq!(facts.scoring, block_on(ModelFacts::open(whole.path())).unwrap().scoring);
    assert_eq!(facts.scoring.overall.kind, OverallKind::Levels);
}

#[test]
fn folders_that_hold_no_pair_say_what_they_hold() {
    let (_, pair) = converted(&golden(FOLDERS[0]), DType::F16);
    let [tower, decoder] = <[PathBuf; 2]>::try_from(ggufs(pair.path())).unwrap();
    let refused = |path: &Path, expected: &str| {
        let error = block_on(Bundle::open(path)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(&tower, "is a vision tower; name the decoder's file");
    refused(&ggufs(&shapes())[1], "name the folder, which has its scoring options");
    let second = pair.path().join("other.gguf");
    fs::copy(&decoder, &second).unwrap();
    refused(pair.path(), "GGUF files without mmproj in their names (decoders): ");
    // Naming the decoder settles which one is meant.
    block_on(ModelFacts::open(&second)).unwrap();
    fs::remove_file(&second).unwrap();
    fs::remove_file(&tower).unwrap();
    refused(pair.path(), "GGUF files with mmproj in their names (vision towers): none; expected one");
    fs::copy(&decoder, &tower).unwrap();
    refused(pair.path(), "again in");
    fs::write(&tower, b"GGUF").unwrap();
    refused(pair.path(), "leave the file of 4 bytes");
}
