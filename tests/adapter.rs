//! Adapters as PEFT writes them: merged, they give PEFT's logits; written, PEFT reads them; anything
//! else is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use imatch::Result;
use imatch::config::ModelConfig;
use imatch::engine::{Engine, Place, Question};
use imatch::error::Kind;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::score::ScoringOptions;
use imatch::text::OverallKind;
use imatch::weights::{
    Adapter, Bundle, ConvertJob, DType, Factors, MemorySource, PeftConfig, Targets, convert, safetensors,
};
use pollster::block_on;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::checkpoint::configs;
use super::common::{Array, F32_NATIVE, arrays, arrays_at, assert_close, golden};

const BASE: &str = "qwen3_vl_tied";
const ADAPTERS: [&str; 2] = ["text", "vision"];
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

fn model() -> ModelConfig {
    configs(BASE).0
}

fn bytes(adapter: &str, file: &str) -> Vec<u8> {
    fs::read(golden(&format!("peft/{adapter}/{file}"))).unwrap()
}

fn read(config: &[u8], weights: &[u8]) -> Result<Adapter> {
    block_on(Adapter::read(config, &MemorySource(weights.to_vec()), &model()))
}

fn theirs(adapter: &str) -> Adapter {
    read(&bytes(adapter, CONFIG), &bytes(adapter, WEIGHTS)).unwrap()
}

/// The base model with an adapter merged, in a folder of its own.
fn merged(adapter: &Path, quant: DType) -> TempDir {
    let out = TempDir::new().unwrap();
    let (model_dir, out_dir) = (golden(BASE), out.path().to_owned());
    block_on(convert(ConvertJob { model_dir, quant, out_dir, adapter: Some(adapter.into()) })).unwrap();
    out
}

#[test]
fn merged_adapters_give_the_logits_of_peft() {
    let cases: Value =
        serde_json::from_slice(&fs::read(golden("qwen3_vl_cases/cases.json")).unwrap()).unwrap();
    let expected = arrays("peft/logits.safetensors");
    let mut compared = 0;
    for adapter in ADAPTERS {
        let folder = merged(&golden(&format!("peft/{adapter}")), DType::F32);
        let bundle = block_on(Bundle::open(folder.path())).unwrap();
        let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
        let answers = engine.processor().answers();
        let answers = [answers.levels.clone(), answers.element().to_vec()].concat();
        for (name, case) in cases["cases"].as_object().unwrap() {
            let Some(want) = expected.get(&format!("{adapter}.{name}")) else { continue };
            let file = &cases["pictures"][case["picture"].as_str().unwrap()]["file"];
            let picture = fs::read(golden(&format!("qwen3_vl_cases/{}", file.as_str().unwrap()))).unwrap();
            let picture = decode(&picture, &DecodeLimits::default()).unwrap();
            let question = Question {
                element: None,
                text: String::new(),
                token_ids: serde_json::from_value(case["input_ids"].clone()).unwrap(),
                answer_token_ids: answers.clone(),
            };
            let mut session = block_on(engine.open(&picture, &())).unwrap();
            let (got, _) = block_on(session.ask(&[question], &())).unwrap();
            let want: Vec<f32> = answers.iter().map(|&id| want.data[id as usize]).collect();
            assert_close(&format!("{adapter} {name}"), &got[0], &want, F32_NATIVE);
            compared += 1;
        }
    }
    assert_eq!(compared, expected.len(), "every array of the fixture is compared");
}

#[test]
fn rows_are_changed_alike_in_whole_and_in_parts() {
    let (d_out, d_in) = (7, 5);
    let numbers = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let factors = Factors { rank: 3, scale: 0.5, a: numbers(3 * d_in, 0.7), b: numbers(d_out * 3, 1.3) };
    let weight = numbers(d_out * d_in, 2.1);
    let mut whole = weight.clone();
    factors.add_to(0, &mut whole);
    for (index, (got, old)) in whole.iter().zip(&weight).enumerate() {
        let (row, column) = (index / d_in, index % d_in);
        let product: f32 = (0..3).map(|k| factors.b[row * 3 + k] * factors.a[k * d_in + column]).sum();
        assert!((got - (old + 0.5 * product)).abs() < 1e-6, "row {row}, column {column}: {got}");
    }
    let mut parts = weight;
    for (index, rows) in parts.chunks_mut(2 * d_in).enumerate() {
        factors.add_to(2 * index, rows);
    }
    assert_eq!(parts, whole);
}

