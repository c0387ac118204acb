//! The reductions from logits to scores.

use imatch::error::Kind;
use imatch::score::{
    AnswerTokens, ElementScore, LevelScale, ModelIdentity, ScoreResult, ScoringOptions, Timings,
    closed_softmax, confidence, element, geometric_mean, overall,
};
use imatch::text::{Category, Element, OverallKind, Tokenizer};
use serde_json::{Value, json};

/// Room for the rounding of 15 f64 terms.
const TOLERANCE: f64 = 1e-9;
/// The figures below are quoted with six decimals.
const QUOTED: f64 = 5e-7;

fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(include_bytes!("golden/text/tokenizer.json")).unwrap()
}

fn red_circle() -> Element {
    Element { text: "red circle".into(), category: Category::Color }
}

fn refused(options: &Value) -> String {
    let error = ScoringOptions::from_json(options.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::Model);
    error.to_string()
}

#[test]
fn equal_logits_give_the_middle_level_without_confidence() {
    let result = overall(&ScoringOptions::default(), &[-3.5; 15]).unwrap();
    close(result.expected_level.unwrap(), 8.0, TOLERANCE);
    close(result.score, 3.0, TOLERANCE);
    assert_eq!(result.levels.len(), 15);
    // The lowest of equals counts as most likely: 7 levels away on average, against 3.73 from the middle.
    close(result.confidence, 0.0, TOLERANCE);
}

#[test]
fn three_likely_letters_give_the_reference_value() {
    let mut logits = [-10.0; 15];
    (logits[9], logits[10], logits[11]) = (2.0, 3.0, 1.0);
    let result = overall(&ScoringOptions::default(), &logits).unwrap();
    close(result.expected_level.unwrap(), 10.845_237, QUOTED);
    close(result.score, 3.812_925, QUOTED);
    let shifted = overall(&ScoringOptions::default(), &logits.map(|logit| logit + 64.0)).unwrap();
    close(shifted.score, result.score, TOLERANCE);
}

#[test]
fn a_certain_letter_gives_exactly_its_level() {
    for level in 1..=15 {
        let mut logits = [-1e30; 15];
        logits[level - 1] = 1e30;
        let result = overall(&ScoringOptions::default(), &logits).unwrap();
        assert_eq!(result.expected_level, Some(level as f64));
        close(result.score, 1.0 + (level - 1) as f64 * 4.0 / 14.0, TOLERANCE);
        close(result.confidence, 1.0, TOLERANCE);
    }
}

#[test]
fn other_scales_levels_and_temperatures_are_honoured() {
    let options =
        json!({"overall": {"tokens": ["1", "2", "3", "4", "5"], "scale": [0, 10], "temperature": 2.0}});
    let options = ScoringOptions::from_json(options.to_string().as_bytes()).unwrap();
    let result = overall(&options, &[-2.0, 0.0, 2.0, 4.0, 6.0]).unwrap();
    // Half the logits are -1, 0, 1, 2, 3, whose expected level is 4.451942.
    close(result.expected_level.unwrap(), 4.451_942, QUOTED);
    close(result.score, 3.451_942 * 2.5, 5.0 * QUOTED);
    assert_eq!(result.levels[4].token, "5");
    assert_eq!(overall(&options, &[0.0; 15]).unwrap_err().kind(), Kind::Internal);
}

#[test]
fn yes_and_no_are_closed_to_each_other() {
    let probabilities = closed_softmax(&[2.0, 0.5], 1.0).unwrap();
    close(probabilities[0], 0.817_574, QUOTED);
    let result = overall(&ScoringOptions::zero_shot(), &[2.0, 0.5]).unwrap();
    close(result.probability.unwrap(), 0.817_574, QUOTED);
    close(result.score, 1.0 + 4.0 * 0.817_574, 4.0 * QUOTED);
    close(result.confidence, 2.0 * 0.817_574 - 1.0, 2.0 * QUOTED);
    assert!(result.levels.is_empty() && result.expected_level.is_none());
}

