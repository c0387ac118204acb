//! Fine-tuning on records: from files to a run folder, through kills, bad data and full disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{fail, lines, object, score_args, succeed};

/// A model that is small and quick.
pub(crate) const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/shapes");

/// Records with pictures, in a folder of their own.
pub(crate) struct Data {
    folder: TempDir,
}

impl Data {
    pub(crate) fn new(count: usize, raters: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let (out, count, raters) =
            (folder.path().display().to_string(), count.to_string(), raters.to_string());
        succeed(&["synth", "--out", &out, "--count", &count, "--seed", "3", "--raters", &raters]);
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        serde_json::from_str(&fs::read_to_string(self.path("records.json")).unwrap()).unwrap()
    }

    /// Writes other records beside the first.
    pub(crate) fn write(&self, name: &str, records: &[Value]) {
        fs::write(self.path(name), serde_json::to_vec(records).unwrap()).unwrap();
    }

    /// The arguments of a short run on one of the lists.
    pub(crate) fn args(&self, list: &str, run: &str, extra: &[&str]) -> Vec<String> {
        let (list, images, out) = (self.text(list), self.text(""), self.text(run));
        let args = ["train", "--model", MODEL, "--records", &list, "--images", &images, "--out", &out];
        let short = ["--steps", "6", "--batch", "2", "--checkpoint-every", "2"];
        [args.as_slice(), &short, extra].concat().into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn train(&self, list: &str, run: &str, extra: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_imatch")).args(self.args(list, run, extra)).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn trained(&self, list: &str, run: &str, extra: &[&str]) {
        let output = self.train(list, run, extra);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    pub(crate) fn refused(&self, list: &str, run: &str, extra: &[&str], parts: &[&str]) {
        let output = self.train(list, run, extra);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let last = text.lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "expected {part:?} in: {text}");
        }
    }

    pub(crate) fn log(&self, run: &str) -> String {
        fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default()
    }
}

#[test]
fn a_run_leaves_a_model_a_log_curves_and_predictions() {
    let data = Data::new(6, 3);
    data.trained("records.json", "run", &["--validation", &data.text("records.json")]);
    let run = data.path("run");
    assert_eq!(data.log("run").lines().count(), 6);
    let settings: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(settings["start"]["from"], "checkpoint");
    assert_eq!(settings["recipe"]["strategies"]["image_augmentation"]["on"], true);
    let curves = fs::read_to_string(run.join("curves.svg")).unwrap();
    assert!(curves.starts_with("<svg") && curves.matches("<polyline").count() > 1, "{curves}");

    // The predictions are those of the exported model, and can be evaluated as they are.
    let predictions = run.join("predictions.jsonl");
    let (predicted, records) = (lines(&predictions), data.records());
    assert_eq!(predicted.len(), records.len());
    let (labels, file) = (data.text("records.json"), predictions.display().to_string());
    let report = object(&["eval", "--labels", &labels, "--predictions", &file, "--json"]);
    assert_eq!(report["n_images"], 6);
    let (model, image) = (run.join("model").display().to_string(), data.text("shapes/0000002.png"));
    let record = &records[2];
    let mut args = score_args(&model, &image, record["prompt"].as_str().unwrap());
    args.extend(["--json", "--prompt-type", record["type"].as_str().unwrap()]);
    let elements: Vec<&String> = record["element_score"].as_object().unwrap().keys().collect();
    for element in &elements {
        args.extend(["--element", element.as_str()]);
    }
    let scored = object(&args);
    let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4;
    assert!(near(&scored["overall"]["score"], &predicted[2]["overall"]["score"]), "{scored}");
    for (index, element) in elements.iter().enumerate() {
        let (one, other) = (&scored["elements"][index], &predicted[2]["elements"][index]);
        assert!(near(&one["score"], &other["score"]), "{element}: {one} {other}");
        assert_eq!(one["category"], other["category"]);
    }
}

