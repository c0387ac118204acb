//! Sets of records: read as a stream, turned into labels, accounted for.
#![allow(clippy::float_cmp, reason = "labels and counts are exact")]

use std::io::{BufReader, Cursor, Read, Seek as _, SeekFrom};

use imatch::data::evalmuse::{
    Census, Label, LabelRules, Located, Reason, Record, RecordStream, read_records, record_at, record_from,
};
use imatch::error::Kind;
use imatch::text::Category;
use serde_json::{Value, json};

fn stream(text: &str) -> imatch::Result<Vec<Located>> {
    // Buffers of three bytes end at every possible place.
    RecordStream::new(BufReader::with_capacity(3, text.as_bytes())).collect()
}

fn record(fields: &Value) -> Record {
    let mut whole = json!({"prompt": "p", "img_path": "a.png"});
    for (name, value) in fields.as_object().unwrap() {
        whole[name] = value.clone();
    }
    record_from(whole.to_string().as_bytes()).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: imatch::Result<T>, expected: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Input, expected));
}

const STRICT: LabelRules =
    LabelRules { skip_meaningless_prompts: true, skip_doubtful_splits: true, skip_unsure_raters: true };

#[test]
fn a_stream_gives_what_reading_the_whole_gives_in_every_form() {
    let each = [
        r#"{"prompt": "a \"}]{[\\", "img_path": "a.png", "fidelity_label": ["真实场景-动物", {"x": [1]}]}"#,
        "{\n \"prompt\": \"日本\",\r\n \"img_path\": \"b.png\", \"total_score\": [1, 2.5]}",
        r#"{"img_path": "c.png", "prompt": "", "element_score": {"4 (counting)": [1], "4 (counting)": [0]}}"#,
    ];
    for text in [
        format!("[{}]", each.join(",")),
        format!("\u{feff}\n[ {} ]\n ", each.join(" ,\n")),
        each.join("\n"),
        format!("\u{feff}{}", each.concat()),
    ] {
        let found = stream(&text).unwrap();
        assert_eq!(found.len(), 3, "{text}");
        assert_eq!(found.iter().map(|found| found.index).collect::<Vec<_>>(), [0, 1, 2]);
        let records: Vec<Record> = found.iter().map(|found| found.record.clone()).collect();
        assert_eq!(records, read_records(&text).unwrap());
        assert_eq!(records[0].fidelity_label, Some(json!(["真实场景-动物", {"x": [1]}])));
        assert_eq!(records[1].prompt, "日本");
        let mut file = Cursor::new(text.as_bytes());
        for Located { index, offset, record } in found.iter().rev() {
            let from = *offset as usize;
            assert!(text[from..].starts_with(each[*index]), "{offset} in {text}");
            assert_eq!(record_from(each[*index].as_bytes()).unwrap(), *record);
            file.seek(SeekFrom::Start(*offset)).unwrap();
            assert_eq!(record_at(&mut file).unwrap(), *record);
        }
    }
    for empty in ["", "[]", " [ ] ", "\u{feff}", "\n\n"] {
        assert_eq!(stream(empty).unwrap(), [], "{empty:?}");
    }
    refused(record_at(&b"  "[..]), "expected a record, got the end of the file");
}

#[test]
fn the_stream_ends_behind_its_first_error_which_names_record_and_byte() {
    let good = r#"{"prompt": "p", "img_path": "a.png"}"#;
    let cases = [
        (
            format!("[{good}, {{\"prompt\": 3}}]"),
            "record 1: prompt: invalid type: integer `3`, expected a string (byte 50)",
        ),
        (format!("[{good}"), "record 1: the list ends before its \"]\" (byte 37)"),
        (format!("[{good},]"), "record 1: expected value (byte 38)"),
        (format!("[{good} {good}]"), "record 1: expected \",\" or \"]\" (byte 38)"),
        (format!("[{good}] {good}"), "record 1: there are trailing characters behind the list (byte 39)"),
        (format!("{good},{good}"), "record 1: expected value (byte 36)"),
        (format!("{good}\n{{\"prompt\": \"p"), "record 1: the text ends within an item (EOF) (byte 50)"),
        ("\u{fe}".into(), "record 0: expected value (byte 0)"),
        ("]".into(), "record 0: expected value (byte 0)"),
        (
            "{\"prompt\": \"p\", \"img_path\": \"../b\"}".into(),
            "record 0: img_path: expected a path inside the data folder, got \"../b\"",
        ),
    ];
    let mut got = Vec::new();
    for (text, _) in &cases {
        let mut stream = RecordStream::new(BufReader::with_capacity(5, text.as_bytes()));
        let error = stream.by_ref().find_map(Result::err).unwrap();
        assert_eq!(error.kind(), Kind::Input);
        assert!(stream.next().is_none(), "{text}");
        got.push(error.to_string());
    }
    assert_eq!(got, cases.map(|(_, expected)| expected));
    refused(
        record_from(b"{\n\"prompt\": 3}"),
        "prompt: invalid type: integer `3`, expected a string (byte 12)",
    );
    refused(record_from(b"{\"prompt\": \"\xff\"}"), "prompt: invalid unicode code point (byte 12)");
}

