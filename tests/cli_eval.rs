//! `imatch eval` as it is called: the contract's object, tables, intervals, calibration.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{fail, imatch, keys, object, succeed};

const CONTRACT: [&str; 8] = ["srcc", "plcc", "krcc", "rmse", "accuracy", "final", "n_images", "n_elements"];

/// The official scorer's vector as files of a folder; `sign` turns the overall predictions round.
pub(super) fn vector(folder: &Path, sign: f64) -> (String, String) {
    let labels = [
        1.0, 1.333_333, 1.666_667, 2.0, 2.333_333, 2.666_667, 3.0, 3.333_333, 3.666_667, 4.0, 4.333_333,
        4.666_667, 5.0, 2.5, 3.5,
    ];
    let scores = [1.2, 1.1, 2.0, 1.8, 2.6, 2.2, 3.1, 3.0, 3.9, 3.6, 4.1, 4.6, 4.8, 2.9, 3.2];
    let elements = [
        (
            json!({"a (color)": 0.0, "b (Counting)": 0.333_333}),
            json!({"a (color)": 0.49, "b (Counting)": 0.51}),
        ),
        (
            json!({"a (color)": 0.666_667, "b (Counting)": 1.0}),
            json!({"a (color)": 0.5, "b (Counting)": 0.2}),
        ),
        (json!({"a (color)": 0.5}), json!({"a (color)": 0.7})),
    ];
    let item = |index: usize, total: f64, elements: &Value| {
        let (kind, model) = (["real", "synthetic"][index % 2], ["IF", "SD3", "Kolors"][index / 5]);
        json!({"prompt": "p", "type": kind, "img_path": format!("{model}/{index:05}.png"), "total_score": total,
               "element_score": elements})
    };
    let write = |name: &str, items: Vec<Value>| {
        let path = folder.join(name);
        fs::write(&path, json!(items).to_string()).unwrap();
        path.display().to_string()
    };
    let truth = (0..15).map(|index| item(index, labels[index], &elements[index % 3].0)).collect();
    let guess = (0..15).map(|index| item(index, sign * scores[index], &elements[index % 3].1)).collect();
    (write("labels.json", truth), write("predictions.json", guess))
}

#[test]
fn the_object_is_the_contracts_and_grows_only_when_asked() {
    let folder = TempDir::new().unwrap();
    let (labels, predictions) = vector(folder.path(), 1.0);
    let args = ["eval", "--labels", &labels, "--predictions", &predictions, "--json"];
    let plain = object(&args);
    assert_eq!(keys(&plain), CONTRACT);
    let more =
        ["--by", "generator,category", "--by", "type", "--bootstrap", "10", "--seed", "4", "--reliability"];
    let full = object(&[&args[..], &more].concat());
    let added = ["intervals", "by_category", "by_type", "by_generator", "reliability"];
    assert_eq!(keys(&full), [&CONTRACT[..], &added].concat());
    for name in CONTRACT {
        assert_eq!(full[name], plain[name], "{name}");
    }
    assert_eq!(
        keys(&full["intervals"]),
        ["resamples", "seed", "share", "srcc", "plcc", "krcc", "rmse", "accuracy", "final"]
    );
    assert_eq!(keys(&full["intervals"]["plcc"]), ["low", "high", "undefined"]);
    assert_eq!((&full["intervals"]["resamples"], &full["intervals"]["seed"]), (&json!(10), &json!(4)));
    assert_eq!(
        full["by_category"][1],
        json!({"category": "counting", "n_elements": 10, "accuracy": 0.0, "majority": 0.5})
    );
    assert_eq!(keys(&full["by_type"][0]), [&["type"], &CONTRACT[..]].concat());
    assert_eq!(keys(&full["by_generator"]), ["srcc", "krcc", "generators"]);
    let row = ["generator", "label", "prediction", "label_rank", "prediction_rank"];
    assert_eq!(keys(&full["by_generator"]["generators"][0]), [&row[..], &CONTRACT].concat());
    assert_eq!(keys(&full["reliability"]), ["bins", "ece"]);
    assert_eq!(object(&[&args[..], &["--by", "type"]].concat())["by_type"], full["by_type"]);
}

