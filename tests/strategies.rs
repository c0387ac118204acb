//! Each strategy of the paper: what it changes when it is on, and that nothing changes when it is off.
#![allow(clippy::float_cmp, reason = "shares and labels are exact")]

use std::collections::BTreeMap;

use imatch::config::{Geometry, ImageConfig};
use imatch::data::evalmuse::{Label, Rating};
use imatch::data::lighting::Lighting;
use imatch::data::rng::Rng;
use imatch::data::synth::Sampler;
use imatch::image::Picture;
use imatch::image::patches::preprocess;
use imatch::score::{AnswerTokens, ElementScore, LevelScale, OverallScore, ScoringOptions};
use imatch::text::{Category, ChatTemplate, Element, PromptType, Request, Tokenizer, Wording};
use imatch::train::{
    Blueprint, Instructions, Item, Predicted, Recipe, SIDE, Selection, Strategies, Strategy, Truth,
};
use imatch::weights::ModelFacts;

const SEED: u64 = 11;
const ELEMENTS: [&str; 3] = ["red circle (color)", "two stars (counting)", "circle left of star (spatial)"];

/// A model's facts with all that is needed to ask what its items should be.
struct Fixture {
    facts: ModelFacts,
    template: ChatTemplate,
    answers: AnswerTokens,
    picture: Picture,
}

impl Fixture {
    fn new() -> Self {
        let facts = Blueprint::with_tokenizer(include_bytes!("../www/models/shapes/tokenizer.json").to_vec())
            .unwrap();
        let tokenizer = Tokenizer::from_json(&facts.tokenizer).unwrap();
        let answers = AnswerTokens::resolve(&tokenizer, &facts.scoring).unwrap();
        let template = ChatTemplate::new(tokenizer, facts.config.family, facts.config.tokens).unwrap();
        let picture = Sampler::new(SEED).with_size(SIDE).sample(0).picture().unwrap();
        Self { facts, template, answers, picture }
    }

    fn request() -> Request {
        let elements = ELEMENTS.map(str::to_owned);
        Request::new("a red circle left of two stars", &elements, Some(PromptType::Real)).unwrap()
    }

    fn truth(total: &Label, elements: [f64; 3]) -> Truth {
        let elements = elements.map(|mean| Label { mean, ratings: Vec::new() }).to_vec();
        Truth { request: Self::request(), total: Some(total.clone()), elements }
    }

    fn items(&self, recipe: &Recipe, truth: &Truth, count: u64) -> Vec<Item> {
        let instructions = Instructions::new(&self.facts, recipe.clone(), SEED).unwrap();
        (0..count).map(|sample| instructions.item(self.picture.clone(), truth, sample).unwrap()).collect()
    }

    /// The sequences that a request's questions are, the overall one first.
    fn sequences(&self, request: &Request) -> Vec<Vec<u32>> {
        let overall = request.overall_text(self.facts.scoring.overall.question());
        let texts = std::iter::once(overall).chain(request.element_texts());
        texts.map(|text| self.template.sequence(&text, 9).unwrap()).collect()
    }

    /// The level that a hard answer names, from 1.
    fn level(&self, item: &Item) -> usize {
        let [(token, _)] = item.asked[0].answer[..] else { panic!("{:?}", item.asked[0].answer) };
        self.answers.levels.iter().position(|level| *level == token).unwrap() + 1
    }

    /// Share of samples in which an element is answered yes.
    fn yes(&self, items: &[Item], element: usize) -> f64 {
        let yes = |item: &&Item| item.asked[element + 1].answer == [(self.answers.yes, 1.0)];
        items.iter().filter(yes).count() as f64 / items.len() as f64
    }
}

fn with(set: impl FnOnce(&mut Strategies)) -> Recipe {
    let mut recipe = Recipe { strategies: Strategies::none(), ..Recipe::new() };
    set(&mut recipe.strategies);
    recipe
}

fn mean(mean: f64) -> Label {
    Label { mean, ratings: Vec::new() }
}

fn ids(item: &Item) -> Vec<Vec<u32>> {
    item.asked.iter().map(|asked| asked.ids.clone()).collect()
}

fn truth() -> Truth {
    Fixture::truth(&mean(3.0), [1.0, 0.0, 1.0])
}

