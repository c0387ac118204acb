//! What `eval` shows beside its figures: groups, intervals, calibration; and elements of one key.
#![allow(clippy::float_cmp, reason = "counts and shares are exact")]

use imatch::data::evalmuse::{Record, read_labels};
use imatch::data::evaluation::{
    Calibration, Interval, Targets, bootstrap, by_category, by_generator, by_type, calibrate, report,
};
use imatch::data::pairing::{Pair, pair};
use imatch::data::submission::{Prediction, read_predictions};
use imatch::metrics::PlccVariant::{Official, Raw};
use imatch::score::ScoringOptions;
use imatch::text::{Category, OverallKind, PromptType};
use serde_json::{Value, json};

/// Records and predictions of (picture, type, label, score) with one element each, (key, label, score).
type Item<'a> = (&'a str, Option<&'a str>, f64, f64, (&'a str, f64, f64));

fn data(items: &[Item<'_>]) -> (Vec<Record>, Vec<Prediction>) {
    let item = |path: &str, prompt_type: Option<&str>, total: f64, key: &str, element: f64| {
        json!({"prompt": "p", "img_path": path, "type": prompt_type, "total_score": total,
               "element_score": {key: element}})
    };
    let labels: Vec<Value> = items
        .iter()
        .map(|(path, kind, label, _, (key, shown, _))| item(path, *kind, *label, key, *shown))
        .collect();
    let scores: Vec<Value> =
        items.iter().map(|(path, kind, _, score, (key, _, p))| item(path, *kind, *score, key, *p)).collect();
    (read_labels(&json!(labels).to_string()).unwrap(), read_predictions(&json!(scores).to_string()).unwrap())
}

#[test]
fn categories_are_canonical_and_stand_beside_the_majority() {
    let (labels, predictions) = data(&[
        ("a", None, 1.0, 1.0, ("x (Counting)", 1.0, 0.9)),
        ("b", None, 2.0, 2.0, ("y (counting)", 0.5, 0.5)),
        ("c", None, 3.0, 3.0, ("z (counting)", 0.0, 0.7)),
        ("d", None, 4.0, 4.0, ("bird (animal/human)", 0.0, 0.1)),
        ("e", None, 5.0, 5.0, ("(color)", 1.0, 0.9)),
    ]);
    let rows = by_category(&pair(&labels, &predictions).unwrap());
    let rows: Vec<_> =
        rows.iter().map(|row| (row.category, row.n_elements, row.accuracy, row.majority)).collect();
    assert_eq!(
        rows,
        [
            (Category::Animal, 1, 1.0, 1.0),
            (Category::Counting, 3, 2.0 / 3.0, 2.0 / 3.0),
            (Category::Other, 1, 1.0, 1.0)
        ]
    );
}

#[test]
fn prompts_of_each_type_have_their_own_figures() {
    let (labels, predictions) = data(&[
        ("a", Some("real"), 1.0, 1.0, ("x", 1.0, 0.9)),
        ("b", Some("real"), 2.0, 3.0, ("x", 1.0, 0.2)),
        ("c", Some("synthetic"), 3.0, 3.0, ("x", 1.0, 0.9)),
        ("d", Some("synthetic"), 4.0, 2.0, ("x", 1.0, 0.8)),
        ("e", None, 2.0, 2.0, ("x", 0.0, 0.9)),
    ]);
    let pairs = pair(&labels, &predictions).unwrap();
    let rows = by_type(&pairs, Raw);
    let types: Vec<_> = rows.iter().map(|row| (row.prompt_type, row.report.n_images)).collect();
    assert_eq!(types, [(Some(PromptType::Real), 2), (Some(PromptType::Synthetic), 2), (None, 1)]);
    let figures = rows.iter().map(|row| row.report.figures);
    let figures: Vec<_> = figures.map(|row| (row.krcc, row.accuracy)).collect();
    assert_eq!(figures, [(Some(1.0), Some(0.5)), (Some(-1.0), Some(1.0)), (None, Some(0.0))]);
    assert_eq!(by_type(&pairs[..2], Raw).len(), 1);
}

#[test]
fn generators_are_ranked_by_labels_and_by_predictions() {
    let x = ("x", 1.0, 0.9);
    let (labels, predictions) = data(&[
        ("Kolors/1.png", None, 3.0, 30.0, x),
        ("./Kolors/2.png", None, 4.0, 40.0, x),
        ("IF/a/1.png", None, 5.0, 50.0, x),
        ("SDXL\\1.png", None, 1.0, 35.0, x),
        ("SD3/1.png", None, 2.0, 20.0, x),
        ("1.png", None, 1.5, 10.0, x),
    ]);
    let board = by_generator(&pair(&labels, &predictions).unwrap(), Official);
    let rows: Vec<_> = board
        .generators
        .iter()
        .map(|row| (row.generator.as_deref(), row.label, row.prediction, row.label_rank, row.prediction_rank))
        .collect();
    assert_eq!(
        rows,
        [
            (Some("IF"), 5.0, 50.0, 1.0, 1.0),
            (Some("Kolors"), 3.5, 35.0, 2.0, 2.5),
            (Some("SD3"), 2.0, 20.0, 3.0, 4.0),
            (None, 1.5, 10.0, 4.0, 5.0),
            (Some("SDXL"), 1.0, 35.0, 5.0, 2.5)
        ]
    );
    // Ten pairs: 7 agree, 2 do not, 1 is a tie of predictions.
    assert!((board.krcc.unwrap() - 5.0 / 90.0_f64.sqrt()).abs() < 1e-12);
    let ranks = [[5.0, 5.0], [4.0, 3.5], [3.0, 2.0], [2.0, 1.0], [1.0, 3.5]];
    let [x, y] = [0, 1].map(|side| ranks.iter().map(|pair| pair[side]).collect::<Vec<_>>());
    assert!((board.srcc.unwrap() - imatch::metrics::pearson(&x, &y).unwrap()).abs() < 1e-12);
    assert_eq!(by_generator(&pair(&labels[..1], &predictions[..1]).unwrap(), Official).srcc, None);
}

/// Pictures whose labels rise, with one right or wrong element each: every fourth is wrong.
fn four_hundred() -> (Vec<Record>, Vec<Prediction>) {
    let paths: Vec<String> = (0..400).map(|index| format!("{index}.png")).collect();
    let item = |(index, path)| -> Item<'_> {
        let label = 1.0 + f64::from(index % 13) / 3.0;
        let score = label + f64::from(index * 7919 % 100) / 50.0;
        (path, None, label, score, ("x", 1.0, if index % 4 == 0 { 0.1 } else { 0.9 }))
    };
    data(&(0..400).zip(paths.iter().map(String::as_str)).map(item).collect::<Vec<_>>())
}