#[test]
fn a_model_from_nothing_learns_32_records_by_heart() {
    let data = Data::new(32, 3);
    let (start, out) = (data.text("start"), data.text("run"));
    let one = ["--steps", "1", "--see-steps", "1", "--see-batch", "1"];
    succeed(&[["train", "--from-scratch", "--out", &start].as_slice(), &one].concat());
    let (model, list, images) = (format!("{start}/model"), data.text("records.json"), data.text(""));
    let args = ["train", "--model", &model, "--records", &list, "--images", &images, "--out", &out];
    let fast =
        ["--steps", "120", "--batch", "16", "--learning-rate", "1.5e-3", "--warmup", "20", "--shards", "2"];
    let same = ["--image-augmentation", "off", "--uncategorised", "0", "--untyped", "0"];
    succeed(&[args.as_slice(), &fast, &same, &["--validation", &list]].concat());
    let predictions = data.text("run/predictions.jsonl");
    let report = object(&["eval", "--labels", &list, "--predictions", &predictions, "--json"]);
    assert_eq!(report["accuracy"], 1.0, "{report}");
    assert!(report["srcc"].as_f64().unwrap() > 0.9, "{report}");
}

#[test]
fn killed_at_any_moment_a_run_resumes_to_the_losses_of_an_undisturbed_one() {
    let data = Data::new(5, 3);
    let strategies = ["--score-perturbation", "on", "--paraphrase", "on:5", "--soft-labels"];
    data.trained("records.json", "whole", &strategies);
    let mut unfinished = 0;
    for lines in [1, 3, 4] {
        let run = format!("killed{lines}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_imatch"))
            .args(data.args("records.json", &run, &strategies))
            .spawn()
            .unwrap();
        while data.log(&run).lines().count() < lines && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        unfinished += usize::from(!data.path(&run).join("model").exists());
        succeed(&["train", "--out", &data.text(&run), "--resume"]);
        assert_eq!(data.log(&run), data.log("whole"), "killed after {lines} steps");
        let weights = |run: &str| fs::read(data.path(run).join("model/model.safetensors")).unwrap();
        assert!(weights(&run) == weights("whole"), "the same weights, killed after {lines} steps");
    }
    assert!(unfinished > 0, "no run was killed before its end");
    let whole = data.text("whole");
    fail(&["train", "--out", &whole, "--resume", "--paraphrase", "off"], 2, "other options");
    fail(&["train", "--out", &whole, "--resume", "--model", "elsewhere"], 2, "other options");
    let mut records = data.records();
    records[0]["total_score"] = json!([1, 1, 1]);
    data.write("records.json", &records);
    fail(&["train", "--out", &whole, "--resume"], 2, "records or pictures");
}

#[test]
fn losses_do_not_depend_on_shards_and_passes() {
    let data = Data::new(5, 3);
    // Pictures of two shapes: they cannot go through the model together.
    let mut records = data.records();
    fs::copy(super::cli::wide(), data.path("shapes/wide.png")).unwrap();
    records[1]["img_path"] = json!("shapes/wide.png");
    data.write("mixed.json", &records);
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/qwen3_vl_tied");
    let (list, images) = (data.text("mixed.json"), data.text(""));
    let losses = |run: &str, extra: &[&str]| -> Vec<f64> {
        let out = data.text(run);
        let args = ["train", "--model", model, "--records", &list, "--images", &images, "--out", &out];
        succeed(&[args.as_slice(), &["--steps", "2", "--batch", "5"], extra].concat());
        lines(&data.path(run).join("metrics.jsonl"))
            .iter()
            .map(|line| line["answer_loss"].as_f64().unwrap())
            .collect()
    };
    let whole = losses("whole", &["--shards", "1"]);
    assert_eq!(whole.len(), 2);
    for (run, extra) in [("shards", ["--shards", "3"]), ("passes", ["--micro-batch", "1"])] {
        for (other, loss) in losses(run, &extra).iter().zip(&whole) {
            assert!((other - loss).abs() < 1e-4 * loss, "{run}: {other} and {loss}");
        }
    }
}