#[test]
fn without_strategies_the_plain_questions_are_asked_about_the_plain_picture() {
    let fixture = Fixture::new();
    let mut plain = Fixture::request();
    plain.prompt_type = None;
    plain.elements.iter_mut().for_each(|element| element.category = Category::Other);
    let patches = preprocess(&fixture.picture, &fixture.facts.image).unwrap();
    for item in fixture.items(&with(|_| ()), &truth(), 20) {
        assert_eq!(ids(&item), fixture.sequences(&plain));
        assert_eq!(item.patches.data, patches.data);
        assert_eq!(fixture.level(&item), 8);
        let weights: Vec<f32> = item.asked.iter().map(|asked| asked.weight).collect();
        assert_eq!(weights, [0.5, 0.5 / 3.0, 0.5 / 3.0, 0.5 / 3.0]);
    }
}

#[test]
fn element_augmentation_names_categories_but_for_a_share() {
    let fixture = Fixture::new();
    let mut always = Fixture::request();
    always.prompt_type = None;
    let named = with(|all| (all.element_augmentation, all.uncategorised) = (Strategy::ON, 0.0));
    assert_eq!(ids(&fixture.items(&named, &truth(), 1)[0]), fixture.sequences(&always));

    let often = with(|all| (all.element_augmentation, all.uncategorised) = (Strategy::ON, 0.25));
    let wanted = fixture.sequences(&always);
    let items = fixture.items(&often, &truth(), 400);
    let named = items.iter().flat_map(|item| (1..4).map(|at| u32::from(item.asked[at].ids == wanted[at])));
    let share = f64::from(named.sum::<u32>()) / 1200.0;
    assert!((share - 0.75).abs() < 0.05, "{share}");
}

#[test]
fn prompt_type_augmentation_names_the_type_but_for_a_share() {
    let fixture = Fixture::new();
    let mut always = Fixture::request();
    always.elements.iter_mut().for_each(|element| element.category = Category::Other);
    let named = with(|all| (all.prompt_type_augmentation, all.untyped) = (Strategy::ON, 0.0));
    assert_eq!(ids(&fixture.items(&named, &truth(), 1)[0]), fixture.sequences(&always));

    let often = with(|all| (all.prompt_type_augmentation, all.untyped) = (Strategy::ON, 0.25));
    let wanted = fixture.sequences(&always);
    let items = fixture.items(&often, &truth(), 400);
    let share = items.iter().filter(|item| ids(item) == wanted).count() as f64 / 400.0;
    assert!((share - 0.75).abs() < 0.07, "{share}");
    // All questions about a picture say the same of its prompt: they share a prefix.
    let mut untyped = always.clone();
    untyped.prompt_type = None;
    let untyped = fixture.sequences(&untyped);
    assert!(items.iter().all(|item| ids(item) == wanted || ids(item) == untyped));
}

#[test]
fn image_augmentation_changes_the_light_and_nothing_else() {
    let fixture = Fixture::new();
    let lit = fixture.items(&with(|all| all.image_augmentation = Strategy::ON), &truth(), 50);
    let plain = preprocess(&fixture.picture, &fixture.facts.image).unwrap();
    let mut brighter = 0;
    for item in &lit {
        assert_eq!(ids(item), ids(&lit[0]), "words stay");
        assert_ne!(item.patches.data, plain.data);
        // One rising curve for all channels: no two values change places, so no colour, no side and
        // no number can.
        let mut pairs: Vec<(f32, f32)> =
            plain.data.iter().copied().zip(item.patches.data.iter().copied()).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in pairs.windows(2) {
            assert!(pair[0].1 <= pair[1].1, "{pair:?} change places");
        }
        let sum = |data: &[f32]| data.iter().map(|&value| f64::from(value)).sum::<f64>();
        brighter += usize::from(sum(&item.patches.data) > sum(&plain.data));
    }
    assert!((10..40).contains(&brighter), "{brighter} of 50 are brighter");
}

/// Degrees on the colour wheel.
fn hue([r, g, b]: [u8; 3]) -> f32 {
    let [r, g, b] = [r, g, b].map(f32::from);
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let sixth = if most == r {
        (g - b) / (most - least)
    } else if most == g {
        2.0 + (b - r) / (most - least)
    } else {
        4.0 + (r - g) / (most - least)
    };
    60.0 * sixth
}

