//! Training from scratch: what a batch asks is what the engine asks, and where a learner starts.

use std::collections::BTreeMap;

use burn::tensor::Device;
use imatch::data::draw::places;
use imatch::data::scene::Claim;
use imatch::data::synth::Sampler;
use imatch::engine::{Engine, Place, Question};
use imatch::text::{Category, ChatTemplate, PromptType, Request, Tokenizer};
use imatch::train::{Batch, Blueprint, CELLS, CLASSES, Learner, SIDE, Scenes, Source, export};
use imatch::weights::Bundle;
use pollster::block_on;
use tempfile::TempDir;

use super::common::arrays_at;

const SEED: u64 = 5;

/// Rounding of sums in another order.
const SAME: f32 = 1e-4;

#[test]
fn a_batch_answers_what_the_engine_answers() {
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let device = Device::flex();
    device.seed(SEED);
    let learner = Learner::new(&blueprint.config, CLASSES, CELLS, &device);
    let folder = TempDir::new().unwrap();
    export(&learner, &blueprint, folder.path()).unwrap();
    let bundle = block_on(Bundle::open_folder(folder.path())).unwrap();
    let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
    let answers = engine.processor().answers();
    let closed = [answers.levels.clone(), answers.element().to_vec()];

    // The samples that step 0 consists of; their prompts and questions differ in length.
    let items = Scenes::new(&blueprint, SEED).unwrap().items(0, 4, true).unwrap();
    let lengths: Vec<usize> = items.iter().map(|item| item.sequences[0].len()).collect();
    assert!(lengths.iter().any(|length| *length != lengths[0]), "prompts of one length test no padding");
    let batch = Batch::new(&items, &blueprint.config, &device).unwrap();
    let objective = block_on(learner.answer(&batch)).unwrap();
    let [_, vocabulary] = objective.logits.dims();
    let logits: Vec<f32> = objective.logits.into_data().try_to_vec().unwrap();
    let mut rows = logits.chunks_exact(vocabulary);
    let targets: Vec<i32> = batch.targets.into_data().try_to_vec().unwrap();
    let mut largest = 0f32;
    let mut row = 0;
    for (index, item) in items.iter().enumerate() {
        let picture = Sampler::new(SEED).with_size(SIDE).sample(index as u64).picture().unwrap();
        for (question, (sequence, target)) in item.sequences.iter().zip(&item.targets).enumerate() {
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
    let blueprint = Blueprint::shapes(SEED).unwrap();
    let folder = TempDir::new().unwrap();
    let learner = Learner::new(&blueprint.config, CLASSES, CELLS, &Device::flex());
    export(&learner, &blueprint, folder.path()).unwrap();
    let weights = arrays_at(&folder.path().join("model.safetensors"));
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
    let template = ChatTemplate::new(tokenizer, blueprint.config.tokens).unwrap();
    let encode = |text: &str| template.tokenizer().encode(text).unwrap();
    let drawn = [Category::Object, Category::Color, Category::Shape, Category::Counting, Category::Spatial];
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
fn places_are_the_cells_of_what_a_claim_names() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in (0..400).map(|index| Sampler::new(SEED).sample(index)) {
        assert_eq!(sample.asked.len(), sample.elements.len(), "{}", sample.id);
        for (claim, (_, present)) in sample.asked.iter().zip(&sample.elements) {
            let marks = places(&sample.scene, claim, 3, 3);
            let [first, second] = [&marks[..9], &marks[9..]].map(|plane| plane.iter().sum::<u8>() as usize);
            match *claim {
                Claim::Shape(_) | Claim::Color(_) | Claim::Thing(_) | Claim::Size(..) => {
                    assert_eq!((first > 0, second), (*present, 0), "{}: {claim:?}", sample.id);
                    *kinds.entry("one").or_default() += 1;
                }
                Claim::Count(count, _) => {
                    // One object a cell.
                    assert_eq!((first == count, second), (*present, 0), "{}: {claim:?}", sample.id);
                    *kinds.entry("count").or_default() += 1;
                }
                Claim::Place(..) => {
                    assert!(!present || (first > 0 && second > 0), "{}: {claim:?}", sample.id);
                    *kinds.entry("place").or_default() += 1;
                }
                Claim::Texture(_) | Claim::Tone(_) => {
                    assert_eq!((first, second), (0, 0));
                    *kinds.entry("background").or_default() += 1;
                }
            }
        }
    }
    assert!(kinds.len() == 4 && kinds.values().all(|&count| count > 40), "{kinds:?}");
}