/// A list without an end, and how much of it was asked for.
struct Endless {
    given: usize,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        const ITEM: &[u8] = br#"{"prompt":"p","img_path":"a.png"},"#;
        for byte in into.iter_mut() {
            *byte = if self.given == 0 { b'[' } else { ITEM[(self.given - 1) % ITEM.len()] };
            self.given += 1;
        }
        Ok(into.len())
    }
}

#[test]
fn a_stream_reads_no_further_than_it_has_to() {
    let mut reader = BufReader::with_capacity(64, Endless { given: 0 });
    assert_eq!(RecordStream::new(&mut reader).take(1000).flatten().count(), 1000);
    let given = reader.get_ref().given;
    assert!((34_000..=34_200).contains(&given), "{given} bytes");
}

/// A reader that fails.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk is gone"))
    }
}

#[test]
fn a_record_without_an_end_and_a_failing_disk_are_errors() {
    let endless = std::io::repeat(b'[');
    let error = RecordStream::new(BufReader::new(endless)).next().unwrap().unwrap_err();
    assert!(error.to_string().contains("record 0: an item has more than 16777216 bytes"), "{error}");
    let error = RecordStream::new(BufReader::new(Broken)).next().unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Io, "record 0: cannot read on: the disk is gone")
    );
}

#[test]
fn labels_are_means_over_any_number_of_raters_with_each_ones_score() {
    let record = record(&json!({"total_score": [1, 2, 3, 4, 5, 5], "element_score":
        {"a (b) (Animal/human)": [1, 0, 1, 0, 0, 1], "4 (Counting)": 0.666_667, "noon (Other-time)": [1]}}));
    let labels = record.labels(LabelRules::default()).unwrap();
    let ratings = vec![1.0, 2.0, 3.0, 4.0, 5.0, 5.0];
    assert_eq!(labels.total, Some(Label { mean: 20.0 / 6.0, ratings }));
    let [first, second, third] = labels.elements.as_slice() else { panic!("{labels:?}") };
    assert_eq!((first.key.as_str(), first.element.text.as_str()), ("a (b) (Animal/human)", "a (b)"));
    assert_eq!(
        (first.element.category, first.label.mean, first.label.ratings.len()),
        (Category::Animal, 0.5, 6)
    );
    assert_eq!(
        (second.element.category, &second.label),
        (Category::Counting, &Label { mean: 0.666_667, ratings: Vec::new() })
    );
    assert_eq!(third.element.category, Category::Other);
    assert_eq!(labels.exclusions, []);
}

#[test]
fn annotators_names_of_categories_become_the_thirteen() {
    use Category::{Activity, Animal, Color, Counting, Food, Material, Object, Other, Spatial};
    for (label, category) in [
        ("time", Other),
        ("weather", Other),
        ("Other-weather", Other),
        ("other-time", Other),
        ("Other-time", Other),
        ("other-perspective", Other),
        ("animal/human", Animal),
        ("object-household goods", Object),
        ("object-vehicle", Object),
        ("object-electronic", Object),
        ("Counting", Counting),
        ("Color", Color),
        ("Spatial", Spatial),
        ("Material", Material),
        ("ACTIVITY", Activity),
        (" food ", Food),
    ] {
        let element = imatch::text::Element::parse(&format!("x (y), z ({label})")).unwrap();
        assert_eq!((element.text.as_str(), element.category), ("x (y), z", category), "{label}");
    }
}