#[test]
fn no_light_turns_one_colour_into_another() {
    let colors =
        [[255, 165, 0], [246, 132, 26], [222, 38, 40], [244, 220, 44], [40, 84, 222], [146, 48, 186]];
    let rgb: Vec<u8> = colors.iter().flatten().copied().collect();
    let picture = Picture::new(colors.len(), 1, rgb).unwrap();
    for sample in 0..300 {
        let lit = Lighting::random(0.15, &mut Rng::stream(SEED, sample)).relit(&picture).unwrap();
        for (color, lit) in colors.iter().zip(lit.rgb().chunks_exact(3)) {
            let turned = (hue([lit[0], lit[1], lit[2]]) - hue(*color) + 540.0).rem_euclid(360.0) - 180.0;
            assert!(turned.abs() < 5.0, "{color:?} to {lit:?}: {turned} degrees");
        }
    }
}

#[test]
fn a_light_of_no_strength_is_no_light() {
    let picture = Fixture::new().picture;
    let none = Lighting { gain: 1.0, contrast: 1.0, gamma: 1.0 };
    assert_eq!(none.relit(&picture).unwrap(), picture);
    let dark = Lighting { gain: 0.5, ..none };
    assert!(dark.relit(&picture).unwrap().rgb().iter().zip(picture.rgb()).all(|(dark, level)| dark <= level));
}

#[test]
fn score_perturbation_makes_rounding_fair_and_spares_what_is_certain() {
    let fixture = Fixture::new();
    let recipe = with(|all| all.score_perturbation = Strategy::ON);
    // 3.1 lies 0.35 of a level above the eighth.
    let truth = Fixture::truth(&mean(3.1), [2.0 / 3.0, 1.0, 0.0]);
    let items = fixture.items(&recipe, &truth, 4000);
    let mut levels: BTreeMap<usize, usize> = BTreeMap::new();
    for item in &items {
        *levels.entry(fixture.level(item)).or_default() += 1;
    }
    assert_eq!(levels.keys().copied().collect::<Vec<_>>(), [8, 9]);
    let expected = levels.iter().map(|(level, count)| level * count).sum::<usize>() as f64 / 4000.0;
    assert!((expected - 8.35).abs() < 0.03, "{expected}");
    // Two raters of three: 2/3 moved by at most 1/4 falls below a half in one of six cases.
    let yes = fixture.yes(&items, 0);
    assert!((yes - 5.0 / 6.0).abs() < 0.03, "{yes}");
    assert_eq!([fixture.yes(&items, 1), fixture.yes(&items, 2)], [1.0, 0.0]);

    let off = fixture.items(&with(|_| ()), &truth, 50);
    assert!(off.iter().all(|item| fixture.level(item) == 8) && fixture.yes(&off, 0) == 1.0);
    // What is certain stays, also where answers are soft.
    for end in [1.0, 5.0] {
        let items = fixture.items(&recipe, &Fixture::truth(&mean(end), [0.5; 3]), 200);
        let level = LevelScale::default().encode(end).unwrap();
        assert!(items.iter().all(|item| fixture.level(item) == level));
    }
    let soft = Recipe { soft_labels: true, ..recipe };
    let items = fixture.items(&soft, &Fixture::truth(&mean(5.0), [1.0, 0.0, 2.0 / 3.0]), 2000);
    let [yes, no] = fixture.answers.element();
    assert!(
        items.iter().all(|item| item.asked[1].answer == [(yes, 1.0)] && item.asked[2].answer == [(no, 1.0)])
    );
    let third: f32 = items.iter().map(|item| item.asked[3].answer[0].1).sum::<f32>() / 2000.0;
    assert!((third - 2.0 / 3.0).abs() < 0.01, "{third}");
}