#[test]
fn an_element_is_present_from_the_threshold_on() {
    let mut options = ScoringOptions::default().element;
    let even = element(&options, &red_circle(), [1.5, 1.5]).unwrap();
    assert!(even.present);
    close(even.score, 0.5, TOLERANCE);
    assert!(!element(&options, &red_circle(), [1.0, 1.01]).unwrap().present);
    options.threshold = 0.9;
    options.temperature = 0.5;
    let sharp = element(&options, &red_circle(), [1.0, 0.0]).unwrap();
    close(sharp.score, 1.0 / (1.0 + (-2.0_f64).exp()), TOLERANCE);
    assert!(!sharp.present);
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = closed_softmax(&[0.0, bad, 1.0], 1.0).unwrap_err();
        assert_eq!(error.kind(), Kind::Device);
        assert_eq!(error.to_string(), format!("answer logit 2 of 3 is {bad}, not a number"));
    }
    assert_eq!(closed_softmax(&[], 1.0).unwrap_err().kind(), Kind::Internal);
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(closed_softmax(&[0.0], temperature).unwrap_err().kind(), Kind::Internal);
    }
    for extreme in [[f32::MAX, f32::MIN], [f32::MIN, f32::MAX], [1e-45, 0.0]] {
        let probabilities = closed_softmax(&extreme, 1e-300).unwrap();
        assert!(probabilities.iter().all(|p| p.is_finite()), "{probabilities:?}");
        close(probabilities.iter().sum(), 1.0, TOLERANCE);
    }
}

