//! Two tiny `InternVL` checkpoints against transformers: tiles, pixels, ids, every stage, answers.
//!
//! `scripts/reference.py internvl` writes the checkpoints and what transformers computes with them.
//! Every parameter is random, so that nothing can be forgotten without a difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use imatch::config::{Geometry, ImageConfig, Tiles};
use imatch::engine::{Engine, Place, Question, Session};
use imatch::image::Picture;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::image::geometry::tile_grid;
use imatch::image::patches::grid;
use imatch::model::token_positions;
use imatch::score::closed_softmax;
use imatch::text::{ChatTemplate, OverallKind, Request, Tokenizer};
use imatch::weights::Bundle;
use pollster::block_on;
use serde::Deserialize;

use crate::common::checkpoint::{Checkpoint, compare_stages, configs, patches};
use crate::common::{Array, EXACT, F32_NATIVE, Tolerance, arrays, assert_close, golden};

/// A Qwen2 decoder with a head of its own, and a Qwen3 decoder without.
const MODELS: [&str; 2] = ["internvl_qwen2", "internvl_qwen3"];

/// Largest difference that caching and packing may make in a probability.
const SAME_PROBABILITY: f64 = 1e-5;

/// `cases.json`.
#[derive(Deserialize)]
struct Reference {
    pictures: BTreeMap<String, String>,
    models: BTreeMap<String, Results>,
}

#[derive(Deserialize)]
struct Results {
    cases: BTreeMap<String, Case>,
    prefix_cached: PrefixCached,
}

#[derive(Deserialize)]
struct Case {
    picture: String,
    text: String,
    tiles: usize,
    input_ids: Vec<u32>,
    stages: Vec<String>,
    answers: Answers,
}

#[derive(Deserialize)]
struct Answers {
    levels: Vec<f64>,
    yes_no: Vec<f64>,
}

#[derive(Deserialize)]
struct PrefixCached {
    case: String,
    prefix_length: usize,
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(golden(path)).unwrap()
}

fn reference() -> Reference {
    let reference: Reference = serde_json::from_slice(&read("internvl_cases/cases.json")).unwrap();
    assert_eq!(reference.models.keys().collect::<Vec<_>>(), MODELS, "checkpoints of cases.json");
    assert!(reference.models.values().all(|results| results.cases.len() >= 5), "cases.json lost cases");
    reference
}

fn fixture(model: &str) -> BTreeMap<String, Array> {
    arrays(&format!("internvl_cases/{model}.safetensors"))
}

fn picture(file: &str) -> Picture {
    decode(&read(file), &DecodeLimits::default()).unwrap()
}

fn template(model: &str) -> ChatTemplate {
    let (config, _) = configs(model);
    let tokenizer = Tokenizer::from_json(&read(&format!("{model}/tokenizer.json"))).unwrap();
    ChatTemplate::new(tokenizer, config.family, config.tokens).unwrap()
}

fn engine(model: &str) -> Arc<Engine> {
    let mut bundle = block_on(Bundle::open(&golden(model))).unwrap();
    bundle.facts.scoring = bundle.facts.scoring.with_overall(OverallKind::Levels);
    block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap()
}

fn open(engine: &Arc<Engine>, picture: &Picture) -> Session {
    block_on(engine.open(picture, &())).unwrap()
}

fn ask(session: &mut Session, questions: &[Question]) -> Vec<Vec<f64>> {
    let (logits, _) = block_on(session.ask(questions, &())).unwrap();
    logits.iter().map(|logits| closed_softmax(logits, 1.0).unwrap()).collect()
}

#[track_caller]
fn assert_same(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < tolerance, "{what}: {got} is not {want}");
    }
}

#[test]
fn tiles_are_chosen_as_by_transformers() {
    let table: Vec<[usize; 7]> = serde_json::from_slice(&read("internvl_cases/tilings.json")).unwrap();
    assert!(table.len() > 2500, "the table lost rows");
    for [height, width, side, min_tiles, max_tiles, columns, rows] in table {
        let tiles = Tiles { side, min_tiles, max_tiles, thumbnail: true };
        let got = tile_grid(height, width, &tiles).unwrap();
        assert_eq!(got, [columns, rows], "{width}x{height} in {min_tiles} to {max_tiles} of {side}");
    }
}