#[test]
fn what_is_quantised_is_the_sum() {
    let folder = golden("peft/text");
    let (whole, quantised) = (merged(&folder, DType::F32), merged(&folder, DType::Q8_0));
    let open = |folder: &TempDir| block_on(Bundle::open(folder.path())).unwrap().checkpoint;
    let (whole, quantised) = (open(&whole), open(&quantised));
    for info in quantised.tensors() {
        let (stored, sum) = block_on(whole.read(&info.name)).unwrap();
        let sum = imatch::format::quant::decode_f32(&stored, &sum).unwrap();
        let (_, bytes) = block_on(quantised.read(&info.name)).unwrap();
        let expected = imatch::format::quant::quantise(&sum, &info.shape, info.dtype).unwrap();
        assert!(bytes == expected, "{}", info.name);
    }
}

#[test]
fn a_merged_model_says_what_was_merged() {
    let folder = merged(&golden("peft/text"), DType::F32);
    let manifest = fs::read(folder.path().join("manifest.json")).unwrap();
    let manifest = imatch::weights::Manifest::parse(&manifest).unwrap();
    assert_eq!(manifest.name, "qwen3_vl_tied + text");
    let description = manifest.description.unwrap();
    assert!(description.starts_with("LoRA adapter text merged, SHA-256 "), "{description}");
    assert!(description.ends_with(&theirs("text").sha256), "{description}");
    assert_eq!(theirs("text").sha256.len(), 64);
}

#[test]
fn a_description_of_ones_own_keeps_what_was_merged() {
    let out = TempDir::new().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_imatch"))
        .args(["convert", "--quant", "q8_0", "--description", "Better", "--name", "mine", "--model"])
        .arg(golden(BASE))
        .arg("--adapter")
        .arg(golden("peft/vision"))
        .arg("--out")
        .arg(out.path())
        .output();
    assert!(output.unwrap().status.success());
    let manifest = fs::read(out.path().join("manifest.json")).unwrap();
    let manifest = imatch::weights::Manifest::parse(&manifest).unwrap();
    assert_eq!(manifest.name, "mine");
    let expected = format!("Better (LoRA adapter vision merged, SHA-256 {})", theirs("vision").sha256);
    assert_eq!(manifest.description, Some(expected));
    assert!(!manifest.golden.is_empty(), "golden answers are those of the sum");
}

#[test]
fn scoring_options_beside_an_adapter_come_before_those_of_the_model() {
    let adapter = TempDir::new().unwrap();
    for file in [CONFIG, WEIGHTS] {
        fs::copy(golden(&format!("peft/text/{file}")), adapter.path().join(file)).unwrap();
    }
    let kind = |folder: &Path| block_on(Bundle::open(folder)).unwrap().facts.scoring.overall;
    let own = kind(merged(adapter.path(), DType::F16).path());
    assert_eq!((own.kind, own.scale), (OverallKind::Levels, [1.0, 5.0]));
    fs::write(adapter.path().join("imatch.json"), r#"{"overall": {"kind": "yes_no", "scale": [0, 10]}}"#)
        .unwrap();
    let other = kind(merged(adapter.path(), DType::F16).path());
    assert_eq!((other.kind, other.scale), (OverallKind::YesNo, [0.0, 10.0]));
}

#[test]
fn what_is_written_reads_back_bit_by_bit_and_is_what_peft_has_read() {
    let expected = theirs("vision");
    let folder = TempDir::new().unwrap();
    expected.write_folder(folder.path(), BASE, &model(), &ScoringOptions::default()).unwrap();
    let (again, scoring) = block_on(Adapter::open_folder(folder.path(), &model())).unwrap();
    assert_eq!(scoring, Some(ScoringOptions::default()));
    assert_eq!(again.factors, expected.factors);
    assert_eq!(again.config.to_json(), expected.config.to_json());
    // `scripts/reference.py peft_written` shows these files to PEFT.
    for file in [CONFIG, WEIGHTS] {
        let written = fs::read(folder.path().join(file)).unwrap();
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft/written");
            fs::create_dir_all(&to).unwrap();
            fs::write(to.join(file), &written).unwrap();
        }
        assert!(written == bytes("written", file), "{file} is not what PEFT was shown");
    }
}

