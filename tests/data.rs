//! `EvalMuse` records, predictions, their pairing and the report of `eval`.
#![allow(clippy::float_cmp, reason = "labels and counts are exact")]

use imatch::data::evalmuse::{Rating, read_labels, read_records, write_records};
use imatch::data::evaluation::{EvalReport, evaluate};
use imatch::data::submission::read_predictions;
use imatch::error::Kind;
use imatch::metrics::PlccVariant;
use imatch::text::PromptType;
use serde_json::{Value, json};

const RECORD: &str = r#"[{"prompt_id": "7", "prompt": "a puffin (bird)", "type": "real",
  "img_path": "SDXL-Turbo/00110.png", "total_score": [4, 3, 3],
  "element_score": {"puffin (bird) (animal)": [1, 0, 1], "0 (Counting)": 0.0, "Compass (object-other)": 0.666667},
  "promt_meaningless": [0, 0, 0], "split_confidence": [0, 0, 0], "attribute_confidence": [1, 1, 1],
  "fidelity_label": ["a", "b"], "var": 0.25, "mask": [1, 0]}]"#;

#[track_caller]
fn refused<T: std::fmt::Debug>(result: imatch::Result<T>, expected: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in: {text}");
    }
}

/// Fifteen pictures in the challenge's format, with the elements of three.
fn vector(sign: f64) -> (Value, Value) {
    let labels = [
        1.0, 1.333_333, 1.666_667, 2.0, 2.333_333, 2.666_667, 3.0, 3.333_333, 3.666_667, 4.0, 4.333_333,
        4.666_667, 5.0, 2.5, 3.5,
    ];
    let predictions = [1.2, 1.1, 2.0, 1.8, 2.6, 2.2, 3.1, 3.0, 3.9, 3.6, 4.1, 4.6, 4.8, 2.9, 3.2];
    let elements = [
        (json!({"a": 0.0, "b": 0.333_333}), json!({"b": 0.51, "a": 0.49})),
        (json!({"a": 0.666_667, "b": 1.0}), json!({"a": 0.5, "b": 0.2})),
        (json!({"a": 0.5}), json!({"a": 0.7})),
    ];
    let item = |index: usize, total: f64, elements: &Value| {
        json!({"prompt": format!("prompt {}", index / 4), "img_path": format!("M/{index:05}.png"),
               "total_score": total, "element_score": elements})
    };
    let truth = (0..15).map(|index| item(index, labels[index], &elements[index % 3].0)).collect();
    let guess =
        (0..15).rev().map(|index| item(index, sign * predictions[index], &elements[index % 3].1)).collect();
    (truth, guess)
}

fn eval(labels: &Value, predictions: &Value, variant: PlccVariant) -> imatch::Result<EvalReport> {
    evaluate(&read_labels(&labels.to_string())?, &read_predictions(&predictions.to_string())?, variant)
}

#[test]
fn a_published_record_is_read_whole_and_in_order() {
    let records = read_records(RECORD).unwrap();
    let record = &records[0];
    assert_eq!(record.prompt_id.as_deref(), Some("7"));
    assert_eq!(record.prompt_type, Some(PromptType::Real));
    assert_eq!(record.total_score, Rating::Raters(vec![4.0, 3.0, 3.0]));
    assert_eq!(record.total().unwrap(), 10.0 / 3.0);
    let expected =
        [("puffin (bird) (animal)", 2.0 / 3.0), ("0 (Counting)", 0.0), ("Compass (object-other)", 0.666_667)];
    assert_eq!(record.elements().unwrap(), expected);
    assert_eq!(record.attribute_confidence.mean(), Some(1.0));
}

