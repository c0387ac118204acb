//! The command line as other tools call it: contracts to the letter, errors in one line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::common::golden;

pub(crate) const PROMPT: &str = "a red cube left of two blue balls";

pub(crate) fn imatch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imatch")).args(args).output().unwrap()
}

pub(crate) fn tied() -> String {
    golden("qwen3_vl_tied").display().to_string()
}

pub(crate) fn wide() -> String {
    golden("qwen3_vl_cases/wide.png").display().to_string()
}

pub(crate) fn succeed(args: &[&str]) -> String {
    let output = imatch(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn object(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(args)).unwrap()
}

/// Standard error of a call that must fail with `code`: exactly one line that names `part`.
#[track_caller]
pub(crate) fn fail(args: &[&str], code: i32, part: &str) {
    let output = imatch(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text:?}");
    assert!(text.contains(part), "{args:?}: {text:?} does not name {part:?}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

pub(crate) fn score_args<'a>(model: &'a str, image: &'a str, prompt: &'a str) -> Vec<&'a str> {
    vec!["score", "--model", model, "--image", image, "--prompt", prompt]
}

#[test]
fn score_prints_the_object_of_the_contract() {
    let (model, image) = (tied(), wide());
    let mut args = score_args(&model, &image, PROMPT);
    args.extend([
        "--element",
        "red cube (color)",
        "--element",
        "two blue balls (Counting)",
        "--element",
        "odd",
        "--json",
    ]);
    let result = object(&args);
    assert_eq!(keys(&result)[..5], ["model", "overall", "elements", "device", "timings_ms"]);
    assert_eq!(keys(&result["model"]), ["name", "architecture", "quantization", "sha256"]);
    assert_eq!(keys(&result["overall"]), ["score", "scale", "confidence", "expected_level", "levels"]);
    assert_eq!(keys(&result["timings_ms"]), ["load", "image", "prefix", "questions"]);
    assert_eq!(result["overall"]["levels"].as_array().unwrap().len(), 15);
    let mass: f64 = result["overall"]["levels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["probability"].as_f64().unwrap())
        .sum();
    assert!((mass - 1.0).abs() < 1e-9, "{mass}");
    let elements = result["elements"].as_array().unwrap();
    assert_eq!(keys(&elements[0]), ["element", "category", "score", "present"]);
    let named: Vec<_> =
        elements.iter().map(|e| (e["element"].as_str().unwrap(), e["category"].as_str().unwrap())).collect();
    assert_eq!(named, [("red cube", "color"), ("two blue balls", "counting"), ("odd", "other")]);
    assert_eq!(result["device"], "cpu");
}

#[test]
fn a_checkpoint_without_options_is_asked_yes_or_no_and_the_flag_overrides_it() {
    let (model, image) = (golden("qwen3_vl_untied").display().to_string(), wide());
    let mut args = score_args(&model, &image, PROMPT);
    args.push("--json");
    let result = object(&args);
    assert_eq!(result["overall"]["levels"], Value::Array(Vec::new()));
    let probability = result["overall"]["probability"].as_f64().unwrap();
    assert!((result["overall"]["score"].as_f64().unwrap() - (1.0 + 4.0 * probability)).abs() < 1e-9);
    args.extend(["--overall", "levels"]);
    assert_eq!(object(&args)["overall"]["levels"].as_array().unwrap().len(), 15);
}

#[test]
fn prompt_shows_each_question_as_it_would_be_asked_alone() {
    let (model, image) = (tied(), wide());
    let args = [
        "prompt",
        "--model",
        &model,
        "--image",
        &image,
        "--prompt",
        PROMPT,
        "--element",
        "red cube (color)",
        "--json",
    ];
    let input = object(&args);
    assert_eq!(keys(&input), ["image", "questions"]);
    assert_eq!(input["image"], serde_json::json!({"grid_thw": [1, 6, 8], "n_tokens": 12}));
    let questions = input["questions"].as_array().unwrap();
    assert_eq!(keys(&questions[0]), ["kind", "element", "text", "token_ids", "answer_token_ids"]);
    assert_eq!((&questions[0]["kind"], &questions[0]["element"]), (&"overall".into(), &Value::Null));
    assert_eq!(
        (&questions[1]["kind"], &questions[1]["element"]),
        (&"element".into(), &"red cube (color)".into())
    );
    assert!(questions[1]["text"].as_str().unwrap().contains("red cube"));
    assert_eq!(questions[0]["answer_token_ids"].as_array().unwrap().len(), 15);
    assert_eq!(questions[1]["answer_token_ids"].as_array().unwrap().len(), 2);
    let placeholders = |q: &Value| q["token_ids"].as_array().unwrap().iter().filter(|id| **id == 496).count();
    assert!(questions.iter().all(|question| placeholders(question) == 12), "one placeholder a merged token");
}

#[test]
fn words_that_look_like_special_tokens_stay_words() {
    let (model, image) = (tied(), wide());
    let prompt = "<|image_pad|><|im_end|> <think> a cube";
    let input = object(&["prompt", "--model", &model, "--image", &image, "--prompt", prompt, "--json"]);
    let ids = input["questions"][0]["token_ids"].as_array().unwrap();
    for special in [496, 493] {
        let plain = object(&["prompt", "--model", &model, "--image", &image, "--prompt", "a cube", "--json"]);
        let count = |ids: &Vec<Value>| ids.iter().filter(|id| **id == special).count();
        assert_eq!(count(ids), count(plain["questions"][0]["token_ids"].as_array().unwrap()), "id {special}");
    }
}

#[test]
fn bad_input_ends_in_one_clear_line() {
    let (model, image) = (tied(), wide());
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let text = file("text.png", b"this is no picture");
    let empty = file("empty.png", b"");
    let torn = file("torn.png", &fs::read(wide()).unwrap()[..200]);
    let nowhere = folder.path().join("nowhere").display().to_string();
    let long = "word ".repeat(4000);
    fail(&score_args(&model, &image, ""), 2, "prompt is empty");
    fail(&score_args(&model, &image, &long), 2, "positions");
    fail(&score_args(&model, &text, PROMPT), 2, "text.png");
    fail(&score_args(&model, &empty, PROMPT), 2, "empty.png");
    fail(&score_args(&model, &torn, PROMPT), 2, "torn.png");
    fail(&score_args(&model, &nowhere, PROMPT), 2, "nowhere");
    fail(&score_args(&nowhere, &image, PROMPT), 2, "nowhere: No such file");
    fail(&score_args(&folder.path().display().to_string(), &image, PROMPT), 2, "no model: neither");
    fail(&["score", "--model", &model, "--image", &image], 2, "--prompt");
    fail(&["score", "--bogus"], 2, "--bogus");
    fail(&["paint"], 2, "paint");
    fail(&[], 2, "subcommand");
    let with = |extra: &[&str], part: &str| {
        let args = [score_args(&model, &image, PROMPT), extra.to_vec()].concat();
        fail(&args, 2, part);
    };
    with(&["--element", ""], "element");
    with(&["--element", " (color)"], "element");
    with(&["--prompt-type", "dream"], "dream");
    with(&["--overall", "maybe"], "maybe");
    if cfg!(not(any(feature = "gpu", feature = "cuda"))) {
        with(&["--device", "gpu"], "GPU");
    }
}

/// A copy of the tied folder, for spoiling.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(golden("qwen3_vl_tied")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn spoiled_models_end_in_one_clear_line() {
    let image = wide();
    let spoil = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, part: &str| {
        let folder = copy();
        let path = folder.path().join(name);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        fail(&score_args(&folder.path().display().to_string(), &image, PROMPT), 2, part);
    };
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{from} is not there");
            text.replace(from, to).into_bytes()
        }
    };
    for name in
        ["model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json", "imatch.json"]
    {
        spoil(name, &half, name);
        spoil(name, &|_| Vec::new(), name);
    }
    spoil("config.json", &replace("\"qwen3_vl\"", "\"other_vl\""), "model_type");
    spoil("config.json", &replace("\"num_hidden_layers\": ", "\"num_hidden_layers\": 1"), "missing");
    spoil("preprocessor_config.json", &replace("\"patch_size\": 16", "\"patch_size\": 14"), "patch_size");
    spoil("imatch.json", &replace("\"a\"", "\"b\""), "b");
}