#[test]
fn intervals_have_the_width_that_theory_gives_them() {
    let (labels, predictions) = four_hundred();
    let pairs = pair(&labels, &predictions).unwrap();
    let intervals = bootstrap(&pairs, Official, 2000, 3);
    let values = report(&pairs, Official).figures.values();
    for (interval, value) in intervals.figures.iter().zip(values) {
        let (low, high) = (interval.low.unwrap(), interval.high.unwrap());
        assert!(low < value.unwrap() && value.unwrap() < high, "{value:?} is outside {low} to {high}");
        assert_eq!(interval.undefined, 0);
    }
    // Of a share of 3/4 of 400: plus and minus 1.96 sqrt(3/16 / 400), known to 4e-3 from 2000 resamples.
    let accuracy = intervals.figures[4];
    let half = 1.96 * (0.1875_f64 / 400.0).sqrt();
    assert!((accuracy.low.unwrap() - (0.75 - half)).abs() < 4e-3, "{accuracy:?} {half}");
    assert!((accuracy.high.unwrap() - (0.75 + half)).abs() < 4e-3, "{accuracy:?} {half}");
}

#[test]
fn resamples_depend_on_their_seed_alone() {
    let (labels, predictions) = four_hundred();
    let pairs = pair(&labels, &predictions).unwrap();
    let at = |resamples, seed| bootstrap(&pairs, Raw, resamples, seed);
    assert_eq!(at(20, 5), at(20, 5));
    assert_ne!(at(20, 5).figures, at(20, 6).figures);
    let one = at(1, 5).figures;
    assert!(one.iter().all(|interval| interval.low.is_some() && interval.low == interval.high));
}

