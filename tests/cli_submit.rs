//! `imatch submit`: the archive that the challenge takes, or none.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use imatch::data::challenge::{Notes, output};
use imatch::data::evalmuse::read_labels;
use imatch::data::submission::read_predictions;
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::ZipArchive;

use super::cli::{fail, succeed};

/// A test list of two pictures and predictions for it, one in each form and in another order.
fn files(folder: &Path) -> (Value, Value) {
    let list = json!([
        {"prompt": "pig \"giants\"", "img_path": "SDXL-Turbo/00805.png", "total_score": null,
         "element_score": {"pig giants (animal)": null, "4 (Counting)": null}},
        {"prompt": "日本", "img_path": "IF/1.png", "total_score": null, "element_score": {}}
    ]);
    let predictions = json!([
        {"img_path": "IF/1.png", "prompt": "日本", "total_score": 2, "element_score": {}},
        {"img_path": "SDXL-Turbo/00805.png", "prompt": "pig \"giants\"", "overall": {"score": 3.25},
         "elements": [{"element": "4", "category": "counting", "score": 0.125},
                      {"element": "pig giants", "category": "animal", "score": 1e-7}]}
    ]);
    write(folder, "test.json", &list);
    write(folder, "predictions.json", &predictions);
    (list, predictions)
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

fn args(folder: &Path, more: &[&str]) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let [test, predictions, out] = ["test.json", "predictions.json", "submission.zip"].map(at);
    let args = ["submit", "--test", &test, "--predictions", &predictions, "--out", &out];
    args.iter().chain(more).map(|&arg| arg.to_owned()).collect()
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn unpacked(path: &Path) -> Vec<(String, String)> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    (0..archive.len())
        .map(|index| {
            let mut file = archive.by_index(index).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            (file.name().to_owned(), text)
        })
        .collect()
}

