//! The engine against transformers, against itself asked another way, and with weights it stores in fewer bits.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use imatch::engine::{Engine, Place, Question, Session, selftest};
use imatch::error::{Error, Kind, Result};
use imatch::format::quant::decode_f32;
use imatch::image::Picture;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::model::Observer;
use imatch::score::closed_softmax;
use imatch::text::{OverallKind, Request};
use imatch::weights::{Bundle, Checkpoint, ConvertJob, DType, FileSource, convert, names, safetensors};
use pollster::block_on;
use serde_json::Value;

use super::common::{F32_NATIVE, arrays, assert_close, golden};

const MODELS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// Probabilities of the same questions asked in two ways: sums in another order, nothing else.
const SAME_PROBABILITY: f64 = 1e-5;

/// Logits with weights quantised on the device against the same weights dequantised beforehand.
const SAME_WEIGHTS: f32 = 1e-4;

fn engine(folder: &Path, kind: OverallKind) -> Arc<Engine> {
    let mut bundle = block_on(Bundle::open(folder)).unwrap();
    bundle.facts.scoring = bundle.facts.scoring.with_overall(kind);
    block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap()
}

fn picture(name: &str) -> Picture {
    let bytes = std::fs::read(golden(&format!("qwen3_vl_cases/{name}.png"))).unwrap();
    decode(&bytes, &DecodeLimits::default()).unwrap()
}

fn cases() -> Value {
    serde_json::from_slice(&std::fs::read(golden("qwen3_vl_cases/cases.json")).unwrap()).unwrap()
}