#[test]
fn confidence_is_that_of_transformers() {
    let cases: Value = serde_json::from_str(include_str!("golden/score/confidence.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let probabilities: Vec<f64> = serde_json::from_value(case["probabilities"].clone()).unwrap();
        close(confidence(&probabilities), case["confidence"].as_f64().unwrap(), TOLERANCE);
    }
    close(confidence(&[1.0]), 1.0, 0.0);
}

#[test]
fn opinion_scores_become_levels_rounded_half_up() {
    let scale = LevelScale::default();
    let thirds = (3..=15).map(|sum| f64::from(sum) / 3.0);
    let letters: String =
        thirds.map(|score| char::from(b'a' - 1 + scale.encode(score).unwrap() as u8)).collect();
    // 2 and 4 lie between two letters, and the upper one is taken.
    assert_eq!(letters, "abcefghijlmno");
    assert_eq!(scale.encode(1.0 + 4.0 / 14.0 * 9.52).unwrap(), 11);
}

#[test]
fn decoding_inverts_encoding() {
    for scale in [
        LevelScale::default(),
        LevelScale::new(2, [-1.0, 1.0]).unwrap(),
        LevelScale::new(101, [0.0, 0.3]).unwrap(),
    ] {
        for level in 1..=scale.n_levels() {
            assert_eq!(scale.encode(scale.decode(level as f64)).unwrap(), level);
        }
    }
    let scale = LevelScale::default();
    for step in 0..=400 {
        let score = 1.0 + f64::from(step) / 100.0;
        let error = (scale.decode(scale.encode(score).unwrap() as f64) - score).abs();
        assert!(error <= 2.0 / 14.0 + TOLERANCE, "{score} is off by {error}");
    }
    for score in [0.99, 5.01, f64::NAN, f64::INFINITY] {
        assert_eq!(scale.encode(score).unwrap_err().kind(), Kind::Input);
    }
}

#[test]
fn options_default_to_the_contract_and_survive_a_round_trip() {
    let contract = json!({
        "overall": {"kind": "levels", "tokens": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"],
                    "scale": [1, 5], "temperature": 1.0},
        "element": {"tokens": ["Yes", "No"], "threshold": 0.5, "temperature": 1.0}
    });
    assert_eq!(serde_json::to_string(&ScoringOptions::default()).unwrap(), contract.to_string());
    for json in [json!({}), json!({"overall": {}}), json!({"element": {"threshold": 0.5}}), contract] {
        assert_eq!(
            ScoringOptions::from_json(json.to_string().as_bytes()).unwrap(),
            ScoringOptions::default()
        );
    }
    let zero_shot = ScoringOptions::from_json(br#"{"overall": {"kind": "yes_no"}}"#).unwrap();
    assert_eq!(
        ScoringOptions { preset: Some("zero-shot".into()), ..zero_shot.clone() },
        ScoringOptions::zero_shot()
    );
    assert_eq!(zero_shot.with_overall(OverallKind::Levels), ScoringOptions::default());
}

#[test]
fn impossible_options_are_errors_that_name_them() {
    let cases = [
        (json!({"overall": {"kind": "stars"}}), "stars"),
        (json!({"overall": {"tokens": ["a"]}}), "1 levels"),
        (json!({"overall": {"tokens": []}}), "0 levels"),
        (json!({"overall": {"tokens": ["a", "b", "a"]}}), "\"a\""),
        (json!({"overall": {"tokens": ["a", ""]}}), "overall.tokens"),
        (json!({"overall": {"scale": [5, 1]}}), "5 to 1"),
        (json!({"overall": {"scale": [-1.7e308, 1.7e308]}}), "scale"),
        (json!({"overall": {"scale": [1]}}), "length 1"),
        (json!({"overall": {"temperature": 0}}), "overall.temperature"),
        (json!({"overall": {"temperature": -1}}), "overall.temperature"),
        (json!({"element": {"temperature": 1e-320}}), "element.temperature"),
        (json!({"element": {"threshold": 1}}), "element.threshold"),
        (json!({"element": {"threshold": 0.0}}), "element.threshold"),
        (json!({"element": {"tokens": ["Yes", "Yes"]}}), "element.tokens"),
        (json!({"element": {"tokens": ["Yes", "No", "Maybe"]}}), "length"),
        (json!({"element": {"treshold": 0.5}}), "treshold"),
        (json!([1]), "scoring options"),
    ];
    for (options, expected) in cases {
        let text = refused(&options);
        assert!(text.contains(expected) && !text.contains('\n'), "{options}: {text}");
    }
}

#[test]
fn answers_are_one_id_each_and_all_distinct() {
    let tokenizer = tokenizer();
    let answers = AnswerTokens::resolve(&tokenizer, &ScoringOptions::default()).unwrap();
    let letters: Vec<u32> =
        (b'a'..=b'o').map(|c| tokenizer.token_id(&char::from(c).to_string()).unwrap()).collect();
    assert_eq!(answers.levels, letters);
    let yes_no = ["Yes", "No"].map(|token| tokenizer.token_id(token).unwrap());
    assert_eq!((answers.element(), answers.overall()), (yes_no, letters));
    let zero_shot = AnswerTokens::resolve(&tokenizer, &ScoringOptions::zero_shot()).unwrap();
    assert_eq!(zero_shot.overall(), yes_no);

    let mut options = ScoringOptions::default();
    options.overall.tokens[3] = "zebra".into();
    let error = AnswerTokens::resolve(&tokenizer, &options).unwrap_err();
    assert!(error.kind() == Kind::Model && error.to_string().contains("\"zebra\""), "{error}");
    // The Kelvin sign is normalised to the letter K, so the two are one token.
    options.overall.tokens = vec!["\u{212a}".into(), "K".into()];
    let error = AnswerTokens::resolve(&tokenizer, &options).unwrap_err().to_string();
    assert!(error.contains("share the id"), "{error}");
}

fn result(options: ScoringOptions, logits: &[f32]) -> String {
    let result = ScoreResult {
        model: ModelIdentity {
            name: "shapes".into(),
            architecture: "qwen3_vl".into(),
            quantization: "q8_0".into(),
            sha256: "ab".into(),
        },
        overall: overall(&options, logits).unwrap(),
        elements: vec![element(&options.element, &red_circle(), [0.0, 0.0]).unwrap()],
        device: "cpu".into(),
        timings_ms: Timings::default(),
        elements_geometric_mean: Some(0.25),
        scoring: options,
    };
    serde_json::to_string(&result).unwrap()
}

#[test]
fn the_elements_together_are_their_geometric_mean() {
    let element =
        |score: f64| ElementScore { element: "x".into(), category: Category::Other, score, present: false };
    assert_eq!(geometric_mean(&[]), None);
    let mean = geometric_mean(&[element(0.9), element(0.4), element(0.6)]).unwrap();
    assert!((mean - 0.216_f64.cbrt()).abs() < 1e-15, "{mean}");
    assert_eq!(geometric_mean(&[element(0.9), element(0.0)]), Some(0.0));
}

#[test]
fn untuned_checkpoints_are_told_by_their_names() {
    let preset = |name: &str| ScoringOptions::of_checkpoint(name, None).unwrap().preset.unwrap();
    assert_eq!(preset("Qwen3-VL-2B-Instruct"), "zero-shot, Qwen3-VL");
    assert_eq!(preset("Qwen3Vl 4b Instruct Qwen3-VL Instruct"), "zero-shot, Qwen3-VL");
    assert_eq!(preset("InternVL3_5-1B-HF"), "zero-shot, InternVL3");
    assert_eq!(preset("wishful thinking"), "zero-shot");
    for name in ["Qwen3-VL-2B-Thinking", "qwen3-vl-embedding-2b", "Qwen3-VL-Reranker-2B"] {
        let error = ScoringOptions::of_checkpoint(name, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().starts_with(&format!("{name} is by its name")), "{error}");
    }
    // How Thinking checkpoints open the answer, and how those do that may be told not to think.
    let opens = r"{{- '<|im_start|>assistant\n<think>\n' }}";
    let may =
        r"{{- '<|im_start|>assistant\n' }}{%- if not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}";
    ScoringOptions::of_checkpoint("model", Some(may)).unwrap();
    for template in [opens.to_owned(), serde_json::to_string(opens).unwrap(), opens.replace(r"\n", "\n")] {
        let error = ScoringOptions::of_checkpoint("model", Some(&template)).unwrap_err().to_string();
        assert!(error.contains("opens <think>"), "{error}");
    }
    let options = ScoringOptions::zero_shot();
    assert_eq!(options.clone().with_overall(OverallKind::YesNo), options);
    assert_eq!(options.with_overall(OverallKind::Levels).preset, None);
}

#[test]
fn a_result_is_the_object_of_the_contract_in_its_order() {
    let mut options = ScoringOptions::default();
    options.overall.tokens = vec!["a".into(), "b".into()];
    let scoring = serde_json::to_string(&options).unwrap();
    let expected = [
        r#"{"model":{"name":"shapes","architecture":"qwen3_vl","quantization":"q8_0","sha256":"ab"},"#,
        r#""overall":{"score":3.0,"scale":[1,5],"confidence":0.0,"expected_level":1.5,"#,
        r#""levels":[{"token":"a","probability":0.5},{"token":"b","probability":0.5}]},"#,
        r#""elements":[{"element":"red circle","category":"color","score":0.5,"present":true}],"device":"cpu","#,
        r#""timings_ms":{"load":0.0,"image":0.0,"prefix":0.0,"questions":0.0},"elements_geometric_mean":0.25,"scoring":"#,
        scoring.as_str(),
        "}",
    ];
    assert_eq!(result(options, &[1.0, 1.0]), expected.concat());
    let yes_no: Value = serde_json::from_str(&result(ScoringOptions::zero_shot(), &[1.0, 1.0])).unwrap();
    let overall = json!({"score": 3.0, "scale": [1, 5], "confidence": 0.0, "expected_level": null, "levels": [],
                         "probability": 0.5});
    assert_eq!(yes_no["overall"], overall);
}