/// The text adapter with another configuration.
fn with_config(change: impl FnOnce(&mut Value)) -> Result<Adapter> {
    let mut config: Value = serde_json::from_slice(&bytes("text", CONFIG)).unwrap();
    change(&mut config);
    read(&serde_json::to_vec(&config).unwrap(), &bytes("text", WEIGHTS))
}

#[test]
fn what_would_compute_something_else_is_refused_by_key() {
    let cases = [
        ("peft_type", json!("LOHA")),
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("layers_to_transform", json!([0])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("trainable_token_indices", json!([1])),
        ("something_new", json!({"a": 1})),
    ];
    for (key, value) in cases {
        let error = with_config(|config| config[key] = value.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        let start = format!("adapter_config.json: {key} is {value}, expected ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    let cases = [
        ("r", json!(0)),
        ("r", json!(-4)),
        ("r", json!("4")),
        ("lora_alpha", json!("8")),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(-8)),
        ("target_modules", json!(7)),
        ("target_modules", json!(null)),
        ("target_modules", json!("(")),
        ("target_modules", json!("a)|(b")),
        ("rank_pattern", json!([1])),
        ("rank_pattern", json!({"q_proj": 0})),
        ("alpha_pattern", json!({"(": 1})),
        ("alpha_pattern", json!({"q_proj": "1"})),
    ];
    for (key, value) in cases {
        let error = with_config(|config| config[key] = value.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Model, "{key} {value}: {error}");
        assert!(error.to_string().starts_with(&format!("adapter_config.json: {key}")), "{error}");
    }
    for text in ["", "{", "[]", "7"] {
        assert_eq!(read(text.as_bytes(), &bytes("text", WEIGHTS)).unwrap_err().kind(), Kind::Model);
    }
}

#[test]
fn a_pattern_that_takes_forever_is_an_error() {
    let error =
        with_config(|config| config["target_modules"] = json!(r"(?:([a-z._0-9]+)\1?)*!")).unwrap_err();
    assert!(error.to_string().contains("cannot be tried"), "{error}");
}

type Change = fn(&mut BTreeMap<String, Array>);

/// The text adapter with other tensors.
fn with_tensors(change: impl FnOnce(&mut BTreeMap<String, Array>)) -> Result<Adapter> {
    let mut tensors = arrays_at(&golden(&format!("peft/text/{WEIGHTS}")));
    change(&mut tensors);
    let tensors = tensors.iter().map(|(name, array)| (name.clone(), array.shape.clone(), &array.data[..]));
    read(&bytes("text", CONFIG), &safetensors::write_f32(tensors).unwrap())
}

#[test]
fn factors_that_do_not_fit_are_refused_by_name() {
    const A: &str = "base_model.model.model.language_model.layers.2.mlp.up_proj.lora_A.weight";
    const B: &str = "base_model.model.model.language_model.layers.2.mlp.up_proj.lora_B.weight";
    let up = "model.language_model.layers.2.mlp.up_proj";
    let cases: [(Change, String); 7] = [
        (|tensors| drop(tensors.remove(A)), format!("{up} has only one of lora_A and lora_B")),
        (
            |tensors| tensors.retain(|name, _| name != A && name != B),
            format!("{up} is adapted, but has no factors"),
        ),
        (
            |tensors| tensors.get_mut(A).unwrap().shape.reverse(),
            format!("tensor {A} is [40, 4], expected [4, 40]"),
        ),
        (|tensors| tensors.get_mut(B).unwrap().shape = vec![104, 2, 2], "expected [104, 4]".to_owned()),
        (|tensors| tensors.get_mut(B).unwrap().data[5] = f32::NAN, format!("tensor {B} holds a value that")),
        (|tensors| tensors.clear(), "is adapted, but has no factors".to_owned()),
        (
            |tensors| {
                let array = Array { shape: vec![1], data: vec![0.0] };
                tensors.insert("base_model.model.lm_head.modules_to_save.weight".to_owned(), array);
            },
            "tensor base_model.model.lm_head.modules_to_save.weight is no factor of a linear layer"
                .to_owned(),
        ),
    ];
    for (change, expected) in cases {
        let error = with_tensors(change).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(WEIGHTS) && error.contains(&expected), "{error}");
    }
    for (other, expected) in [
        ("model.language_model.layers.2.mlp.qkv", "model.language_model.layers.2.mlp.qkv is no matrix"),
        ("model.language_model.layers.4.mlp.up_proj", "layers.4.mlp.up_proj is no matrix of this model"),
        ("model.visual.merger.linear_fc1", "linear_fc1 has factors, but is not among target_modules"),
        ("lm_head", "lm_head is the embedding table of this model"),
        ("model.language_model.embed_tokens", "model.language_model.embed_tokens is no matrix of this model"),
    ] {
        let error = with_tensors(|tensors| {
            for (from, half) in [(A, "A"), (B, "B")] {
                let array = tensors[from].clone();
                tensors.insert(format!("base_model.model.{other}.lora_{half}.weight"), array);
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_of_older_libraries_are_the_same_modules() {
    let expected = theirs("text").factors;
    for (new, old) in [
        ("model.model.language_model.layers", "model.model.layers"),
        ("model.model.language_model.layers", "model.language_model.model.layers"),
        ("model.model.language_model.layers", "model.language_model.layers"),
    ] {
        let renamed = with_tensors(|tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, array)| (name.replace(new, old), array))
                .collect();
        });
        assert_eq!(renamed.unwrap().factors, expected, "{old}");
    }
    let twice = with_tensors(|tensors| {
        for (name, array) in tensors.clone() {
            tensors.insert(name.replace("model.model.language_model", "model.model"), array);
        }
    });
    assert!(twice.unwrap_err().to_string().contains("is there under two names"));
}

#[test]
fn damaged_adapters_end_in_an_error_or_in_finite_numbers() {
    let (config, original) = (bytes("vision", CONFIG), bytes("vision", WEIGHTS));
    let mut state = 11u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut errors = 0;
    for _ in 0..2000 {
        let (mut config, mut weights) = (config.clone(), original.clone());
        let damaged = if random() % 2 == 0 { &mut config } else { &mut weights };
        let span = damaged.len().min(8000);
        damaged[random() % span] = random() as u8;
        match read(&config, &weights) {
            Err(_) => errors += 1,
            Ok(adapter) => {
                let values = adapter.factors.values().flat_map(|it| it.a.iter().chain(&it.b));
                assert!(values.into_iter().all(|value| value.is_finite()));
                assert!(adapter.factors.values().all(|it| it.scale.is_finite()));
            }
        }
    }
    assert!((500..2000).contains(&errors), "{errors}");
}

#[test]
fn targets_are_read_as_users_write_them() {
    let layer = "model.language_model.layers.0.self_attn.q_proj";
    let patch = "model.visual.patch_embed.proj";
    for (text, expected) in [
        ("q_proj", [true, false, false]),
        ("q_proj, proj", [true, true, false]),
        ("roj", [false, false, false]),
        ("self_attn.q_proj", [true, false, false]),
        ("all-linear", [true, false, false]),
        (r".*language_model.*_proj|lm_head", [true, false, true]),
        (r"model\.(?!language).*", [false, true, false]),
    ] {
        let targets = Targets::parse(text).unwrap();
        let got = [layer, patch, "lm_head"].map(|module| targets.matches(module).unwrap());
        assert_eq!(got, expected, "{text}");
    }
    assert_eq!(PeftConfig::new(0, 1.0, Targets::default()).unwrap_err().kind(), Kind::Input);
    assert_eq!(PeftConfig::new(4, f64::NAN, Targets::default()).unwrap_err().kind(), Kind::Input);
}