#[test]
fn paraphrases_ask_the_same_in_other_words() {
    let fixture = Fixture::new();
    let wordings: Vec<Vec<Vec<u32>>> = Wording::ALL
        .iter()
        .map(|&wording| {
            let mut plain = Fixture::request();
            plain.prompt_type = None;
            plain.elements.iter_mut().for_each(|element| element.category = Category::Other);
            fixture.sequences(&Request { wording, ..plain })
        })
        .collect();
    let mut seen = [0; 4];
    for item in fixture.items(&with(|all| all.paraphrase = Strategy::ON), &truth(), 200) {
        let which = wordings.iter().position(|wording| *wording == ids(&item));
        seen[which.expect("all questions of a picture in one known wording")] += 1;
    }
    assert!(seen.iter().all(|&count| count > 25), "{seen:?}");
}

#[test]
fn what_one_strategy_draws_does_not_depend_on_the_others() {
    let fixture = Fixture::new();
    let truth = Fixture::truth(&mean(3.1), [0.5; 3]);
    let answers = |recipe: &Recipe| -> Vec<Vec<(u32, f32)>> {
        let items = fixture.items(recipe, &truth, 100);
        items.iter().flat_map(|item| item.asked.iter().map(|asked| asked.answer.clone())).collect()
    };
    let alone = answers(&with(|all| all.score_perturbation = Strategy::ON));
    let all = with(|all| {
        *all = Strategies { score_perturbation: Strategy::ON, paraphrase: Strategy::ON, ..Strategies::new() };
    });
    assert_eq!(answers(&all), alone);
    let other = answers(&with(|all| all.score_perturbation = Strategy { on: true, seed: Some(99) }));
    assert_ne!(other, alone, "another seed draws other numbers");
    assert_eq!(
        answers(&with(|all| all.score_perturbation = Strategy { on: true, seed: Some(SEED) })),
        alone,
        "without a seed of its own the run's is taken"
    );
}

#[test]
fn soft_labels_expect_the_raters_mean_without_rounding() {
    let fixture = Fixture::new();
    let recipe = Recipe { soft_labels: true, ..with(|_| ()) };
    let scale = LevelScale::default();
    for ratings in [vec![1.0, 2.0, 4.0], vec![3.0; 3], vec![5.0, 5.0, 4.0, 2.0, 1.0, 1.0], vec![2.5]] {
        let mean = ratings.iter().sum::<f64>() / ratings.len() as f64;
        let total = Label { mean, ratings };
        let item = &fixture.items(&recipe, &Fixture::truth(&total, [2.0 / 3.0, 1.0, 0.0]), 1)[0];
        let answer = &item.asked[0].answer;
        let level = |token: u32| fixture.answers.levels.iter().position(|level| *level == token).unwrap() + 1;
        let (sum, expected) = answer.iter().fold((0.0, 0.0), |(sum, expected), &(token, share)| {
            (sum + f64::from(share), expected + f64::from(share) * level(token) as f64)
        });
        assert!((sum - 1.0).abs() < 1e-6 && (scale.decode(expected) - mean).abs() < 1e-6, "{answer:?}");
        let [yes, no] = fixture.answers.element();
        assert_eq!(item.asked[1].answer, [(yes, 2.0 / 3.0), (no, 1.0 / 3.0)]);
        assert_eq!(item.asked[2].answer, [(yes, 1.0)]);
        assert_eq!(item.asked[3].answer, [(no, 1.0)]);
    }
}

#[test]
fn the_shares_of_both_kinds_of_question_are_options() {
    let fixture = Fixture::new();
    let weights = |recipe: &Recipe, truth: &Truth| -> Vec<(bool, f32)> {
        let items = fixture.items(recipe, truth, 1);
        items[0].asked.iter().map(|asked| (asked.is_element, asked.weight)).collect()
    };
    let recipe = |overall_share, questions| Recipe { overall_share, questions, ..with(|_| ()) };
    let (whole, part) = ((false, 0.25), (true, 0.375));
    assert_eq!(weights(&recipe(0.25, 2), &truth()), [whole, part, part]);
    assert_eq!(weights(&recipe(0.0, 2), &truth()), [(true, 0.5), (true, 0.5)]);
    assert_eq!(weights(&recipe(0.25, 0), &truth()), [(false, 1.0)]);
    let unrated = Truth { total: None, ..truth() };
    assert_eq!(weights(&recipe(0.25, 1), &unrated), [(true, 1.0)]);
}