#[test]
fn scores_outside_their_range_are_errors_whatever_the_rules() {
    let place = "picture \"a.png\" of \"p\": ";
    for (fields, expected) in [
        (json!({"total_score": [4, 3, 0]}), "total_score: expected scores from 1 to 5, got 0"),
        (json!({"total_score": [4, 6, 3]}), "total_score: expected scores from 1 to 5, got 6"),
        (json!({"total_score": 0.99}), "total_score: expected scores from 1 to 5, got 0.99"),
        (json!({"element_score": {"x": [0, 2]}}), "element_score: \"x\": expected scores from 0 to 1, got 2"),
        (
            json!({"element_score": {"x": -0.5}}),
            "element_score: \"x\": expected scores from 0 to 1, got -0.5",
        ),
        (json!({"promt_meaningless": [2]}), "promt_meaningless: expected scores from 0 to 1, got 2"),
        (json!({"split_confidence": -1}), "split_confidence: expected scores from 0 to 1, got -1"),
        (json!({"attribute_confidence": [1, 5]}), "attribute_confidence: expected scores from 0 to 1, got 5"),
    ] {
        for rules in [LabelRules::default(), STRICT] {
            let record = record(&fields);
            refused(record.labels(rules), &format!("{place}{expected}"));
            let mut census = Census::default();
            census.without_picture(&record);
            refused(census.take(&record, rules), &format!("record 1: {place}{expected}"));
        }
    }
    for wrong in [f64::NAN, f64::INFINITY] {
        let total_score = imatch::data::evalmuse::Rating::Raters(vec![3.0, wrong]);
        let record = Record { total_score, ..record(&json!({})) };
        let expected = format!("{place}total_score: expected scores from 1 to 5, got {wrong}");
        refused(record.labels(LabelRules::default()), &expected);
    }
}

