//! Metrics against scipy, the challenge's vector and the edges at which they are undefined.

use imatch::metrics::{
    Answer, NoTemperature, PlccVariant, accuracy, final_score, fit_temperature, krcc, pearson, plcc, ranks,
    reliability, rmse, srcc,
};

/// Both fits stop close to the optimum, where Pearson's coefficient is flat. In one case the best logistic lies at
/// infinity (an exponential); scipy and we approach it slowly and stop 8e-7 apart, in the others under 1e-8.
const FIT: f64 = 1e-6;

/// Closed formulas in f64.
const EXACT: f64 = 1e-12;

#[derive(serde::Deserialize)]
struct Calibration {
    fits: Vec<Fit>,
    labels: Vec<f64>,
    scores: Vec<f64>,
    /// Number, mean score and mean label of each bin.
    bins: Vec<[f64; 3]>,
    ece: f64,
}

#[derive(serde::Deserialize)]
struct Fit {
    probabilities: Vec<Vec<f64>>,
    targets: Vec<Vec<f64>>,
    temperature: f64,
    nll_before: f64,
    nll_after: f64,
}

#[derive(serde::Deserialize)]
struct Case {
    labels: Vec<f64>,
    predictions: Vec<f64>,
    srcc: f64,
    krcc: f64,
    raw: f64,
    official: f64,
    documented: f64,
    rmse: f64,
}

#[track_caller]
fn near(name: &str, got: Option<f64>, expected: f64, tolerance: f64) {
    let got = got.unwrap_or_else(|| panic!("{name}: undefined, expected {expected}"));
    assert!((got - expected).abs() <= tolerance, "{name}: got {got}, expected {expected}");
}

/// Fifteen labels and predictions of the challenge's format and the official scorer's results for them.
fn vector() -> (Vec<f64>, Vec<f64>) {
    let labels = [
        1.0, 1.333_333, 1.666_667, 2.0, 2.333_333, 2.666_667, 3.0, 3.333_333, 3.666_667, 4.0, 4.333_333,
        4.666_667, 5.0, 2.5, 3.5,
    ];
    let predictions = [1.2, 1.1, 2.0, 1.8, 2.6, 2.2, 3.1, 3.0, 3.9, 3.6, 4.1, 4.6, 4.8, 2.9, 3.2];
    (labels.to_vec(), predictions.to_vec())
}

#[test]
fn every_coefficient_agrees_with_scipy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let (labels, predictions) = (&case.labels, &case.predictions);
        near("srcc", srcc(labels, predictions), case.srcc, EXACT);
        near("krcc", krcc(labels, predictions), case.krcc, EXACT);
        near("rmse", rmse(labels, predictions), case.rmse, EXACT);
        near("raw", plcc(labels, predictions, PlccVariant::Raw), case.raw, EXACT);
        near("official", plcc(labels, predictions, PlccVariant::Official), case.official, FIT);
        near("documented", plcc(labels, predictions, PlccVariant::Documented), case.documented, FIT);
    }
}

#[test]
fn the_official_scorers_vector_comes_out() {
    let (labels, predictions) = vector();
    // The scorer prints four decimals; the rest was computed with scipy to six.
    near("srcc", srcc(&labels, &predictions), 0.9750, 5e-5);
    near("official", plcc(&labels, &predictions, PlccVariant::Official), 0.9721, 5e-5);
    near("documented", plcc(&labels, &predictions, PlccVariant::Documented), 0.972_385, 5e-7);
    near("raw", plcc(&labels, &predictions, PlccVariant::Raw), 0.972_044, 5e-7);
    near("krcc", krcc(&labels, &predictions), 0.885_714, 5e-7);
}

#[test]
fn the_logistic_hides_a_negative_sign_that_the_ranks_show() {
    let (labels, predictions) = vector();
    let negated: Vec<f64> = predictions.iter().map(|value| -value).collect();
    near("srcc", srcc(&labels, &negated), -0.9750, 5e-5);
    near("official", plcc(&labels, &negated, PlccVariant::Official), 0.9721, 5e-5);
    assert!(pearson(&labels, &negated).unwrap() < 0.0);
}

