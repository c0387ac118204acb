//! Training from scratch: what a batch asks is what the engine asks, and where a learner starts.

use std::collections::BTreeMap;

use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use imatch::data::draw::places;
use imatch::data::scene::{Claim, Color, Shape, Size};
use imatch::data::synth::Sampler;
use imatch::engine::{Engine, Place, Question};
use imatch::text::{Category, ChatTemplate, PromptType, Request, Tokenizer};
use imatch::train::{
    Asked, Batch, Blueprint, CELLS, CLASSES, Learner, Recipe, Run, SIDE, Scenes, Schedule, Source, export,
};
use imatch::weights::{Bundle, ModelFacts};
use pollster::block_on;
use tempfile::TempDir;

use super::common::{Array, arrays_at};

const SEED: u64 = 5;

/// Rounding of sums in another order.
const SAME: f32 = 1e-4;

/// A learner before its first step, as its exported weights.
fn start() -> (ModelFacts, BTreeMap<String, Array>) {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let folder = TempDir::new().unwrap();
    let learner = Learner::new(&blueprint.config, CLASSES, CELLS, &Device::flex());
    export(&learner, &blueprint, folder.path()).unwrap();
    (blueprint, arrays_at(&folder.path().join("model.safetensors")))
}

#[test]
fn a_batch_answers_what_the_engine_answers() {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let device = Device::flex();
    device.seed(SEED);
    let learner = Learner::new(&blueprint.config, CLASSES, CELLS, &device);
    let folder = TempDir::new().unwrap();
    export(&learner, &blueprint, folder.path()).unwrap();
    let bundle = block_on(Bundle::open(folder.path())).unwrap();
    let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
    let answers = engine.processor().answers();
    let closed = [answers.levels.clone(), answers.element().to_vec()];

    // The samples that step 0 consists of; their prompts and questions differ in length.
    let items = Scenes::new(&blueprint, Recipe::shapes(), SEED).unwrap().items(0, 4, true).unwrap();
    let lengths: Vec<usize> = items.iter().map(|item| item.asked[0].ids.len()).collect();
    assert!(lengths.iter().any(|length| *length != lengths[0]), "prompts of one length test no padding");
    let batch = Batch::new(&items.iter().collect::<Vec<_>>(), &blueprint.config, &device).unwrap();
    let objective = block_on(learner.answer(&batch)).unwrap();
    let [_, vocabulary] = objective.logits.dims();
    let logits: Vec<f32> = objective.logits.into_data().try_to_vec().unwrap();
    let mut rows = logits.chunks_exact(vocabulary);
    let targets: Vec<i32> = batch.targets.into_data().try_to_vec().unwrap();
    let mut largest = 0f32;
    let mut row = 0;
    for (index, item) in items.iter().enumerate() {
        let picture = Sampler::new(SEED).with_size(SIDE).sample(index as u64).picture().unwrap();
        for (question, Asked { ids: sequence, answer, .. }) in item.asked.iter().enumerate() {
            let [(target, 1.0)] = answer.as_slice() else { panic!("{answer:?} is not one token") };
            assert_eq!(targets[row], *target as i32, "target of question {question} of item {index}");
            let ids = &closed[usize::from(question > 0)];
            assert!(ids.contains(target), "the target of question {question} answers it");
            let alone = Question {
                element: None,
                text: String::new(),
                token_ids: sequence.clone(),
                answer_token_ids: ids.clone(),
            };
            let mut session = block_on(engine.open(&picture, &())).unwrap();
            let (want, _) = block_on(session.ask(&[alone], &())).unwrap();
            let got = rows.next().unwrap();
            for (id, want) in ids.iter().zip(&want[0]) {
                largest = largest.max((got[*id as usize] - want).abs());
            }
            row += 1;
        }
    }
    assert!(largest < SAME, "logits differ by {largest}");
    assert_eq!(batch.elements.len(), row - items.len(), "every question but the overall ones is an element");
}