#[test]
fn a_mean_counts_however_many_raters_there_are() {
    let text = r#"{"prompt": "p", "img_path": "a.png", "total_score": [1, 2, 3, 4, 5, 5],
                   "element_score": {"x (object)": [1, 0, 1, 0, 0, 1]}}"#;
    let record = &read_records(text).unwrap()[0];
    assert_eq!(record.total().unwrap(), 20.0 / 6.0);
    assert_eq!(record.elements().unwrap(), [("x (object)", 0.5)]);
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let mut records = read_records(RECORD).unwrap();
    records.push(
        read_records(
            r#"{"prompt": "\"q\"\n", "img_path": "b", "total_score": null, "element_score": {"z": null}}"#,
        )
        .unwrap()
        .remove(0),
    );
    let text = write_records(&records).unwrap();
    assert_eq!(read_records(&text).unwrap(), records);
    assert_eq!(text.lines().count(), 4);
    assert!(text.contains(
        r#""total_score":[4,3,3],"element_score":{"puffin (bird) (animal)":[1,0,1],"0 (Counting)":0,"#
    ));
    assert_eq!(read_records(&write_records(&[]).unwrap()).unwrap(), []);
}

#[test]
fn lists_lines_and_a_byte_order_mark_are_read_alike() {
    let one = r#"{"prompt": "p", "img_path": "a.png"}"#;
    for text in [format!("[{one},{one}]"), format!("{one}\n{one}\n"), format!("\u{feff} {one}{one}")] {
        assert_eq!(read_records(&text).unwrap().len(), 2, "{text}");
    }
    assert_eq!(read_records("").unwrap(), []);
}