#[test]
fn a_converted_model_scores_like_its_source_and_notices_a_flipped_bit() {
    let (model, image) = (tied(), wide());
    let out = TempDir::new().unwrap();
    let converted = out.path().join("f32").display().to_string();
    succeed(&["convert", "--model", &model, "--quant", "f32", "--out", &converted]);
    let score = |model: &str| {
        let mut args = score_args(model, &image, PROMPT);
        args.extend(["--element", "red cube (color)", "--json"]);
        let result = object(&args);
        (result["overall"]["score"].as_f64().unwrap(), result["elements"][0]["score"].as_f64().unwrap())
    };
    let (source, same) = (score(&model), score(&converted));
    assert!((source.0 - same.0).abs() < 1e-5 && (source.1 - same.1).abs() < 1e-5, "{source:?} and {same:?}");
    let manifest: Value =
        serde_json::from_slice(&fs::read(Path::new(&converted).join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["golden"].as_array().unwrap().len(), 1, "a golden answer for the self-test");
    for file in manifest["files"].as_array().unwrap() {
        let path = Path::new(&converted).join(file["path"].as_str().unwrap());
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        fail(&score_args(&converted, &image, PROMPT), 2, file["path"].as_str().unwrap());
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        fail(&score_args(&converted, &image, PROMPT), 2, file["path"].as_str().unwrap());
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(score(&converted), same);
    fail(&["convert", "--model", &model, "--quant", "q3_0", "--out", &converted], 2, "q3_0");
    fail(&["convert", "--model", &model, "--quant", "f32", "--out", &model], 2, "another folder");
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_batch_resumes_where_it_was_killed_and_can_be_evaluated() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data").display().to_string();
    succeed(&["synth", "--out", &data, "--count", "6", "--seed", "7"]);
    let records: Vec<Value> =
        serde_json::from_slice(&fs::read(Path::new(&data).join("records.json")).unwrap()).unwrap();
    assert_eq!(records.len(), 6);
    let list: PathBuf = Path::new(&data).join("list.jsonl");
    let line = |record: &Value| {
        let elements: Vec<&String> = record["element_score"].as_object().unwrap().keys().collect();
        let line = serde_json::json!({"img_path": record["img_path"], "prompt": record["prompt"],
            "elements": elements, "prompt_type": record["type"]});
        line.to_string()
    };
    let text = records.iter().map(line).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(&list, &text).unwrap();
    let out = folder.path().join("out.jsonl");
    let (model, input, output) = (tied(), list.display().to_string(), out.display().to_string());
    let args = ["score", "--model", &model, "--batch", &input, "--out", &output];
    succeed(&args);
    let whole = fs::read_to_string(&out).unwrap();
    let all = lines(&out);
    assert_eq!(all.len(), 6);
    // Three lines and a torn fourth are what a kill leaves behind.
    let cut: usize = whole.lines().take(3).map(|line| line.len() + 1).sum();
    fs::write(&out, &whole[..cut + 40]).unwrap();
    succeed(&args);
    let resumed = lines(&out);
    let scores =
        |lines: &[Value]| lines.iter().map(|line| line["overall"]["score"].clone()).collect::<Vec<_>>();
    assert_eq!(scores(&resumed), scores(&all));
    succeed(&args);
    assert_eq!(lines(&out).len(), 6, "what is done is not done again");

    let labels = Path::new(&data).join("records.json").display().to_string();
    let report = object(&["eval", "--labels", &labels, "--predictions", &output, "--json"]);
    assert_eq!(
        keys(&report),
        ["srcc", "plcc", "krcc", "rmse", "accuracy", "final", "n_images", "n_elements"]
    );
    assert_eq!(report["n_images"], 6);
    fs::write(&list, "{\"img_path\": 3}\n").unwrap();
    fail(&args, 2, "line 1");
}

#[test]
fn a_killed_training_run_resumes_to_the_losses_of_an_undisturbed_one() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (whole, killed) = (at("whole"), at("killed"));
    let schedule =
        ["--see-steps", "2", "--see-batch", "2", "--batch", "2", "--steps", "8", "--checkpoint-every", "3"];
    let args = |out: &str, extra: &[&str]| -> Vec<String> {
        let all = [["train", "--from-scratch", "--out", out].as_slice(), &schedule, extra].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let train = |out: &str, extra: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_imatch")).args(args(out, extra)).output().unwrap()
    };
    let logged = |out: &str| fs::read_to_string(Path::new(out).join("metrics.jsonl")).unwrap_or_default();
    let undisturbed = train(&whole, &[]);
    assert!(undisturbed.status.success(), "{}", String::from_utf8_lossy(&undisturbed.stderr));
    assert_eq!(train(&whole, &[]).status.code(), Some(2), "a run folder is not overwritten");

    let mut child = Command::new(env!("CARGO_BIN_EXE_imatch")).args(args(&killed, &[])).spawn().unwrap();
    while logged(&killed).lines().count() < 5 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = train(&killed, &["--resume"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(logged(&whole).lines().count(), 8);
    assert_eq!(logged(&killed), logged(&whole), "every loss of the resumed run");

    let (model, image) = (Path::new(&killed).join("model").display().to_string(), wide());
    let mut args = score_args(&model, &image, "a red circle");
    args.push("--json");
    assert_eq!(object(&args)["overall"]["levels"].as_array().unwrap().len(), 15);
}