#[test]
fn patches_start_as_an_orthonormal_transform() {
    let (_, weights) = start();
    let weight = &weights["model.visual.patch_embed.proj.weight"];
    // [features, colours, frames, rows, columns]; both frames of a picture are the same.
    let [features, colors, frames, side, _] = weight.shape[..] else { panic!("{:?}", weight.shape) };
    let plane = side * side;
    let rows: Vec<Vec<f32>> = weight
        .data
        .chunks_exact(colors * frames * plane)
        .map(|row| {
            let pixel = |color: usize, at: usize| {
                (0..frames).map(|frame| row[(color * frames + frame) * plane + at]).sum::<f32>()
            };
            (0..colors).flat_map(|color| (0..plane).map(move |at| pixel(color, at))).collect()
        })
        .collect();
    assert_eq!(rows.len(), features);
    for (a, left) in rows.iter().enumerate() {
        // Grey is lightness and nothing else: the first of every three features.
        let grey = (0..plane).map(|at| left[at] + left[plane + at] + left[2 * plane + at]);
        let seen = grey.fold(0f32, |most, value| most.max(value.abs()));
        assert_eq!(seen > 1e-3, a % 3 == 0, "feature {a} sees grey by {seen}");
        for (b, right) in rows.iter().enumerate() {
            let product: f32 = left.iter().zip(right).map(|(x, y)| x * y).sum();
            let want = if a == b { 1.0 } else { 0.0 };
            assert!((product - want).abs() < 1e-4, "features {a} and {b}: {product}");
        }
    }
}

#[test]
fn the_wording_around_an_element_is_two_tokens() {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let tokenizer = Tokenizer::from_json(&blueprint.tokenizer).unwrap();
    let template = ChatTemplate::new(tokenizer, blueprint.config.family, blueprint.config.tokens).unwrap();
    let encode = |text: &str| template.tokenizer().encode(text).unwrap();
    let drawn = [
        Category::Object,
        Category::Color,
        Category::Shape,
        Category::Attribute,
        Category::Location,
        Category::Counting,
        Category::Spatial,
        Category::Other,
    ];
    for category in drawn {
        for prompt_type in [None, Some(PromptType::Real), Some(PromptType::Synthetic)] {
            let element = format!("red circle ({category})");
            let request = Request::new("a red circle", &[element], prompt_type).unwrap();
            let text = request.element_texts().next().unwrap();
            let (shared, question) = text.split_once('\n').unwrap();
            assert_eq!(encode(question).len(), 2 + encode("red circle").len(), "{question}");
            assert_eq!(encode(shared).len(), 1 + encode("a red circle").len() + 1, "{shared}");
            // What all questions share has the same ids whatever follows.
            assert_eq!(encode(&text), [encode(&format!("{shared}\n")), encode(question)].concat());
        }
    }
}

#[test]
fn words_that_end_in_punctuation_leave_the_wording_whole() {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let tokenizer = Tokenizer::from_json(&blueprint.tokenizer).unwrap();
    let last = |words: &str| {
        let request = Request::new("a circle", &[format!("{words} (color)")], None).unwrap();
        let text = request.element_texts().next().unwrap();
        *tokenizer.encode(&text).unwrap().last().unwrap()
    };
    let closing = last("circle");
    assert_eq!(tokenizer.encode("\" shown? Yes or No?").unwrap(), [closing]);
    for words in ["circle.", "circle!?", "a \"circle\"", "circle ", "12", "é", "red, ("] {
        assert_eq!(last(words), closing, "{words:?}");
    }
}