#[test]
fn a_bad_record_is_named_with_its_field() {
    let good =
        r#"{"prompt": "p", "img_path": "a.png", "total_score": 3, "element_score": {"x (object)": 1}}"#;
    let cases: [(&str, &[&str]); 15] = [
        (r#"{"img_path": "a.png"}"#, &["prompt is missing"]),
        (r#"{"prompt": "p"}"#, &["img_path is missing or empty"]),
        (r#"{"prompt": "p", "img_path": ""}"#, &["img_path is missing or empty"]),
        (r#"{"prompt": null, "img_path": "a"}"#, &["prompt: invalid type: null"]),
        (
            r#"{"prompt": "p", "img_path": "a", "total_score": []}"#,
            &["total_score: expected at least one rater"],
        ),
        (
            r#"{"prompt": "p", "img_path": "a", "total_score": [3, null]}"#,
            &["total_score: invalid type: null"],
        ),
        (r#"{"prompt": "p", "img_path": "a", "total_score": NaN}"#, &["total_score: expected value"]),
        (r#"{"prompt": "p", "img_path": "a", "total_score": 1e999}"#, &["total_score: number out of range"]),
        (r#"{"prompt": "p", "img_path": "a", "total_score": "3"}"#, &["total_score: invalid type: string"]),
        (r#"{"prompt": "p", "img_path": "a", "total_score": true}"#, &["total_score: invalid type: boolean"]),
        (
            r#"{"prompt": "p", "img_path": "a", "total_score": [1e308, 1e308]}"#,
            &["total_score: the mean is not finite"],
        ),
        (
            r#"{"prompt": "p", "img_path": "a", "element_score": {"x": []}}"#,
            &["element_score: \"x\": expected at least"],
        ),
        (r#"{"prompt": "p", "prompt": "q", "img_path": "a"}"#, &["prompt is given twice"]),
        (
            r#"{"prompt": "p", "img_path": "a", "type": "drawn"}"#,
            &["type: expected real or synthetic, got \"drawn\""],
        ),
        ("7", &["invalid type: integer `7`, expected a record"]),
    ];
    for (bad, expected) in cases {
        for text in [format!("[{good}, {bad}]"), format!("{good}\n{bad}")] {
            let expected: Vec<&str> = ["record 1"].iter().chain(expected).copied().collect();
            refused(read_records(&text), &expected);
        }
    }
    refused(read_records(&format!("[{good}")), &["record 1: the list ends before its \"]\""]);
    refused(read_records(&format!("[{good}] x")), &["trailing characters"]);
    refused(read_records(&"[".repeat(100_000)), &["record 0"]);
}

#[test]
fn a_path_that_leaves_the_data_folder_is_refused_where_pictures_are_opened() {
    for path in
        ["../a.png", "/etc/passwd", "a/../../b", "..", "C:\\a.png", "\\\\host\\a", "a\\..\\b", "a\u{0}b"]
    {
        let text =
            json!([{"prompt": "p", "img_path": "a.png"}, {"prompt": "p", "img_path": path}]).to_string();
        refused(read_records(&text), &["record 1: img_path: expected a path inside the data folder, got"]);
        assert_eq!(read_labels(&text).unwrap().len(), 2);
    }
    for path in ["a.png", "SDXL-Turbo/00110.png", "a..b/..c", "./a.png"] {
        read_records(&json!({"prompt": "p", "img_path": path}).to_string()).unwrap();
    }
}

#[test]
fn missing_labels_are_named_when_they_are_needed() {
    let records = read_records(
        r#"{"prompt": "p", "img_path": "a.png", "total_score": null, "element_score": {"x": null}}"#,
    )
    .unwrap();
    refused(records[0].total(), &["picture \"a.png\" of \"p\": total_score: expected a number, got null"]);
    refused(
        records[0].elements(),
        &["picture \"a.png\" of \"p\": element_score: \"x\": expected a number, got null"],
    );
}

#[test]
fn the_official_scorers_vector_comes_out_of_the_report() {
    let (labels, predictions) = vector(1.0);
    let report = eval(&labels, &predictions, PlccVariant::Official).unwrap();
    let four = |value: Option<f64>| format!("{:.4}", value.unwrap());
    assert_eq!(four(report.figures.srcc), "0.9750");
    assert_eq!(four(report.figures.plcc), "0.9721");
    assert_eq!(four(report.figures.accuracy), "0.6000");
    assert_eq!(four(report.figures.final_score), "0.7868");
    assert_eq!(format!("{:.6}", report.figures.krcc.unwrap()), "0.885714");
    assert_eq!((report.n_images, report.n_elements, report.warnings.len()), (15, 25, 0));
    let documented = eval(&labels, &predictions, PlccVariant::Documented).unwrap();
    assert_eq!(format!("{:.6}", documented.figures.plcc.unwrap()), "0.972385");

    let (_, negated) = vector(-1.0);
    let report = eval(&labels, &negated, PlccVariant::Official).unwrap();
    assert_eq!(
        (four(report.figures.srcc), four(report.figures.plcc), four(report.figures.final_score)),
        ("-0.9750".into(), "0.9721".into(), "0.2993".into())
    );
    assert!(report.warnings[0].starts_with("predictions fall where labels rise"), "{:?}", report.warnings);
}

#[test]
fn the_report_has_exactly_the_promised_names_in_order() {
    let (labels, predictions) = vector(1.0);
    let report = serde_json::to_value(eval(&labels, &predictions, PlccVariant::Official).unwrap()).unwrap();
    let names: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(names, ["srcc", "plcc", "krcc", "rmse", "accuracy", "final", "n_images", "n_elements"]);
}

#[test]
fn undefined_figures_are_null_and_say_why() {
    let (labels, mut predictions) = vector(1.0);
    for item in predictions.as_array_mut().unwrap() {
        item["total_score"] = json!(0.1);
    }
    let report = eval(&labels, &predictions, PlccVariant::Official).unwrap();
    assert_eq!(report.warnings, ["srcc, plcc, krcc and final are undefined: all predictions are equal"]);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.starts_with(r#"{"srcc":null,"plcc":null,"krcc":null,"rmse":"#), "{text}");

    let item = |total: f64| json!([{"prompt": "p", "img_path": "a", "total_score": total}]);
    let report = eval(&item(3.0), &item(4.0), PlccVariant::Raw).unwrap();
    assert_eq!(
        (report.figures.rmse, report.figures.accuracy, report.figures.final_score),
        (Some(1.0), None, None)
    );
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    let report = eval(&item(1e300), &item(-1e300), PlccVariant::Raw).unwrap();
    assert_eq!(report.figures.rmse, None);
}

#[test]
fn scores_as_the_command_line_prints_them_are_read_too() {
    let (labels, _) = vector(1.0);
    let mut labels = labels.as_array().unwrap()[..1].to_vec();
    labels[0]["element_score"] =
        json!({"Compass (object-other)": 0.9, "red (sky) ": 0, "two red (Counting)": [1, 0, 1]});
    let scored = json!({"img_path": "M/00000.png", "prompt": "prompt 0", "device": "cpu",
        "overall": {"score": 3.4, "scale": [1, 5]},
        "elements": [{"element": "Compass", "category": "object", "score": 0.8, "present": true},
                     {"element": "two red", "category": "counting", "score": 0.7, "present": true},
                     {"element": "red", "category": "other", "score": 0.2, "present": false}]});
    let report = eval(&json!(labels), &json!([scored]), PlccVariant::Raw).unwrap();
    assert_eq!((report.figures.accuracy, report.n_elements), (Some(1.0), 3));
    let mut both = scored.clone();
    both["total_score"] = json!(3);
    refused(read_predictions(&both.to_string()), &["prediction 0", "either total_score or overall"]);
}

#[test]
fn whatever_does_not_pair_is_named() {
    let (labels, good) = vector(1.0);
    let check = |change: &dyn Fn(&mut Vec<Value>), expected: &[&str]| {
        let mut predictions = good.as_array().unwrap().clone();
        change(&mut predictions);
        refused(eval(&labels, &json!(predictions), PlccVariant::Official), expected);
    };
    // The predictions lie in reverse order: the last is of picture 0.
    check(&|p| drop(p.remove(14)), &["predictions: picture \"M/00000.png\" of \"prompt 0\" is missing"]);
    check(&|p| p.truncate(10), &["picture \"M/00000.png\"", "is missing (and 4 more)"]);
    check(&|p| p.push(p[3].clone()), &["picture \"M/00011.png\" of \"prompt 2\" is given twice"]);
    check(&|p| p[14]["prompt"] = json!("other"), &["picture \"M/00000.png\" of \"prompt 0\" is missing"]);
    check(
        &|p| {
            let mut extra = p[0].clone();
            extra["img_path"] = json!("new.png");
            p.push(extra);
        },
        &["predictions: picture \"new.png\" of \"prompt 3\" is not in the labels"],
    );
    check(&|p| p[2]["total_score"] = Value::Null, &["prediction 2: picture \"M/00012.png\"", "total_score"]);
    check(&|p| p[2]["element_score"]["a"] = Value::Null, &["prediction 2", "element_score: \"a\""]);
    check(
        &|p| p[14]["element_score"]["c"] = json!(1),
        &["M/00000.png", "predicted element \"c\" is not in the labels"],
    );
    check(
        &|p| drop(p[14]["element_score"].as_object_mut().unwrap().remove("b")),
        &["picture \"M/00000.png\" of \"prompt 0\": element \"b\" has no prediction"],
    );
    let mut twice = labels.as_array().unwrap().clone();
    twice.push(twice[0].clone());
    refused(
        eval(&json!(twice), &good, PlccVariant::Raw),
        &["labels: picture \"M/00000.png\"", "given twice"],
    );
    let mut null = labels.clone();
    null[4]["total_score"] = Value::Null;
    refused(
        eval(&null, &good, PlccVariant::Raw),
        &["M/00004.png", "total_score: expected a number, got null"],
    );
    refused(eval(&json!([]), &json!([]), PlccVariant::Raw), &["labels: expected at least one record"]);
}

#[test]
fn predictions_that_are_no_numbers_are_refused_by_position() {
    for (bad, expected) in [
        (
            r#"{"img_path": "a", "prompt": "p", "total_score": NaN}"#,
            "picture \"a\": total_score: expected value",
        ),
        (r#"{"img_path": "a", "prompt": "p", "total_score": "3"}"#, "invalid type: string"),
        (r#"{"img_path": "a", "prompt": "p", "total_score": 1e999}"#, "number out of range"),
        (
            r#"{"img_path": "a", "prompt": "p", "total_score": 3, "element_score": {"x": 1, "x": 1}}"#,
            "\"x\" is given twice",
        ),
        (r#"{"prompt": "p", "total_score": 3}"#, "img_path"),
        (r#"{"img_path": "a", "prompt": "p", "error": "no such file"}"#, "total_score"),
        (r#"{"img_path": "a", "prompt": "p", "total_score": -Infinity}"#, "invalid number"),
    ] {
        refused(read_predictions(&format!("[{bad}]")), &["prediction 0", expected]);
        refused(read_predictions(bad), &["prediction 0", expected]);
    }
}