#[test]
fn the_archive_holds_scores_in_the_order_and_under_the_keys_of_the_test_list() {
    let folder = TempDir::new().unwrap();
    files(folder.path());
    let said = succeed(&borrowed(&args(folder.path(), &[])));
    assert!(said.starts_with("2 pictures with 2 elements in "), "{said}");
    let out = folder.path().join("submission.zip");
    let output = "[\n\
        {\"prompt\":\"pig \\\"giants\\\"\",\"img_path\":\"SDXL-Turbo/00805.png\",\"total_score\":3.25,\
        \"element_score\":{\"pig giants (animal)\":1e-7,\"4 (Counting)\":0.125}},\n\
        {\"prompt\":\"日本\",\"img_path\":\"IF/1.png\",\"total_score\":2.0,\"element_score\":{}}\n]\n";
    let readme = "runtime per image [s] : \nCPU[1] / GPU[0] : 1\nExtra Data [1] / No Extra Data [0] : 0\n\
                  LLM[1] / Non-LLM[0] : 0\nOther description : \n";
    let expected = [("output.json", output), ("readme.txt", readme)];
    let files = unpacked(&out);
    assert_eq!(files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>(), expected);

    let first = fs::read(&out).unwrap();
    succeed(&borrowed(&args(folder.path(), &[])));
    assert!(first == fs::read(&out).unwrap(), "the same scores gave another archive");
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn the_readme_says_what_the_flags_say() {
    let folder = TempDir::new().unwrap();
    files(folder.path());
    let more = ["--runtime", "0.25", "--gpu", "--extra-data", "--llm", "--description", "- ours: ü"];
    succeed(&borrowed(&args(folder.path(), &more)));
    let readme = &unpacked(&folder.path().join("submission.zip"))[1].1;
    assert_eq!(
        readme,
        "runtime per image [s] : 0.25\nCPU[1] / GPU[0] : 0\nExtra Data [1] / No Extra Data [0] : 1\n\
         LLM[1] / Non-LLM[0] : 1\nOther description : - ours: ü\n"
    );
    for (flags, part) in [
        (["--runtime", "0"], "runtime: expected a positive number of seconds, got 0"),
        (["--runtime", "NaN"], "got NaN"),
        (["--runtime", "inf"], "got inf"),
        (["--description", "a\nb"], "description: expected one line"),
    ] {
        fail(&borrowed(&args(folder.path(), &flags)), 2, part);
    }
    let notes = Notes { runtime: Some(2.0), gpu: true, ..Notes::default() };
    assert!(notes.text().unwrap().starts_with("runtime per image [s] : 2\nCPU[1] / GPU[0] : 0\n"));
}

#[test]
fn predictions_that_are_not_those_of_the_test_list_leave_what_was_there() {
    let folder = TempDir::new().unwrap();
    let (list, good) = files(folder.path());
    let out = folder.path().join("submission.zip");
    fs::write(&out, "earlier").unwrap();
    let refused = |change: &dyn Fn(&mut Value), part: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        write(folder.path(), "predictions.json", &bad);
        fail(&borrowed(&args(folder.path(), &[])), 2, part);
        assert_eq!(fs::read(&out).unwrap(), b"earlier");
        assert!(!folder.path().join("submission.zip.part").exists());
    };
    refused(
        &|p| drop(p.as_array_mut().unwrap().remove(0)),
        "predictions: picture \"IF/1.png\" of \"日本\" is missing",
    );
    refused(
        &|p| {
            let again = p[0].clone();
            p.as_array_mut().unwrap().push(again);
        },
        "picture \"IF/1.png\" of \"日本\" is given twice",
    );
    refused(&|p| p[0]["img_path"] = json!("IF/2.png"), "\"IF/1.png\" of \"日本\" is missing");
    refused(&|p| p[0]["element_score"] = json!({"x": 1}), "predicted element \"x\" is not in the test list");
    refused(
        &|p| drop(p[1]["elements"].as_array_mut().unwrap().remove(0)),
        "element \"4 (Counting)\" has no prediction",
    );
    refused(
        &|p| p[1]["elements"][0]["category"] = json!("object"),
        "element \"4 (Counting)\" has no prediction",
    );
    refused(&|p| p[1]["overall"]["score"] = Value::Null, "total_score: expected a value");
    let extra = |p: &mut Value| {
        let mut extra = p[0].clone();
        extra["img_path"] = json!("IF/2.png");
        p.as_array_mut().unwrap().push(extra);
    };
    refused(&extra, "picture \"IF/2.png\" of \"日本\" is not in the test list");
    let doubled: Vec<Value> = [list.as_array().unwrap().as_slice(), &[list[1].clone()]].concat();
    write(folder.path(), "test.json", &json!(doubled));
    refused(&|_| (), "test list: picture \"IF/1.png\" of \"日本\" is given twice");
    write(folder.path(), "test.json", &json!([]));
    refused(&|_| (), "test list: expected at least one record, got none");
}

#[test]
fn a_key_that_the_list_holds_twice_is_written_once_or_refused() {
    let list = read_labels(
        r#"{"prompt": "p", "img_path": "a", "element_score": {"4 (counting)": null, "4 (counting)": null}}"#,
    )
    .unwrap();
    let submitted = |scores: [f64; 2]| {
        let elements: Vec<Value> = scores
            .iter()
            .map(|score| json!({"element": "4", "category": "counting", "score": score}))
            .collect();
        let line = json!({"prompt": "p", "img_path": "a", "overall": {"score": 3}, "elements": elements});
        output(&list, &read_predictions(&line.to_string()).unwrap())
    };
    let once = submitted([0.5, 0.5]).unwrap();
    assert!(once.json.contains("\"element_score\":{\"4 (counting)\":0.5}"), "{}", once.json);
    assert_eq!((once.n_images, once.n_elements), (1, 1));
    assert_eq!(
        submitted([0.5, 0.25]).unwrap_err().to_string(),
        "picture \"a\" of \"p\": element \"4 (counting)\": expected one score, got 0.5 and 0.25"
    );
}

#[test]
fn an_archive_that_cannot_be_written_is_bad_input() {
    let folder = TempDir::new().unwrap();
    files(folder.path());
    let mut args = args(folder.path(), &[]);
    args[6] = folder.path().join("none").join("submission.zip").display().to_string();
    fail(&borrowed(&args), 2, "submission.zip");
    args[6] = folder.path().display().to_string();
    fail(&borrowed(&args), 2, &folder.path().display().to_string());
}