#[test]
fn a_learner_that_is_no_longer_finite_is_not_written() {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let folder = TempDir::new().unwrap();
    let mut learner = Learner::new(&blueprint.config, CLASSES, CELLS, &Device::flex());
    learner.check_finite().unwrap();
    learner.embed_tokens = learner.embed_tokens.map(|table| table * f32::INFINITY);
    let error = export(&learner, &blueprint, folder.path()).unwrap_err();
    assert!(error.to_string().contains("embed_tokens is no longer finite"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn keys_start_as_the_first_query_that_reads_them() {
    let (blueprint, weights) = start();
    let text = &blueprint.config.text;
    let group = text.num_attention_heads / text.num_key_value_heads;
    let size = text.head_dim * text.hidden_size;
    for layer in 0..text.num_hidden_layers {
        let of =
            |part: &str| &weights[&format!("model.language_model.layers.{layer}.self_attn.{part}.weight")];
        let (query, key, value) = (of("q_proj"), of("k_proj"), of("v_proj"));
        for head in 0..text.num_key_value_heads {
            let key = &key.data[head * size..][..size];
            assert_eq!(key, &query.data[head * group * size..][..size], "layer {layer}, head {head}");
            assert_ne!(key, &query.data[(head * group + 1) * size..][..size], "queries of a group differ");
            assert_ne!(key, &value.data[head * size..][..size]);
        }
    }
}

#[test]
fn places_are_the_cells_of_what_a_claim_names() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in (0..400).map(|index| Sampler::new(SEED).sample(index)) {
        assert_eq!(sample.asked.len(), sample.elements.len(), "{}", sample.id);
        for (claim, (words, present)) in sample.asked.iter().zip(&sample.elements) {
            // Cells of the objects that the element's own words name, first and second.
            let (kind, named): (_, Vec<&str>) = match claim {
                Claim::Place(..) => (
                    "place",
                    words
                        .split(" left of ")
                        .flat_map(|part| part.split(" right of "))
                        .flat_map(|part| part.split(" above "))
                        .flat_map(|part| part.split(" below "))
                        .collect(),
                ),
                Claim::Texture(_) | Claim::Tone(_) => ("background", vec![]),
                Claim::Count(..) => ("count", vec![words]),
                Claim::Shape(_) | Claim::Color(_) | Claim::Thing(_) | Claim::Size(..) => ("one", vec![words]),
            };
            let mut want = vec![0u8; 18];
            for (plane, named) in named.iter().enumerate() {
                let says =
                    |word: &str| named.split([' ', '(']).any(|part| part.trim_end_matches('s') == word);
                for object in &sample.scene.objects {
                    let contradicts =
                        |all: &[&str], own: &str| all.iter().any(|word| says(word)) && !says(own);
                    let wrong = contradicts(&Color::ALL.map(Color::word), object.thing.color.word())
                        || contradicts(&Shape::ALL.map(Shape::word), object.thing.shape.word())
                        || contradicts(&Size::ALL.map(Size::word), object.size.word());
                    let [x, y] = object.center.map(|at| (at * 3.0) as usize);
                    want[9 * plane + 3 * y + x] |= u8::from(!wrong);
                }
            }
            assert_eq!(places(&sample.scene, claim, 3, 3), want, "{}: {words}", sample.id);
            let first = want[..9].iter().sum::<u8>() as usize;
            match *claim {
                // One object a cell.
                Claim::Count(count, _) => assert_eq!(first == count, *present, "{}: {words}", sample.id),
                _ if kind == "one" => assert_eq!(first > 0, *present, "{}: {words}", sample.id),
                _ => {}
            }
            *kinds.entry(kind).or_default() += 1;
        }
    }
    assert!(kinds.len() == 4 && kinds.values().all(|&count| count > 40), "{kinds:?}");
}

#[test]
fn the_learning_rate_warms_up_and_falls_along_a_cosine() {
    let schedule = Schedule { warmup: 10, learning_rate: 2.0, ..Schedule::tune(100, false) };
    let twice = Schedule { see_steps: 50, ..schedule.clone() };
    for (schedule, step, want) in [
        (&schedule, 0, 0.2),
        (&schedule, 4, 0.996_134),
        (&schedule, 9, 1.961_088),
        (&schedule, 50, 1.02),
        (&schedule, 99, 0.040_484),
        (&twice, 49, 1.050_783),
        (&twice, 50, 0.102),
    ] {
        let rate = schedule.learning_rate_at(step);
        assert!((rate - want).abs() < 1e-5, "step {step}: {rate}, expected {want}");
    }
}

#[test]
fn a_run_takes_the_steps_that_its_schedule_says() {
    let facts =
        Blueprint::with_tokenizer(include_bytes!("../www/models/shapes/tokenizer.json").to_vec()).unwrap();
    let device = Device::flex().autodiff();
    let start = Learner::new(&facts.config, CLASSES, CELLS, &device);
    let scenes = Scenes::new(&facts, Recipe::shapes(), SEED).unwrap();
    // Numbers at which each of them matters.
    let schedule = Schedule {
        see_steps: 0,
        batch: 2,
        learning_rate: 0.02,
        warmup: 2,
        weight_decay: 0.5,
        beta_2: 0.5,
        clip: 0.01,
        auxiliary: 0.7,
        ..Schedule::tune(3, false)
    };
    let folder = TempDir::new().unwrap();
    let run = Run {
        dir: folder.path().into(),
        config: &facts.config,
        schedule: schedule.clone(),
        device: device.clone(),
    };
    let ran = run.train(start.clone(), &scenes, |_| Ok(())).unwrap();

    let mut learner = start.clone();
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.5)
        .with_weight_decay(0.5)
        .init()
        .with_grad_clipping(GradientClippingConfig::Norm(0.01).init());
    for step in 0..3 {
        let items = scenes.items(step, 2, true).unwrap();
        let batch = Batch::new(&items.iter().collect::<Vec<_>>(), &facts.config, &device).unwrap();
        let objective = block_on(learner.answer(&batch)).unwrap();
        let loss = objective.answer + objective.auxiliary.unwrap() * 0.7;
        let gradients = GradientsParams::from_grads(loss.backward(), &learner);
        learner = optimizer.step(schedule.learning_rate_at(step), learner, gradients);
    }
    let table = |learner: &Learner| -> Vec<f32> {
        learner.embed_tokens.val().inner().into_data().try_into_vec().unwrap()
    };
    let (got, want) = (table(&ran), table(&learner));
    let apart = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5, "the table is {apart} apart after three steps");
    assert_ne!(want, table(&start));
}