#[test]
fn resamples_without_a_figure_are_counted() {
    let (labels, predictions) =
        data(&[("a", None, 1.0, 2.0, ("x", 1.0, 0.9)), ("b", None, 2.0, 3.0, ("x", 1.0, 0.9))]);
    let pairs = pair(&labels, &predictions).unwrap();
    let [srcc, plcc, krcc, rmse, accuracy, all] = bootstrap(&pairs, Official, 400, 0).figures;
    // Half of the draws of two from two are of one picture alone.
    assert!((150..250).contains(&srcc.undefined), "{srcc:?}");
    assert_eq!(krcc, Interval { low: Some(1.0), high: Some(1.0), ..srcc });
    let never = Interval { low: None, high: None, undefined: 400 };
    assert_eq!((plcc, all), (never, never));
    let always = Interval { low: Some(1.0), high: Some(1.0), undefined: 0 };
    assert_eq!((rmse, accuracy), (always, always));
}

#[test]
fn two_elements_of_one_key_pair_in_order_or_not_at_all() {
    let labels = read_labels(
        r#"{"prompt": "p", "img_path": "a", "total_score": 3,
            "element_score": {"4 (Counting)": 1, "cats (animal)": 1, "4 (Counting)": 0}}"#,
    )
    .unwrap();
    let scored = |scores: &[f64]| {
        let elements: Vec<Value> = scores
            .iter()
            .map(|score| json!({"element": "4", "category": "counting", "score": score}))
            .chain([json!({"element": "cats", "category": "animal", "score": 0.7})])
            .collect();
        let line = json!({"prompt": "p", "img_path": "a", "overall": {"score": 3}, "elements": elements});
        read_predictions(&line.to_string()).unwrap()
    };
    let predictions = scored(&[0.9, 0.2]);
    let pairs = pair(&labels, &predictions).unwrap();
    let scores: Vec<_> = pairs[0].elements.iter().map(|element| (element.label, element.score)).collect();
    assert_eq!(scores, [(1.0, 0.9), (1.0, 0.7), (0.0, 0.2)]);
    let refused = |predictions: &[Prediction]| pair(&labels, predictions).unwrap_err().to_string();
    assert!(
        refused(&scored(&[0.9]))
            .ends_with("element \"4 (Counting)\" is there 2 times and has fewer predictions")
    );
    assert!(
        refused(&scored(&[0.9, 0.2, 0.1])).contains("\"4 (counting)\" is not in the labels or given twice")
    );
    let object = r#"{"prompt": "p", "img_path": "a", "total_score": 3, "element_score": {"4 (Counting)": 1, "4 (Counting)": 0}}"#;
    let error = read_predictions(object).unwrap_err().to_string();
    assert!(error.ends_with("element_score: \"4 (Counting)\" is given twice"), "{error}");
}

/// Three pictures as `score --batch` writes them, with levels a, b, c on 1 to 3.
fn with_levels() -> (Value, Value) {
    let scoring = json!({"overall": {"tokens": ["a", "b", "c"], "scale": [1, 3], "temperature": 2.0},
                         "element": {"temperature": 0.5}});
    let scoring =
        serde_json::to_value(ScoringOptions::from_json(scoring.to_string().as_bytes()).unwrap()).unwrap();
    let line = |path: &str, levels: [f64; 3], element: f64| {
        let score: f64 = (1..).zip(levels).map(|(level, p)| f64::from(level) * p).sum();
        let levels: Vec<Value> = ["a", "b", "c"]
            .iter()
            .zip(levels)
            .map(|(token, probability)| json!({"token": token, "probability": probability}))
            .collect();
        json!({"img_path": path, "prompt": "p", "overall": {"score": score, "levels": levels},
               "elements": [{"element": "x", "category": "object", "score": element}], "scoring": scoring})
    };
    let predictions = json!([
        line("a", [0.7, 0.2, 0.1], 0.9),
        line("b", [0.2, 0.2, 0.6], 0.8),
        line("c", [0.1, 0.2, 0.7], 0.3)
    ]);
    let label = |path: &str, total: Value, element: f64| json!({"img_path": path, "prompt": "p", "total_score": total, "element_score": {"x (object)": element}});
    let labels = json!([
        label("a", json!([1, 1, 2]), 1.0),
        label("b", json!([2, 3, 3]), 0.0),
        label("c", json!([1, 1, 1]), 0.0)
    ]);
    (labels, predictions)
}

fn calibrated(
    labels: &Value,
    predictions: &Value,
    given: Option<ScoringOptions>,
    targets: Targets,
) -> imatch::Result<Calibration> {
    let (labels, predictions) =
        (read_labels(&labels.to_string())?, read_predictions(&predictions.to_string())?);
    let pairs: Vec<Pair<'_>> = pair(&labels, &predictions)?;
    calibrate(&pairs, given, targets)
}