#[test]
fn an_affine_rescale_of_the_predictions_changes_no_correlation() {
    let (labels, predictions) = vector();
    for (scale, shift) in [(100.0, -7.0), (1e-9, 0.0), (1e200, 1e200)] {
        let scaled: Vec<f64> = predictions.iter().map(|value| scale * value + shift).collect();
        near("srcc", srcc(&labels, &scaled), srcc(&labels, &predictions).unwrap(), EXACT);
        for variant in [PlccVariant::Official, PlccVariant::Documented, PlccVariant::Raw] {
            near(
                "plcc",
                plcc(&labels, &scaled, variant),
                plcc(&labels, &predictions, variant).unwrap(),
                1e-7,
            );
        }
    }
}

#[test]
fn constants_few_items_and_unequal_lengths_are_undefined_and_never_nan() {
    let rising = [1.0, 2.0, 3.0, 4.0, 5.0];
    for other in [vec![0.3; 5], vec![1.0, 2.0, 3.0], vec![], vec![f64::NAN, 1.0, 2.0, 3.0, 4.0]] {
        for (x, y) in [(&rising[..], &other[..]), (&other[..], &rising[..])] {
            assert_eq!(srcc(x, y), None, "{x:?} {y:?}");
            assert_eq!(krcc(x, y), None, "{x:?} {y:?}");
            for variant in [PlccVariant::Official, PlccVariant::Documented, PlccVariant::Raw] {
                assert_eq!(plcc(x, y, variant), None, "{x:?} {y:?}");
            }
        }
    }
    assert_eq!(plcc(&rising[..3], &rising[..3], PlccVariant::Official), None);
    assert_eq!(rmse(&[], &[]), None);
    assert_eq!(rmse(&[1e300, 0.0], &[-1e300, 0.0]), None);
    assert_eq!(accuracy(&[]), None);
}

#[test]
fn hard_fits_stay_finite() {
    let line: Vec<f64> = (0..50).map(f64::from).collect();
    let step: Vec<f64> = (0..50).map(|i| f64::from(u8::from(i >= 25))).collect();
    let spike: Vec<f64> = (0..50).map(|i| if i == 7 { 1e12 } else { f64::from(i % 3) }).collect();
    for y in [&line, &step, &spike] {
        for variant in [PlccVariant::Official, PlccVariant::Documented] {
            if let Some(value) = plcc(&line, y, variant) {
                assert!((-1.0..=1.0).contains(&value), "{value}");
            }
        }
    }
    near("line", plcc(&line, &line, PlccVariant::Official), 1.0, 1e-3);
    near("step", plcc(&line, &step, PlccVariant::Official), 1.0, 1e-6);
}

#[test]
fn ranks_share_the_mean_of_ties() {
    assert_eq!(ranks(&[3.0, 1.0, 3.0, -0.0, 0.0]), [4.5, 3.0, 4.5, 1.5, 1.5]);
}

#[test]
fn both_sides_of_an_element_are_cut_at_a_half() {
    // The five elements of the vector's three pictures: .49 and .51, .5 and .2, .7.
    let pairs = [(0.0, 0.49), (1.0 / 3.0, 0.51), (2.0 / 3.0, 0.5), (1.0, 0.2), (0.5, 0.7)];
    near("accuracy", accuracy(&pairs), 0.6, EXACT);
    near("final", Some(final_score(0.9750, 0.9721, 0.6000)), 0.7868, 5e-5);
}

#[test]
fn variants_are_named_as_on_the_command_line() {
    for (name, variant) in [
        ("official", PlccVariant::Official),
        ("documented", PlccVariant::Documented),
        ("raw", PlccVariant::Raw),
    ] {
        assert_eq!(name.parse::<PlccVariant>().unwrap(), variant);
    }
    let error = "Raw".parse::<PlccVariant>().unwrap_err();
    assert_eq!(error.to_string(), "PLCC variant: expected official, documented or raw, got \"Raw\"");
}