fn question(case: &Value, answer_token_ids: Vec<u32>) -> Question {
    let token_ids =
        case["input_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    Question { element: None, text: String::new(), token_ids, answer_token_ids }
}

fn open(engine: &Arc<Engine>, picture: &Picture) -> Session {
    block_on(engine.open(picture, &())).unwrap()
}

fn ask(session: &mut Session, questions: &[Question]) -> Vec<Vec<f32>> {
    block_on(session.ask(questions, &())).unwrap().0
}

fn request(elements: usize) -> Request {
    let elements: Vec<String> = (0..elements).map(|n| format!("thing number {n} (object)")).collect();
    Request::new("a café sign with 12 green stars", &elements, None).unwrap()
}

#[test]
fn traced_stages_are_those_of_transformers() {
    let cases = cases();
    for model in MODELS {
        let engine = engine(&golden(model), OverallKind::Levels);
        let expected = arrays(&format!("qwen3_vl_cases/{model}.safetensors"));
        let mut compared = 0;
        for (name, case) in cases["cases"].as_object().unwrap() {
            let picture = picture(case["picture"].as_str().unwrap());
            let trace = block_on(engine.trace(&picture, case["text"].as_str().unwrap())).unwrap();
            for stage in cases["models"][model]["cases"][name]["stages"].as_array().unwrap() {
                let stage = stage.as_str().unwrap();
                let want = &expected[&format!("{name}.{stage}")];
                let what = format!("{model} {name}: {stage}");
                if stage == "logits" {
                    let want: Vec<f32> =
                        trace.answer_token_ids.iter().map(|id| want.data[*id as usize]).collect();
                    assert_close(&what, &trace.logits, &want, F32_NATIVE);
                } else {
                    let traced = trace.stages.iter().find(|traced| traced.stage == stage).unwrap();
                    assert!(traced.shape.ends_with(&want.shape), "{what}: shape {:?}", traced.shape);
                    assert_close(&what, &traced.values, &want.data, F32_NATIVE);
                }
                compared += 1;
            }
        }
        assert_eq!(compared, expected.len(), "{model}: every array of the fixture is compared");
    }
}

#[test]
fn closed_answers_are_those_of_transformers() {
    let cases = cases();
    for model in MODELS {
        let engine = engine(&golden(model), OverallKind::Levels);
        for (name, case) in cases["cases"].as_object().unwrap() {
            let mut session = open(&engine, &picture(case["picture"].as_str().unwrap()));
            let answers = engine.processor().answers();
            let expected = &cases["models"][model]["cases"][name]["answers"];
            for (set, ids) in [("levels", answers.levels.clone()), ("yes_no", answers.element().to_vec())] {
                let logits = ask(&mut session, &[question(case, ids)]);
                let got = closed_softmax(&logits[0], 1.0).unwrap();
                let want: Vec<f64> =
                    expected[set].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
                assert_eq!(got.len(), want.len(), "{model} {name} {set}");
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-4, "{model} {name} {set}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn packed_questions_answer_as_if_each_were_asked_alone() {
    for model in MODELS {
        let engine = engine(&golden(model), OverallKind::Levels);
        for name in ["wide", "square"] {
            let picture = picture(name);
            let mut session = open(&engine, &picture);
            let tokens = engine.processor().n_image_tokens(engine.processor().grid_thw(&picture).unwrap());
            // Enough for more than one pack.
            let questions = engine.processor().questions(&request(40), tokens).unwrap();
            let packed = ask(&mut session, &questions);
            for (question, packed) in questions.iter().zip(&packed).step_by(7) {
                let alone = ask(&mut open(&engine, &picture), std::slice::from_ref(question));
                let (packed, alone) =
                    (closed_softmax(packed, 1.0).unwrap(), closed_softmax(&alone[0], 1.0).unwrap());
                for (packed, alone) in packed.iter().zip(&alone) {
                    assert!(
                        (packed - alone).abs() < SAME_PROBABILITY,
                        "{model} {name}: {packed} is not {alone}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_session_that_reuses_its_prefix_answers_like_a_fresh_one() {
    let engine = engine(&golden("qwen3_vl_tied"), OverallKind::Levels);
    let picture = picture("wide");
    let mut session = open(&engine, &picture);
    let elements = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let requests = [
        Request::new("a red cube", &elements(&["red cube (color)"]), None).unwrap(),
        Request::new("a red cube", &elements(&["red cube (color)", "cube (object)"]), None).unwrap(),
        Request::new("a red cup", &elements(&[]), None).unwrap(),
        Request::new("two blue balls", &elements(&["two balls (counting)"]), None).unwrap(),
        Request::new("a red cube", &elements(&["red cube (color)"]), None).unwrap(),
    ];
    for request in &requests {
        let reused = block_on(session.score(request, &())).unwrap();
        let fresh = block_on(open(&engine, &picture).score(request, &())).unwrap();
        assert!((reused.overall.score - fresh.overall.score).abs() < SAME_PROBABILITY, "{}", request.prompt);
        for (reused, fresh) in reused.elements.iter().zip(&fresh.elements) {
            assert!((reused.score - fresh.score).abs() < SAME_PROBABILITY, "{}", reused.element);
        }
    }
}

#[test]
fn two_pictures_and_two_prompts_do_not_give_the_same_score() {
    let engine = engine(&golden("qwen3_vl_tied"), OverallKind::Levels);
    let score = |name: &str, prompt: &str| {
        let request = Request::new(prompt, &[], None).unwrap();
        block_on(open(&engine, &picture(name)).score(&request, &())).unwrap().overall.score
    };
    let base = score("wide", "a red cube");
    assert!((base - score("square", "a red cube")).abs() > 1e-4, "the picture does not matter");
    assert!((base - score("wide", "a blue ball")).abs() > 1e-4, "the prompt does not matter");
}

/// A folder like `source` whose weights are those of `converted`, dequantised.
fn dequantised(source: &Path, converted: &Path, out: &Path) {
    let open = |name: String| (name.clone(), FileSource::open(converted.join(name)).unwrap());
    let files =
        std::fs::read_dir(converted).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files = files.filter(|name| name.contains('-')).map(open).collect();
    let checkpoint = block_on(Checkpoint::open(files)).unwrap();
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        let (info, bytes) = block_on(checkpoint.read(&info.name)).unwrap();
        tensors.push((names::to_hf(&info.name), info.shape.clone(), decode_f32(&info, &bytes).unwrap()));
    }
    let bytes = safetensors::write_f32(
        tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())),
    );
    std::fs::write(out.join("model.safetensors"), bytes.unwrap()).unwrap();
    for name in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
        std::fs::copy(source.join(name), out.join(name)).unwrap();
    }
}

#[test]
fn quantised_weights_compute_what_their_dequantised_values_do() {
    let cases = cases();
    for model in MODELS {
        for quant in [DType::Q8_0, DType::Q4_0, DType::F16] {
            let (converted, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let job = ConvertJob {
                model_dir: golden(model),
                quant,
                out_dir: converted.path().to_owned(),
                adapter: None,
            };
            block_on(convert(job)).unwrap();
            dequantised(&golden(model), converted.path(), plain.path());
            let engines = [converted.path(), plain.path()].map(|folder| engine(folder, OverallKind::YesNo));
            for case in cases["cases"].as_object().unwrap().values() {
                let picture = picture(case["picture"].as_str().unwrap());
                let [quantised, plain] = [0, 1].map(|index: usize| {
                    let engine = &engines[index];
                    let ids = engine.processor().answers().element().to_vec();
                    ask(&mut open(engine, &picture), &[question(case, ids)])
                });
                for (quantised, plain) in quantised[0].iter().zip(&plain[0]) {
                    assert!(
                        (quantised - plain).abs() < SAME_WEIGHTS,
                        "{model} {quant}: {quantised} is not {plain}"
                    );
                }
            }
        }
    }
}

/// Stops at a layer.
struct StopAt(Cell<usize>);

impl Observer for StopAt {
    async fn between_layers(&self) -> Result<()> {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        if left == 0 { Err(Error::aborted()) } else { Ok(()) }
    }
}

#[test]
fn an_abort_ends_at_the_next_layer_and_the_session_lives_on() {
    let engine = engine(&golden("qwen3_vl_tied"), OverallKind::Levels);
    let picture = picture("wide");
    let layers = engine.processor().config().vision.depth;
    for layer in 0..layers {
        let error = block_on(engine.open(&picture, &StopAt(Cell::new(layer)))).err().expect("it went on");
        assert_eq!(error.kind(), Kind::Aborted);
    }
    let expected = block_on(open(&engine, &picture).score(&request(2), &())).unwrap();
    // What questions share is read with them, in one pass.
    for layer in 0..engine.processor().config().text.num_hidden_layers {
        let mut session = open(&engine, &picture);
        let error = block_on(session.score(&request(2), &StopAt(Cell::new(layer)))).expect_err("it went on");
        assert_eq!(error.kind(), Kind::Aborted);
        let got = block_on(session.score(&request(2), &())).unwrap();
        assert!((got.overall.score - expected.overall.score).abs() < SAME_PROBABILITY, "after layer {layer}");
    }
}

#[test]
fn a_prompt_longer_than_the_model_is_an_error_that_names_it() {
    let engine = engine(&golden("qwen3_vl_tied"), OverallKind::Levels);
    let mut session = open(&engine, &picture("wide"));
    let limit = engine.processor().config().text.max_position_embeddings;
    let request = Request::new("green star ".repeat(limit), &[], None).unwrap();
    let error = block_on(session.score(&request, &())).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("green star"), "{error}");
}

#[test]
fn a_golden_answer_passes_on_its_device_and_fails_when_it_is_not_met() {
    let engine = engine(&golden("qwen3_vl_tied"), OverallKind::Levels);
    let golden = block_on(selftest::record(&engine)).unwrap();
    let values: Vec<Value> = golden.iter().map(|golden| serde_json::to_value(golden).unwrap()).collect();
    let passed = block_on(selftest::run(&engine, &values, &())).unwrap();
    assert_eq!(passed.compared, values.len());
    assert!(passed.max_difference < SAME_PROBABILITY, "{}", passed.max_difference);
    let mut wrong = values[0].clone();
    wrong["scores"][0] = Value::from(golden[0].scores[0] + 0.01);
    let error = block_on(selftest::run(&engine, &[wrong], &())).unwrap_err();
    assert_eq!(error.kind(), Kind::SelfTest);
}