#[test]
fn a_thumbnail_comes_with_several_tiles_only() {
    let (_, image) = configs("internvl_qwen2");
    let Geometry::Tiled(tiles) = image.geometry else { panic!("no tiles") };
    let count = |tiles: Tiles, file: &str| {
        let image = ImageConfig { geometry: Geometry::Tiled(tiles), ..image.clone() };
        grid(&picture(file), &image).unwrap()[0]
    };
    let (wide, dot) = ("qwen3_vl_cases/wide.png", "internvl_cases/dot.png");
    assert_eq!((count(tiles, wide), count(tiles, dot)), (7, 1));
    let without = Tiles { thumbnail: false, ..tiles };
    assert_eq!((count(without, wide), count(without, dot)), (6, 1));
    assert_eq!(count(Tiles { max_tiles: 1, ..tiles }, wide), 1);
}

/// `[tiles, channels, side, side]` of rows of patches in merge-block order.
fn tiles_of(rows: &[f32], [tiles, grid, _]: [usize; 3], patch: usize) -> Vec<f32> {
    let (side, area) = (grid * patch, patch * patch);
    let mut pixels = vec![f32::NAN; tiles * 3 * side * side];
    for (index, row) in rows.chunks_exact(3 * area).enumerate() {
        let (tile, within) = (index / (grid * grid), index % (grid * grid));
        // Blocks of two by two patches, row by row.
        let (block, inner) = (within / 4, within % 4);
        let top = (block / (grid / 2) * 2 + inner / 2) * patch;
        let left = (block % (grid / 2) * 2 + inner % 2) * patch;
        for (at, value) in row.iter().enumerate() {
            let (channel, y, x) = (at / area, top + at % area / patch, left + at % patch);
            pixels[((tile * 3 + channel) * side + y) * side + x] = *value;
        }
    }
    pixels
}

#[test]
fn pixel_values_are_those_of_transformers() {
    let reference = reference();
    for model in MODELS {
        let (_, image) = configs(model);
        let expected = fixture(model);
        for (name, file) in &reference.pictures {
            let patches = patches(file, &image);
            let expected = &expected[&format!("{name}.pixel_values")];
            assert_eq!(expected.shape[0], patches.grid_thw[0], "{model} {name}: tiles");
            let got = tiles_of(&patches.data, patches.grid_thw, image.patch_size);
            assert_close(&format!("{model} {name}: pixel_values"), &got, &expected.data, EXACT);
        }
    }
}

#[test]
fn token_ids_are_those_of_transformers() {
    let reference = reference();
    for (model, results) in &reference.models {
        let (template, (config, image)) = (template(model), configs(model));
        for (name, case) in &results.cases {
            let patches = patches(&reference.pictures[&case.picture], &image);
            assert_eq!(patches.grid_thw[0], case.tiles, "{model} {name}: tiles");
            let ids = template.sequence(&case.text, patches.n_tokens(image.merge_size)).unwrap();
            assert_eq!(ids, case.input_ids, "{model} {name}: input_ids");
            let (positions, next) = token_positions(&ids, &config, patches.grid_thw);
            assert!((0..).zip(&positions).all(|(n, position)| *position == [n; 3]), "{model} {name}");
            assert_eq!(next, ids.len(), "{model} {name}");
        }
    }
}

#[test]
fn words_of_a_user_never_become_tokens_of_a_picture() {
    let template = template("internvl_qwen2");
    let special = ["<img>", "</img>", "<IMG_CONTEXT>", "<|im_end|>", "<|im_start|>", "<video>", "<think>"];
    let plain = template.sequence("a dog", 3).unwrap();
    for words in special {
        let text = format!("a {words}{words} dog");
        let ids = template.sequence(&text, 3).unwrap();
        let id = template.tokenizer().added_id(words).unwrap();
        let count = |ids: &[u32]| ids.iter().filter(|other| **other == id).count();
        assert_eq!(count(&ids), count(&plain), "{words}");
        let start = template.text_start(3);
        let decoded = template.tokenizer().decode(&ids[start..]).unwrap();
        assert!(decoded.starts_with(&format!("\n{text}")), "{decoded:?}");
    }
}

#[test]
fn every_stage_is_that_of_transformers() {
    compare_all(&Device::flex(), F32_NATIVE);
}

#[cfg(feature = "gpu")]
#[test]
fn every_stage_on_a_gpu_is_that_of_transformers() {
    compare_all(&Device::wgpu(burn::tensor::DeviceKind::default()), crate::common::F32_WEBGPU);
}

fn compare_all(device: &Device, tolerance: Tolerance) {
    let reference = reference();
    for (model, results) in &reference.models {
        let checkpoint = Checkpoint::load(model, device);
        let expected = fixture(model);
        // Pixels are compared by another test.
        let mut compared = reference.pictures.len();
        for (name, case) in &results.cases {
            let file = &reference.pictures[&case.picture];
            let got = block_on(checkpoint.stages(file, &case.input_ids));
            let stages = (case.stages.as_slice(), name.as_str());
            compared += compare_stages(&format!("{model} {name}"), &got, stages, &expected, tolerance);
        }
        assert_eq!(compared, expected.len(), "{model}: every array of the fixture is compared");
    }
}