fn calibration() -> Calibration {
    serde_json::from_str(include_str!("golden/calibration.json")).unwrap()
}

#[test]
fn temperatures_are_those_that_scipy_finds() {
    // Both searches stop where the likelihood is flat to the last digits; the fixture has six.
    const SEARCH: f64 = 1e-5;
    let fits = calibration().fits;
    assert_eq!(fits.len(), 3);
    for fit in fits {
        let answers: Vec<Answer> = fit
            .probabilities
            .into_iter()
            .zip(fit.targets)
            .map(|(probabilities, target)| Answer { probabilities, target })
            .collect();
        let found = fit_temperature(&answers).unwrap();
        assert_eq!(found.n, answers.len());
        near("temperature", Some(found.temperature), fit.temperature, SEARCH);
        near("before", Some(found.nll_before), fit.nll_before, SEARCH);
        near("after", Some(found.nll_after), fit.nll_after, SEARCH);
    }
}

#[test]
fn a_temperature_undoes_the_one_that_was_applied() {
    // Shares of raters that are exactly the softmax at temperature 1 of logits seen at temperature 1 / 4.
    let yes = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let answers: Vec<Answer> =
        (-8..=8).map(|step| Answer::yes_no(yes(f64::from(step)), yes(f64::from(step) / 4.0))).collect();
    near("temperature", fit_temperature(&answers).ok().map(|fit| fit.temperature), 4.0, 1e-9);
}

#[test]
fn no_temperature_is_made_up_where_none_is_best() {
    let fit = |pairs: &[(f64, f64)]| {
        fit_temperature(&pairs.iter().map(|(p, label)| Answer::yes_no(*p, *label)).collect::<Vec<_>>())
    };
    assert_eq!(fit(&[]), Err(NoTemperature::Empty));
    assert_eq!(fit(&[(0.5, 1.0), (0.5, 0.0)]), Err(NoTemperature::Uninformative));
    assert_eq!(fit(&[(0.9, 0.0), (0.2, 1.0), (0.6, 0.0)]), Err(NoTemperature::Uninformative));
    assert_eq!(fit(&[(0.9, 1.0), (0.2, 0.0), (0.6, 1.0)]), Err(NoTemperature::Faultless));
    // Certain and wrong once in four times: logits of 20.7 cool down to the odds of 3.
    let found = fit(&[(1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)]).unwrap();
    near("certain", Some(found.temperature), (1e9_f64 - 1.0).ln() / 3.0_f64.ln(), 1e-6);
}

#[test]
fn reliability_is_that_of_scipys_bins() {
    let Calibration { labels, scores, bins, ece, .. } = calibration();
    let pairs: Vec<(f64, f64)> = labels.into_iter().zip(scores).collect();
    let found = reliability(&pairs, 10).unwrap();
    near("ece", Some(found.ece), ece, EXACT);
    assert_eq!((found.bins.len(), found.bins[3].from, found.bins[3].to), (10, 0.3, 0.4));
    for (bin, [n, predicted, observed]) in found.bins.iter().zip(bins) {
        near("count", Some(bin.n as f64), n, 0.0);
        near("predicted", bin.predicted, predicted, EXACT);
        near("observed", bin.observed, observed, EXACT);
    }
    let few = reliability(&[(1.0, 1.0), (0.0, 0.1)], 10).unwrap();
    assert_eq!((few.bins[9].n, few.bins[1].n, few.bins[0].predicted), (1, 1, None));
    near("few", Some(few.ece), 0.05, EXACT);
    for bad in [1.1, -0.1, f64::NAN] {
        assert_eq!(reliability(&[(0.5, bad)], 10), None);
    }
    assert_eq!(reliability(&[], 10), None);
}
