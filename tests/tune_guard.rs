//! What a run refuses: to go on from something else, options that do nothing, and bases that mean something else.

use std::fs::{self, File};

use serde_json::{Value, json};

use super::cli::{fail, imatch, succeed};
use super::tune::{Data, MODEL};

/// A base in f32, with scoring options that may be changed.
fn base(data: &Data, change: impl FnOnce(&mut Value)) -> String {
    data.trained("records.json", "one", &["--learning-rate", "1e-30"]);
    let base = data.path("one/model");
    let path = base.join("imatch.json");
    let mut scoring: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut scoring);
    fs::write(&path, serde_json::to_vec(&scoring).unwrap()).unwrap();
    base.display().to_string()
}

fn on(data: &Data, base: &str, run: &str, extra: &[&str]) -> Vec<String> {
    let mut args = data.args("records.json", run, extra);
    base.clone_into(&mut args[2]);
    args
}

fn args(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn a_run_goes_on_from_what_it_began_with_only() {
    let data = Data::new(5, 3);
    let base = base(&data, |_| ());
    let list = data.text("records.json");
    let begun = on(&data, &base, "run", &["--validation", &list, "--pseudo-label"]);
    succeed(&args(&begun));
    let run = data.text("run");
    let resumed = ["train", "--out", run.as_str(), "--resume"];
    succeed(&resumed);
    succeed(&[args(&begun).as_slice(), &["--resume"]].concat());
    for extra in [
        ["--steps", "9"].as_slice(),
        &["--skip-unsure-raters"],
        &["--lora", "3"],
        &["--lora-base", "q4_0"],
        &["--from-scratch"],
        &["--records", &list, "--validation", &list, "--pseudo-label", "--keep", "0.1"],
    ] {
        fail(&[resumed.as_slice(), extra].concat(), 2, "other options");
        fail(&[args(&begun).as_slice(), extra, &["--resume"]].concat(), 2, "");
    }

    let kept = |name: &str| fs::read(data.path(name)).unwrap();
    let spoil = |name: &str, bytes: Option<&[u8]>, part: &str| {
        let (path, before) = (data.path(name), kept(name));
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let output = imatch(&resumed);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.lines().last().unwrap().contains(part), "expected {part:?} in: {text}");
        fs::write(&path, before).unwrap();
        succeed(&resumed);
    };
    spoil("shapes/0000003.png", None, "records or pictures");
    let labels = String::from_utf8(kept("run/pseudo-labels.json")).unwrap();
    spoil(
        "run/pseudo-labels.json",
        Some(labels.replace("\"prompt\":\"", "\"prompt\":\" ").as_bytes()),
        "records",
    );
    let scoring = String::from_utf8(kept("one/model/imatch.json")).unwrap();
    let other = scoring.replace("\"threshold\":0.5", "\"threshold\":0.4");
    assert_ne!(other, scoring);
    spoil("one/model/imatch.json", Some(other.as_bytes()), "model");
    let settings = String::from_utf8(kept("run/run.json")).unwrap();
    spoil("run/run.json", Some(settings.replace("\"seed\":1,", "\"seed\":2,").as_bytes()), "options");
    let log = data.log("run");
    spoil("run/metrics.jsonl", Some(log.replacen("\"step\":1,", "\"step\":", 1).as_bytes()), "damaged");
    let short: Vec<&str> = log.lines().skip(1).collect();
    spoil("run/metrics.jsonl", Some((short.join("\n") + "\n").as_bytes()), "damaged");
}

#[test]
fn one_process_trains_in_a_folder() {
    let data = Data::new(3, 3);
    data.trained("records.json", "run", &[]);
    let lock = File::open(data.path("run/run.lock")).unwrap();
    lock.lock().unwrap();
    fail(&["train", "--out", &data.text("run"), "--resume"], 2, "another process");
    lock.unlock().unwrap();
    succeed(&["train", "--out", &data.text("run"), "--resume"]);
    // A kill before the options were written leaves a folder that is as good as new.
    fs::create_dir(data.path("early")).unwrap();
    fs::write(data.path("early/run.lock"), "").unwrap();
    data.trained("records.json", "early", &[]);
}