#[test]
fn logits_from_a_cached_prefix_are_those_of_transformers() {
    let reference = reference();
    for (model, results) in &reference.models {
        let checkpoint = Checkpoint::load(model, &Device::flex());
        let PrefixCached { case: name, prefix_length } = &results.prefix_cached;
        let case = &results.cases[name];
        let file = &reference.pictures[&case.picture];
        let got = block_on(checkpoint.logits_from_cache(file, &case.input_ids, *prefix_length));
        let expected = &fixture(model)[&format!("{name}.logits")];
        assert_close(&format!("{model} {name}: logits from the cache"), &got, &expected.data, F32_NATIVE);
    }
}

#[test]
fn closed_answers_are_those_of_transformers() {
    let reference = reference();
    for (model, results) in &reference.models {
        let engine = engine(model);
        let answers = engine.processor().answers();
        for (name, case) in &results.cases {
            let mut session = open(&engine, &picture(&reference.pictures[&case.picture]));
            let question = |answer_token_ids: Vec<u32>| Question {
                element: None,
                text: case.text.clone(),
                token_ids: case.input_ids.clone(),
                answer_token_ids,
            };
            let questions = [question(answers.levels.clone()), question(answers.element().to_vec())];
            let got = ask(&mut session, &questions);
            assert_same(&format!("{model} {name}: levels"), &got[0], &case.answers.levels, 1e-4);
            assert_same(&format!("{model} {name}: yes, no"), &got[1], &case.answers.yes_no, 1e-4);
        }
    }
}

#[test]
fn packed_and_cached_questions_answer_as_if_each_were_asked_alone() {
    for model in MODELS {
        let engine = engine(model);
        for file in reference().pictures.values() {
            let picture = picture(file);
            let elements: Vec<String> = (0..30).map(|n| format!("{n} red cubes (counting)")).collect();
            let request = Request::new("two cubes and a ball", &elements, None).unwrap();
            let tokens = engine.processor().n_image_tokens(engine.processor().grid_thw(&picture).unwrap());
            let questions = engine.processor().questions(&request, tokens).unwrap();
            let mut session = open(&engine, &picture);
            let packed = ask(&mut session, &questions);
            for (question, packed) in questions.iter().zip(&packed).step_by(7) {
                let alone = ask(&mut open(&engine, &picture), std::slice::from_ref(question));
                assert_same(&format!("{model} {file}"), packed, &alone[0], SAME_PROBABILITY);
            }
            // A second request reuses the picture and what it shares with the first.
            let other = Request::new("two cubes and a cat", &elements[..2], None).unwrap();
            let reused = block_on(session.score(&other, &())).unwrap();
            let fresh = block_on(open(&engine, &picture).score(&other, &())).unwrap();
            assert_same(model, &[reused.overall.score], &[fresh.overall.score], SAME_PROBABILITY);
        }
    }
}

#[test]
fn traced_stages_are_those_of_transformers() {
    let reference = reference();
    for (model, results) in &reference.models {
        let (engine, expected) = (engine(model), fixture(model));
        let case = &results.cases["wide.0"];
        let picture = picture(&reference.pictures[&case.picture]);
        let trace = block_on(engine.trace(&picture, &case.text)).unwrap();
        assert_eq!(trace.token_ids, case.input_ids, "{model}");
        for stage in case.stages.iter().filter(|stage| *stage != "logits") {
            let traced = trace.stages.iter().find(|traced| traced.stage == *stage).unwrap();
            let want = &expected[&format!("wide.0.{stage}")];
            assert_close(&format!("{model}: {stage}"), &traced.values, &want.data, F32_NATIVE);
        }
    }
}

#[test]
fn tiles_and_words_both_matter() {
    let engine = engine("internvl_qwen3");
    let score = |picture: &Picture, prompt: &str| {
        let request = Request::new(prompt, &[], None).unwrap();
        block_on(open(&engine, picture).score(&request, &())).unwrap().overall.score
    };
    let wide = picture("qwen3_vl_cases/wide.png");
    let mut changed = wide.rgb().to_vec();
    let last = changed.len() - 3 * 20;
    changed[last..].fill(0);
    let changed = Picture::new(wide.width(), wide.height(), changed).unwrap();
    let base = score(&wide, "a red cube");
    assert!((base - score(&changed, "a red cube")).abs() > 1e-6, "the last tile does not matter");
    assert!((base - score(&wide, "a blue ball")).abs() > 1e-4, "the prompt does not matter");
}