#[test]
fn fitted_temperatures_are_multiplied_onto_those_of_the_predictions() {
    let (labels, predictions) = with_levels();
    let found = calibrated(&labels, &predictions, None, Targets::Mean).unwrap();
    let (overall, element) = (found.overall.unwrap(), found.element.unwrap());
    assert_eq!((overall.n, element.n, found.warnings.len()), (3, 3, 0));
    assert_eq!(found.scoring.overall.temperature, 2.0 * overall.temperature);
    assert_eq!(found.scoring.element.temperature, 0.5 * element.temperature);
    assert!(overall.temperature > 1.0 && overall.nll_after < overall.nll_before, "{overall:?}");
    // The mean of picture b is level 3; its raters are one for level 2 and two for level 3.
    let soft = calibrated(&labels, &predictions, None, Targets::Raters).unwrap().overall.unwrap();
    let before = -((0.7_f64.ln() * 2.0 + 0.2_f64.ln()) + (0.2_f64.ln() + 0.6_f64.ln() * 2.0)) / 9.0
        - 0.1_f64.ln() / 3.0;
    assert!((soft.nll_before - before).abs() < 1e-12, "{soft:?} {before}");
    let before = -(0.7_f64.ln() + 0.6_f64.ln() + 0.1_f64.ln()) / 3.0;
    assert!((overall.nll_before - before).abs() < 1e-12, "{overall:?} {before}");
}

#[test]
fn what_cannot_be_fitted_stays_and_says_so() {
    let (labels, mut predictions) = with_levels();
    for item in predictions.as_array_mut().unwrap() {
        item["overall"]["levels"] = json!([]);
        item["elements"][0]["score"] = json!(0.5);
    }
    let found = calibrated(&labels, &predictions, None, Targets::Mean).unwrap();
    assert_eq!((found.overall, found.element), (None, None));
    assert_eq!(
        found.warnings,
        [
            "overall.temperature stays 2: the predictions have no levels",
            "element.temperature stays 0.5: the predictions do not agree with the labels"
        ]
    );
    assert_eq!((found.scoring.overall.temperature, found.scoring.element.temperature), (2.0, 0.5));
}

#[test]
fn predictions_of_other_or_unknown_options_are_not_calibrated() {
    let (labels, good) = with_levels();
    let refused = |change: &dyn Fn(&mut Value), given: Option<ScoringOptions>| {
        let mut predictions = good.clone();
        change(&mut predictions);
        calibrated(&labels, &predictions, given, Targets::Mean).unwrap_err().to_string()
    };
    let other = "prediction for picture \"b\" of \"p\" was made with other scoring options than expected";
    assert_eq!(refused(&|p| p[1]["scoring"]["element"]["temperature"] = json!(1), None), other);
    let first = refused(&|_| (), Some(ScoringOptions::default().with_overall(OverallKind::YesNo)));
    assert_eq!(first, other.replace("\"b\"", "\"a\""));
    let none =
        |p: &mut Value| p.as_array_mut().unwrap().iter_mut().for_each(|item| item["scoring"] = Value::Null);
    assert!(refused(&none, None).contains("expected the predictions to say their scoring options"));
    assert!(refused(&|p| p[2]["scoring"] = json!({"x": 1}), None).contains("scoring: "));
    let levels =
        "prediction for picture \"b\" of \"p\": expected the levels of the scoring options, got others";
    assert_eq!(refused(&|p| p[1]["overall"]["levels"] = json!([]), None), levels);
    assert_eq!(refused(&|p| p[1]["overall"]["levels"][0]["token"] = json!("z"), None), levels);
    assert!(
        refused(&|p| p[1]["overall"]["levels"][0]["probability"] = json!(0.9), None).contains("sum to 1")
    );
    // Options of another scale or temperature give other scores than the predictions say.
    assert!(refused(&|p| p[1]["overall"]["score"] = json!(1.1), None).contains("but it says 1.1"));
    assert!(
        refused(&|p| p[1]["elements"][0]["score"] = json!(1.5), None)
            .contains("to be a probability, got 1.5")
    );
    let mut outside = labels.clone();
    outside[0]["total_score"] = json!(4);
    let error = calibrated(&outside, &good, None, Targets::Mean).unwrap_err().to_string();
    assert!(
        error.contains("picture \"a\"") && error.contains("score 4 is outside its scale, 1 to 3"),
        "{error}"
    );
}