#[test]
fn tables_are_for_people() {
    let folder = TempDir::new().unwrap();
    let (labels, predictions) = vector(folder.path(), 1.0);
    let args = ["eval", "--labels", &labels, "--predictions", &predictions];
    let figures = "15 images, 25 elements\nSRCC     0.9750\nPLCC     0.9721\nKRCC     0.8857\nRMSE     0.2851\n\
                   accuracy 0.6000\nfinal    0.7868\n";
    assert_eq!(succeed(&args), figures);
    let all = succeed(&[&args[..], &["--by", "category,type,generator", "--reliability"]].concat());
    let rest = all.strip_prefix(figures).unwrap_or_else(|| panic!("{all}"));
    let expected = "
category  elements  accuracy  majority
color           15    1.0000    0.6667
counting        10    0.0000    0.5000
";
    assert!(rest.starts_with(expected), "{rest}");
    for line in [
        "prompts    images  elements    SRCC    PLCC    KRCC    RMSE  accuracy   final",
        "order of the generators: SRCC 1.0000, KRCC 1.0000",
        "expected calibration error 0.3000",
    ] {
        assert!(rest.lines().any(|found| found == line), "{line:?} is not in\n{rest}");
    }
    let intervals = succeed(&[&args[..], &["--bootstrap", "50"]].concat());
    let lines: Vec<&str> = intervals.lines().collect();
    assert!(lines[1].starts_with("SRCC     0.9750   0."), "{intervals}");
    assert_eq!(lines[7], "intervals: middle 95 % of 50 resamples of the pictures, seed 0");
    let one = folder.path().join("one.json");
    fs::write(&one, r#"{"prompt": "p", "img_path": "a", "total_score": 3}"#).unwrap();
    let one = one.display().to_string();
    let text = succeed(&["eval", "--labels", &one, "--predictions", &one, "--bootstrap", "7"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "SRCC     undefined   undefined in 7 resamples");
    assert_eq!(lines[4], "RMSE     0.0000   0.0000 to 0.0000");
}

#[test]
fn a_plcc_that_hides_a_negative_sign_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let (labels, predictions) = vector(folder.path(), -1.0);
    let output = imatch(&["eval", "--labels", &labels, "--predictions", &predictions, "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("warning: predictions fall where labels rise (raw Pearson -0.9720)"), "{said}");
}

#[test]
fn calibration_writes_options_that_are_read_back() {
    let folder = TempDir::new().unwrap();
    let (labels, predictions) = vector(folder.path(), 1.0);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (given, out) = (at("given.json"), at("out.json"));
    // As the vector has them, the elements' scores say less than a coin.
    let turned =
        fs::read_to_string(&predictions).unwrap().replace("\"b (Counting)\":0.2", "\"b (Counting)\":0.99");
    fs::write(&predictions, turned).unwrap();
    fs::write(&given, r#"{"overall": {"kind": "yes_no"}, "element": {"temperature": 3}}"#).unwrap();
    let args = ["eval", "--labels", &labels, "--predictions", &predictions, "--calibrate", &out];
    fail(&args, 2, "expected the predictions to say their scoring options or to be given them");
    assert!(!Path::new(&out).exists());
    let output = imatch(&[&args[..], &["--scoring", &given, "--json"]].concat());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap().trim_end(),
        "warning: overall.temperature stays 1: the predictions have no levels"
    );
    let calibration: Value = serde_json::from_slice::<Value>(&output.stdout).unwrap()["calibration"].take();
    assert_eq!(keys(&calibration), ["overall", "element", "scoring"]);
    assert_eq!(calibration["overall"], Value::Null);
    let written: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(written, calibration["scoring"]);
    assert_eq!(written["overall"]["kind"], "yes_no");
    let temperature = calibration["element"]["temperature"].as_f64().unwrap();
    assert!((written["element"]["temperature"].as_f64().unwrap() - 3.0 * temperature).abs() < 1e-12);
    // What was written are options of predictions in their turn.
    let text = succeed(&[&args[..], &["--scoring", &out, "--soft-labels"]].concat());
    let table: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(table[2], "question  temperature  questions  nats before  nats after");
    assert_eq!(table[1].split_whitespace().collect::<Vec<_>>(), ["overall", "1.0000", "0", "-", "-"]);
    fs::write(&given, r#"{"element": {"temperature": 0}}"#).unwrap();
    fail(&[&args[..], &["--scoring", &given]].concat(), 2, "given.json");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let folder = TempDir::new().unwrap();
    let (labels, predictions) = vector(folder.path(), 1.0);
    let args = ["eval", "--labels", &labels, "--predictions", &predictions];
    for (wrong, part) in [
        (&["--bootstrap", "0"][..], "--bootstrap"),
        (&["--seed", "1"], "--bootstrap"),
        (&["--by", "colour"], "colour"),
        (&["--scoring", "x.json"], "--calibrate"),
        (&["--soft-labels"], "--calibrate"),
    ] {
        fail(&[&args[..], wrong].concat(), 2, part);
    }
    let bad = folder.path().join("bad.json");
    fs::write(&bad, fs::read_to_string(&predictions).unwrap().replace("0.51", "1.51")).unwrap();
    let bad = bad.display().to_string();
    let args = ["eval", "--labels", &labels, "--predictions", &bad];
    succeed(&args);
    fail(
        &[&args[..], &["--reliability"]].concat(),
        2,
        "--reliability: expected elements with scores from 0 to 1",
    );
}