#[test]
fn pseudo_labels_are_written_down_and_learnt_from() {
    let data = Data::new(4, 3);
    let unlabelled: Vec<Value> = data
        .records()
        .into_iter()
        .map(|mut record| {
            record["total_score"] = Value::Null;
            record["element_score"]
                .as_object_mut()
                .unwrap()
                .values_mut()
                .for_each(|score| *score = Value::Null);
            record
        })
        .collect();
    data.write("validation.json", &unlabelled);
    let all = ["--validation", &data.text("validation.json"), "--pseudo-label", "--keep", "0.5"];
    data.trained("records.json", "run", &all);
    let labels: Vec<Value> =
        serde_json::from_slice(&fs::read(data.path("run/pseudo-labels.json")).unwrap()).unwrap();
    assert!((2..=4).contains(&labels.len()), "{labels:?}");
    assert_eq!(labels.iter().filter(|record| record["total_score"].is_number()).count(), 2);
    // The teacher saw the records alone, the student more.
    data.trained("records.json", "plain", &[]);
    assert_eq!(data.log("run/teacher"), data.log("plain"));
    assert_ne!(data.log("run"), data.log("plain"));

    // Killed while the student learns, the labels stay what they are.
    let (log, before) = (data.log("run"), fs::read(data.path("run/pseudo-labels.json")).unwrap());
    fs::remove_dir_all(data.path("run/checkpoint")).unwrap();
    succeed(&["train", "--out", &data.text("run"), "--resume"]);
    assert_eq!(data.log("run"), log);
    assert_eq!(fs::read(data.path("run/pseudo-labels.json")).unwrap(), before);
}