/// Overall labels, elements, and the exclusions: field, reason, whether of the overall label, number of elements.
type Left = (usize, usize, Vec<(&'static str, Reason, bool, usize)>);

/// What a record of two labelled elements and these fields is left with.
fn left(fields: &Value, rules: LabelRules) -> Left {
    let mut all = json!({"total_score": [3], "element_score": {"x (object)": [1], "y (color)": [0]}});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    let labels = record(&all).labels(rules).unwrap();
    let reasons = labels.exclusions.iter();
    let reasons = reasons.map(|found| (found.field, found.reason, found.overall, found.n_elements)).collect();
    (usize::from(labels.total.is_some()), labels.elements.len(), reasons)
}

#[test]
fn each_filter_has_its_own_polarity_and_is_off_by_default() {
    let cases = [
        ("promt_meaningless", json!([0, 1]), json!([0, 0, 1]), Reason::MeaninglessPrompt, true),
        ("split_confidence", json!([1, 0]), json!([0, 0, 1]), Reason::DoubtfulSplit, false),
        ("attribute_confidence", json!([1, 0, 0]), json!([0, 1]), Reason::UnsureRaters, false),
    ];
    for (name, bad, good, reason, overall) in cases {
        let others = LabelRules {
            skip_meaningless_prompts: name != "promt_meaningless",
            skip_doubtful_splits: name != "split_confidence",
            skip_unsure_raters: name != "attribute_confidence",
        };
        for rules in [LabelRules::default(), others] {
            assert_eq!(left(&json!({name: bad}), rules), (1, 2, vec![]), "{name}");
        }
        assert_eq!(left(&json!({name: good}), STRICT), (1, 2, vec![]), "{name}");
        assert_eq!(left(&json!({name: null}), STRICT), (1, 2, vec![]), "{name}");
        let expected = (usize::from(!overall), 0, vec![(name, reason, overall, 2)]);
        assert_eq!(left(&json!({name: bad}), STRICT), expected, "{name}");
    }
    // Without elements there is nothing that a wrong split could spoil.
    assert_eq!(left(&json!({"split_confidence": 1, "element_score": {}}), STRICT), (1, 0, vec![]));
}

#[test]
fn what_cannot_be_learnt_is_named_and_never_dropped_in_silence() {
    let rules = LabelRules::default();
    let unlabelled = (Reason::Unlabelled, false, 1);
    let total = ("total_score", Reason::Unlabelled, true, 0);
    assert_eq!(left(&json!({"total_score": null}), rules), (0, 2, vec![total]));
    let (reason, overall, count) = unlabelled;
    assert_eq!(
        left(&json!({"element_score": {"x": null, "y": 1}}), rules),
        (1, 1, vec![("element_score", reason, overall, count)])
    );
    assert_eq!(
        left(&json!({"total_score": null, "element_score": {"x": null, "y": null}}), rules),
        (0, 0, vec![total, ("element_score", Reason::Unlabelled, false, 2)])
    );
    assert_eq!(
        left(&json!({"element_score": {"(color)": 1, "y": 1}}), rules),
        (1, 1, vec![("element_score", Reason::NoWords, false, 1)])
    );
    assert_eq!(left(&json!({"prompt": " "}), rules), (0, 0, vec![("prompt", Reason::NoWords, true, 2)]));
}

/// Five records, each with something to leave out or to count.
fn surveyed() -> Census {
    let mut census = Census::default();
    let twice = r#"{"prompt": "p", "img_path": "a.png", "total_score": 3,
        "element_score": {"4 (counting)": [1, 1], "cats (animal)": [1, 0], "4 (counting)": [0, 0]}}"#;
    let labels = census.take(&record_from(twice.as_bytes()).unwrap(), STRICT).unwrap();
    let means: Vec<f64> = labels.elements.iter().map(|element| element.label.mean).collect();
    assert_eq!(means, [1.0, 0.5, 0.0]);
    census
        .take(
            &record(&json!({"split_confidence": 1, "total_score": 2, "element_score": {"x": 1, "": 1}})),
            STRICT,
        )
        .unwrap();
    census
        .take(&record(&json!({"promt_meaningless": 1, "element_score": {"x": null, "y": 1}})), STRICT)
        .unwrap();
    census.without_picture(&record(&json!({"total_score": 5, "element_score": {"x": 1}})));
    census.take(&record(&json!({"total_score": null, "element_score": {"z": null}})), STRICT).unwrap();
    census
}

#[test]
fn the_census_counts_every_label_once() {
    let census = surveyed();
    let lost =
        |of: fn(&imatch::data::evalmuse::Excluded) -> usize| census.exclusions.iter().map(of).sum::<usize>();
    assert_eq!(census.n_overall_used + lost(|line| line.exclusion.overall.into()), census.n_records);
    assert_eq!(census.n_elements_used + lost(|line| line.exclusion.n_elements), census.n_elements);
    assert_eq!(
        serde_json::to_value(&census).unwrap(),
        json!({"n_records": 5, "n_elements": 9, "n_overall_used": 2, "n_elements_used": 3, "n_repeated_keys": 1})
    );
}

#[test]
fn the_census_lists_every_exclusion() {
    let census = surveyed();
    let lines = census.lines().unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    let start = r#""img_path":"a.png","prompt":"p","field""#;
    assert_eq!(
        lines,
        [
            format!(
                r#"{{"record":1,{start}:"element_score","element":"","reason":"no_words","overall":false,"n_elements":1}}"#
            ),
            format!(
                r#"{{"record":1,{start}:"split_confidence","element":null,"reason":"doubtful_split","overall":false,"n_elements":1}}"#
            ),
            format!(
                r#"{{"record":2,{start}:"promt_meaningless","element":null,"reason":"meaningless_prompt","overall":true,"n_elements":2}}"#
            ),
            format!(
                r#"{{"record":3,{start}:"img_path","element":null,"reason":"missing_picture","overall":true,"n_elements":1}}"#
            ),
            format!(
                r#"{{"record":4,{start}:"total_score","element":null,"reason":"unlabelled","overall":true,"n_elements":0}}"#
            ),
            format!(
                r#"{{"record":4,{start}:"element_score","element":"z","reason":"unlabelled","overall":false,"n_elements":1}}"#
            ),
        ]
    );
    assert_eq!(
        census.to_string(),
        "5 records: overall labels 2 of 5, element labels 3 of 9, 1 under a repeated key\n\
         left out, no label: 1 overall, 1 elements\n\
         left out, no words: 0 overall, 1 elements\n\
         left out, prompt without a subject: 1 overall, 2 elements\n\
         left out, split into elements may be wrong: 0 overall, 1 elements\n\
         left out, no picture: 1 overall, 1 elements"
    );
    assert_eq!(
        census.exclusions[3].to_string(),
        "record 3: picture \"a.png\" of \"p\": img_path: no picture"
    );
}

#[test]
fn rules_are_read_by_name() {
    let rules: LabelRules = serde_json::from_str(r#"{"skip_unsure_raters": true}"#).unwrap();
    assert_eq!(rules, LabelRules { skip_unsure_raters: true, ..LabelRules::default() });
    assert!(serde_json::from_str::<LabelRules>(r#"{"skip_all": true}"#).is_err());
}