#[test]
fn more_elements_than_questions_take_turns() {
    let fixture = Fixture::new();
    let recipe = Recipe { questions: 1, ..with(|_| ()) };
    let mut seen = BTreeMap::new();
    for item in fixture.items(&recipe, &truth(), 300) {
        assert_eq!(item.asked.len(), 2);
        *seen.entry(item.asked[1].ids.clone()).or_insert(0) += 1;
    }
    assert!(seen.len() == 3 && seen.values().all(|&count| count > 60), "{:?}", seen.values());
}

#[test]
fn labels_outside_their_scale_teach_nothing() {
    let fixture = Fixture::new();
    let instructions = Instructions::new(&fixture.facts, with(|_| ()), SEED).unwrap();
    for (total, element, part) in
        [(5.1, 1.0, "5.1"), (f64::NAN, 1.0, "NaN"), (3.0, 1.5, "1.5"), (3.0, f64::NAN, "NaN")]
    {
        let truth = Fixture::truth(&mean(total), [element; 3]);
        let error = instructions.item(fixture.picture.clone(), &truth, 0).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let far = ImageConfig {
        geometry: Geometry::Scaled { min_pixels: 1 << 24, max_pixels: 1 << 24 },
        ..fixture.facts.image.clone()
    };
    let facts = ModelFacts { image: far, ..fixture.facts.clone() };
    let instructions = Instructions::new(&facts, with(|_| ()), SEED).unwrap();
    let error = instructions.item(fixture.picture.clone(), &truth(), 0).unwrap_err().to_string();
    assert!(error.contains("positions"), "{error}");
}

#[test]
fn pseudo_labels_are_what_the_model_is_sure_of() {
    let predicted = |name: &str, confidence: f64, elements: [f64; 2]| Predicted {
        img_path: name.to_owned(),
        prompt: "p".to_owned(),
        prompt_type: Some(PromptType::Synthetic),
        overall: OverallScore {
            score: 2.0 + confidence,
            scale: [1.0, 5.0],
            confidence,
            expected_level: None,
            levels: Vec::new(),
            probability: None,
        },
        elements: elements
            .iter()
            .zip(["x (y) (color)", "z (other)"])
            .map(|(&score, key)| {
                let Element { text, category } = Element::parse(key).unwrap();
                ElementScore { element: text, category, score, present: score >= 0.5 }
            })
            .collect(),
        scoring: ScoringOptions::default(),
    };
    let all = [
        predicted("unsure", 0.1, [0.4, 0.6]),
        predicted("sure", 0.9, [0.95, 0.05]),
        predicted("half", 0.3, [0.85, 0.5]),
    ];
    let records = Selection { keep: 1.0 / 3.0, confidence: 0.8 }.records(&all);
    let names: Vec<&str> = records.iter().map(|record| record.img_path.as_str()).collect();
    assert_eq!(names, ["sure"], "nothing about the others is sure enough");
    assert_eq!(records[0].total_score, Rating::Mean(2.9));
    assert_eq!(records[0].prompt_type, Some(PromptType::Synthetic));
    let keys: Vec<(&str, Option<f64>)> =
        records[0].element_score.iter().map(|(key, rating)| (key.as_str(), rating.mean())).collect();
    assert_eq!(keys, [("x (y) (color)", Some(0.95)), ("z (other)", Some(0.05))]);

    let records = Selection { keep: 0.0, confidence: 0.6 }.records(&all);
    let names: Vec<&str> = records.iter().map(|record| record.img_path.as_str()).collect();
    assert_eq!(names, ["sure", "half"]);
    assert!(records.iter().all(|record| record.total_score == Rating::Missing));
    assert_eq!(records[1].element_score[1].1, Rating::Missing);
    assert!(Selection { keep: 1.5, confidence: 0.5 }.validate().is_err());
}

#[test]
fn strategies_are_said_in_one_word() {
    for (text, strategy) in
        [("on", Strategy::ON), ("off", Strategy::OFF), ("on:7", Strategy { on: true, seed: Some(7) })]
    {
        assert_eq!(text.parse::<Strategy>().unwrap(), strategy);
        assert_eq!(strategy.to_string(), text);
    }
    for text in ["", "yes", "on:", "on:x", "off:7", "on:-1"] {
        assert!(text.parse::<Strategy>().is_err(), "{text}");
    }
}