#[test]
fn options_of_the_other_kind_of_run_are_refused() {
    let data = Data::new(3, 3);
    for extra in [["--see-steps", "2"], ["--see-batch", "3"], ["--auxiliary", "0.5"]] {
        data.refused("records.json", "run", &extra, &[extra[0], "--from-scratch only"]);
    }
    let out = data.text("run");
    let list = data.text("records.json");
    for (extra, part) in [
        (["--epochs", "2"].as_slice(), "--epochs"),
        (&["--lora", "8"], "--lora"),
        (&["--lora-base", "q4_0"], "--lora"),
        (&["--skip-unsure-raters"], "--skip"),
        (&["--validation", &list, "--pseudo-label"], "--validation"),
    ] {
        fail(&[["train", "--from-scratch", "--out", &out].as_slice(), extra].concat(), 2, part);
    }
    assert!(!data.path("run").exists());
    fail(&["synth", "--out", &out, "--unlabelled", "--spread", "2"], 2, "--spread");
}

#[test]
fn bases_with_other_levels_are_refused_and_their_temperatures_forgotten() {
    let data = Data::new(4, 3);
    let warm = base(&data, |scoring| {
        scoring["overall"]["temperature"] = json!(3.0);
        scoring["element"]["temperature"] = json!(0.5);
    });
    succeed(&args(&on(&data, &warm, "run", &[])));
    let scoring: Value =
        serde_json::from_slice(&fs::read(data.path("run/model/imatch.json")).unwrap()).unwrap();
    assert_eq!(
        (&scoring["overall"]["temperature"], &scoring["element"]["temperature"]),
        (&json!(1.0), &json!(1.0))
    );
    fs::remove_dir_all(data.path("one")).unwrap();
    let wide = base(&data, |scoring| scoring["overall"]["scale"] = json!([0, 100]));
    fail(&args(&on(&data, &wide, "other", &[])), 2, "from 0 to 100");
}

#[test]
fn a_bad_validation_list_is_refused_before_anything_is_learnt() {
    let data = Data::new(3, 3);
    let many: serde_json::Map<String, Value> =
        (0..300).map(|number| (format!("thing {number} (object)"), Value::Null)).collect();
    let mut records = data.records();
    records[1]["element_score"] = Value::Object(many);
    data.write("many.json", &records);
    let mut records = data.records();
    records[1]["prompt"] = json!(" ");
    data.write("blank.json", &records);
    data.write("empty.json", &[]);
    fs::write(data.path("garbage.json"), "{]").unwrap();
    for (list, parts) in [
        ("many.json", ["many.json: record 1", "300 elements"].as_slice()),
        ("blank.json", &["blank.json: record 1", "prompt is empty"]),
        ("empty.json", &["empty.json"]),
        ("garbage.json", &["garbage.json"]),
    ] {
        let path = data.text(list);
        data.refused("records.json", "run", &["--validation", &path], parts);
        assert!(!data.path("run").exists());
    }
    // Records to learn from are held to the same.
    data.refused("many.json", "run", &["--overall-share", "0", "--questions", "0"], &["both 0"]);
}

#[test]
fn the_validation_set_is_asked_with_its_own_pictures() {
    let (data, other) = (Data::new(4, 3), Data::new(4, 3));
    // The same names, other pictures.
    for index in 0..4 {
        let (from, to) = (format!("shapes/000000{index}.png"), format!("shapes/000000{}.png", 3 - index));
        fs::copy(data.path(&from), other.path(&to)).unwrap();
    }
    let (list, images) = (data.text("records.json"), other.text(""));
    data.trained("records.json", "own", &["--validation", &list]);
    data.trained("records.json", "others", &["--validation", &list, "--validation-images", &images]);
    let predictions = |run: &str| fs::read_to_string(data.path(run).join("predictions.jsonl")).unwrap();
    assert_eq!(data.log("own"), data.log("others"));
    assert_ne!(predictions("own"), predictions("others"));
    assert!(MODEL.ends_with("shapes") && predictions("own").contains("\"scoring\":{"));
}