#[test]
fn an_adapter_is_learnt_written_merged_and_scored() {
    let data = Data::new(6, 3);
    let list = data.text("records.json");
    let lora = ["--lora", "3", "--lora-targets", "q_proj,v_proj,gate_proj", "--learning-rate", "1e-2"];
    // On a converted base the merged model is written too: nothing else could use the adapter.
    data.trained("records.json", "converted", &[lora.as_slice(), &["--validation", &list]].concat());
    let base = data.text("base");
    data.trained("records.json", "one", &["--learning-rate", "1e-30"]);
    fs::rename(data.path("one/model"), &base).unwrap();
    let mut args = data.args("records.json", "run", &[lora.as_slice(), &["--validation", &list]].concat());
    args[2].clone_from(&base);
    succeed(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let (adapter, merged) = (data.text("run/adapter"), data.text("merged"));
    let config: Value =
        serde_json::from_slice(&fs::read(data.path("run/adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["peft_type"], &config["r"], &config["lora_alpha"]),
        (&json!("LORA"), &json!(3), &json!(6))
    );
    assert!(!data.path("run/model").exists());
    // Only the adapter is in the checkpoint.
    let size = |path: &str| fs::metadata(data.path(path)).unwrap().len();
    assert!(size("run/checkpoint/learner.bpk") < 300_000);

    succeed(&["convert", "--model", &base, "--adapter", &adapter, "--quant", "f32", "--out", &merged]);
    let (predicted, record) = (&lines(&data.path("run/predictions.jsonl"))[1], &data.records()[1]);
    let image = data.text("shapes/0000001.png");
    let score = |model: &str| {
        let mut args = score_args(model, &image, record["prompt"].as_str().unwrap());
        args.extend(["--json", "--prompt-type", record["type"].as_str().unwrap()]);
        object(&args)["overall"]["score"].as_f64().unwrap()
    };
    let want = predicted["overall"]["score"].as_f64().unwrap();
    assert!((score(&merged) - want).abs() < 1e-3, "{} and {want}", score(&merged));
    assert!((score(&base) - want).abs() > 1e-2, "the adapter changes something");
    let want = lines(&data.path("converted/predictions.jsonl"))[1]["overall"]["score"].as_f64().unwrap();
    assert!((score(&data.text("converted/model")) - want).abs() < 1e-3);

    // Killed and resumed, it is the same adapter.
    let weights = |run: &str| fs::read(data.path(run).join("adapter/adapter_model.safetensors")).unwrap();
    let before = weights("run");
    fs::remove_dir_all(data.path("run/adapter")).unwrap();
    succeed(&["train", "--out", &data.text("run"), "--resume"]);
    assert!(weights("run") == before);
    data.refused("records.json", "other", &["--lora-alpha", "3"], &["--lora-alpha", "--lora"]);
    data.refused("records.json", "other", &["--lora", "0"], &["rank is 0"]);
    data.refused("records.json", "other", &["--lora", "2", "--lora-targets", "x_proj"], &["x_proj"]);
}

#[test]
fn bad_data_is_named_by_file_record_and_field_before_anything_is_written() {
    let data = Data::new(3, 3);
    let cases: [(&str, Value, &[&str]); 7] = [
        ("total_score", json!([3, null, 3]), &["record 1", "total_score"]),
        ("total_score", json!([]), &["record 1", "total_score", "at least one rater"]),
        ("total_score", json!([3, 6]), &["record 1", "total_score", "6"]),
        (
            "element_score",
            json!({"red circle (color)": [0, 2]}),
            &["record 1", "element_score", "red circle"],
        ),
        ("element_score", json!(7), &["record 1", "element_score"]),
        ("img_path", json!("../secret.png"), &["record 1", "img_path", "inside the data folder"]),
        ("img_path", json!("/etc/passwd"), &["record 1", "img_path"]),
    ];
    for (field, value, parts) in cases {
        let mut records = data.records();
        records[1][field] = value;
        data.write("bad.json", &records);
        data.refused("bad.json", "run", &[], &[&["bad.json"], parts].concat());
    }
    let text = fs::read_to_string(data.path("records.json")).unwrap();
    fs::write(data.path("bad.json"), text.replacen("\"total_score\":[", "\"total_score\":[NaN,", 1)).unwrap();
    data.refused("bad.json", "run", &[], &["bad.json", "record 0", "total_score"]);
    data.write("bad.json", &[]);
    data.refused("bad.json", "run", &[], &["no record can be used"]);
    data.refused("missing.json", "run", &[], &["missing.json"]);
    data.refused("records.json", "run", &["--epochs", "2"], &["cannot be used with"]);
    data.refused("records.json", "run", &["--overall-share", "1.5"], &["overall-share"]);
    data.refused("records.json", "run", &["--lighting", "nan"], &["lighting"]);
    data.refused("records.json", "run", &["--clip", "0"], &["clip"]);
    data.refused("records.json", "run", &["--pseudo-label"], &["--validation"]);
    assert!(!data.path("run").exists());
}

#[test]
fn what_is_not_learnt_from_is_listed() {
    let data = Data::new(4, 3);
    let mut records = data.records();
    records[1]["img_path"] = json!("shapes/lost.png");
    records[2]["total_score"] = Value::Null;
    records[3]["split_confidence"] = json!([1, 1, 0]);
    data.write("some.json", &records);
    data.trained("some.json", "run", &["--skip-doubtful-splits"]);
    let excluded = lines(&data.path("run/excluded.jsonl"));
    let said: Vec<(u64, &str)> = excluded
        .iter()
        .map(|line| (line["record"].as_u64().unwrap(), line["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [(1, "missing_picture"), (2, "unlabelled"), (3, "doubtful_split")]);
}

#[test]
fn an_unreadable_picture_stops_the_run_and_loses_nothing() {
    let data = Data::new(6, 3);
    data.trained("records.json", "whole", &[]);
    let broken = data.path("shapes/0000004.png");
    let whole = fs::read(&broken).unwrap();
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    data.refused("records.json", "run", &[], &["0000004.png"]);
    let done = data.log("run").lines().count();
    fs::write(&broken, whole).unwrap();
    succeed(&["train", "--out", &data.text("run"), "--resume"]);
    assert!(done < 6 && data.log("run") == data.log("whole"), "{done} steps were done before");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room() {
    let data = Data::new(4, 3);
    data.trained("records.json", "whole", &[]);
    // A limit on the length of files is the full disk that needs no disk: writing fails half-way.
    let limited = |blocks: u32| {
        let args: Vec<String> =
            data.args("records.json", "run", &[]).iter().map(|arg| format!("'{arg}'")).collect();
        let line = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec '{}' {}",
            env!("CARGO_BIN_EXE_imatch"),
            args.join(" ")
        );
        Command::new("bash").args(["-c", &line]).output().unwrap()
    };
    let output = limited(4096);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().last().unwrap().contains("checkpoint"), "{text}");
    assert!(!Path::new(&data.text("run/checkpoint")).exists(), "half a checkpoint is none");
    succeed(&["train", "--out", &data.text("run"), "--resume"]);
    assert_eq!(data.log("run"), data.log("whole"));
}
