//! Run folders: options that travel with a run, and a trained model through conversion.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::cli::{fail, object, score_args, succeed, wide};

const TINY: [&str; 10] =
    ["--steps", "3", "--see-steps", "1", "--see-batch", "1", "--batch", "1", "--checkpoint-every", "2"];

fn train<'a>(out: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    [["train", "--from-scratch", "--out", out].as_slice(), extra].concat()
}

#[test]
fn a_run_is_resumed_with_its_own_options_and_its_model_converts() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let out = run.display().to_string();
    succeed(&train(&out, &[TINY.as_slice(), &["--seed", "7"]].concat()));
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 3);
    fail(&train(&out, &["--resume", "--seed", "8"]), 2, "other options");
    fail(&train(&out, &["--resume", "--steps", "4"]), 2, "other options");

    // A kill between the two renames that swap checkpoints; a mark shows whether steps are repeated.
    let log = log.replace("{\"step\":", "{ \"step\": ");
    fs::write(run.join("metrics.jsonl"), &log).unwrap();
    fs::rename(run.join("checkpoint"), run.join("checkpoint.old")).unwrap();
    fs::remove_dir_all(run.join("model")).unwrap();
    succeed(&train(&out, &["--resume"]));
    assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap(), log, "nothing was trained twice");

    let model = run.join("model").display().to_string();
    let scores = |model: &str| {
        let image = wide();
        let mut args = score_args(model, &image, "a red circle");
        args.extend(["--element", "red circle (color)", "--json"]);
        let result = object(&args);
        assert_eq!(result["overall"]["levels"].as_array().unwrap().len(), 15);
        [&result["overall"]["score"], &result["elements"][0]["score"]].map(|score| score.as_f64().unwrap())
    };
    let exact = scores(&model);
    // Rounding to 8 and 4 bits moves an untrained model's nearly even answers by little.
    for (quant, bound) in [("f32", 1e-5), ("q8_0", 0.05), ("q4_0", 0.5)] {
        let to = folder.path().join(quant).display().to_string();
        succeed(&["convert", "--model", &model, "--quant", quant, "--out", &to]);
        let converted = scores(&to);
        let apart = exact.iter().zip(converted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < bound, "{quant}: {exact:?} and {converted:?}");
        let manifest: Value =
            serde_json::from_slice(&fs::read(Path::new(&to).join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["quantization"], quant);
    }
}

#[test]
fn options_that_train_nothing_are_refused_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let out = run.display().to_string();
    for (options, part) in [
        (["--steps", "0"], "steps"),
        (["--batch", "0"], "batch"),
        (["--checkpoint-every", "0"], "checkpoint-every"),
        (["--shards", "0"], "shards"),
        (["--shards", "20000"], "at most"),
        (["--batch", "18446744073709551615"], "at most"),
        (["--learning-rate", "1e300"], "at most"),
        (["--learning-rate", "nan"], "learning-rate"),
        (["--learning-rate", "0"], "learning-rate"),
        (["--weight-decay", "inf"], "weight-decay"),
        (["--see-steps", "1000000"], "see-steps"),
    ] {
        fail(&train(&out, &options), 2, part);
    }
    fail(&train(&out, &["--resume"]), 2, "run.json");
    assert!(!run.exists());
    fs::create_dir(&run).unwrap();
    fs::write(run.join("thesis.txt"), "years of work").unwrap();
    fail(&train(&out, &[]), 2, "not empty");
    fs::write(run.join("run.json"), "{}").unwrap();
    fail(&train(&out, &["--resume"]), 2, "no run");
}
