//! Two tiny Qwen3-VL checkpoints against transformers: pixels, ids, positions, every stage, gradients.
//!
//! `scripts/reference.py qwen3_vl` writes the checkpoints and what transformers computes with
//! them. Every parameter is random, so that nothing can be forgotten without a difference.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Tensor};
use imatch::config::ModelConfig;
use imatch::model::token_positions;
use imatch::text::{ChatTemplate, Tokenizer};
use serde::Deserialize;

use crate::common::checkpoint::{Checkpoint, Path, compare_stages, configs, patches, transposed};
use crate::common::{Array, EXACT, F32_GRADIENT, F32_NATIVE, Tolerance, arrays, assert_close, golden};

/// The two checkpoints: tied and untied head, one and several files, both forms of configuration.
const MODELS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// `cases.json`.
#[derive(Deserialize)]
struct Reference {
    pictures: BTreeMap<String, PictureCase>,
    cases: BTreeMap<String, Case>,
    models: BTreeMap<String, Results>,
    gradients: GradientCase,
}

#[derive(Deserialize)]
struct PictureCase {
    file: String,
    grid_thw: [usize; 3],
}

#[derive(Deserialize)]
struct Case {
    picture: String,
    text: String,
    input_ids: Vec<u32>,
    position_ids: [Vec<usize>; 3],
}

#[derive(Deserialize)]
struct Results {
    cases: BTreeMap<String, CaseResult>,
    prefix_cached: PrefixCached,
}

#[derive(Deserialize)]
struct CaseResult {
    stages: Vec<String>,
}

#[derive(Deserialize)]
struct PrefixCached {
    case: String,
    prefix_length: usize,
}

#[derive(Deserialize)]
struct GradientCase {
    model: String,
    case: String,
    losses: BTreeMap<String, f32>,
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(golden(path)).unwrap()
}

fn reference() -> Reference {
    let reference: Reference = serde_json::from_slice(&read("qwen3_vl_cases/cases.json")).unwrap();
    assert_eq!(reference.models.keys().collect::<Vec<_>>(), MODELS, "checkpoints of cases.json");
    assert!(reference.cases.len() >= 5 && reference.pictures.len() >= 2, "cases.json lost cases");
    reference
}

impl Reference {
    /// The file of a case's picture.
    fn file(&self, case: &Case) -> String {
        format!("qwen3_vl_cases/{}", self.pictures[&case.picture].file)
    }

    /// Time, height and width of every token of a case.
    fn positions(&self, case: &Case, config: &ModelConfig) -> (Vec<[usize; 3]>, usize) {
        token_positions(&case.input_ids, config, self.pictures[&case.picture].grid_thw)
    }
}

#[test]
fn pixel_values_are_those_of_transformers() {
    let expected = arrays("qwen3_vl_cases/pixel_values.safetensors");
    for model in MODELS {
        let (_, config) = configs(model);
        for (name, picture) in reference().pictures {
            let patches = patches(&format!("qwen3_vl_cases/{}", picture.file), &config);
            assert_eq!(patches.grid_thw, picture.grid_thw, "{model} {name}: grid_thw");
            assert_eq!(expected[&name].shape, [patches.n_rows(), patches.row_len], "{model} {name}: shape");
            let what = format!("{model} {name}: pixel_values");
            assert_close(&what, &patches.data, &expected[&name].data, EXACT);
        }
    }
}

#[test]
fn token_ids_are_those_of_transformers() {
    let reference = reference();
    for model in MODELS {
        let (config, image) = configs(model);
        let tokenizer = Tokenizer::from_json(&read(&format!("{model}/tokenizer.json"))).unwrap();
        let template = ChatTemplate::new(tokenizer, config.family, config.tokens).unwrap();
        for (name, case) in &reference.cases {
            let n_tokens = patches(&reference.file(case), &image).n_tokens(image.merge_size);
            let ids = template.sequence(&case.text, n_tokens).unwrap();
            assert_eq!(ids, case.input_ids, "{model} {name}: input_ids");
        }
    }
}

#[test]
fn position_ids_are_those_of_transformers() {
    let reference = reference();
    for model in MODELS {
        let (config, _) = configs(model);
        for (name, case) in &reference.cases {
            let (positions, next) = reference.positions(case, &config);
            for (axis, expected) in case.position_ids.iter().enumerate() {
                let got: Vec<usize> = positions.iter().map(|position| position[axis]).collect();
                assert_eq!(&got, expected, "{model} {name}: position_ids of axis {axis}");
            }
            let largest = case.position_ids.iter().flatten().max().unwrap();
            assert_eq!(next, largest + 1, "{model} {name}: the position after the last");
        }
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
    for (name, results) in &reference.models {
        let checkpoint = Checkpoint::load(name, device);
        let expected = arrays(&format!("qwen3_vl_cases/{name}.safetensors"));
        let mut compared = 0;
        for (case_name, case) in &reference.cases {
            let got = pollster::block_on(checkpoint.stages(&reference.file(case), &case.input_ids));
            let stages = (results.cases[case_name].stages.as_slice(), case_name.as_str());
            compared += compare_stages(&format!("{name} {case_name}"), &got, stages, &expected, tolerance);
        }
        assert_eq!(compared, expected.len(), "{name}: every array of the fixture is compared");
    }
}

#[test]
fn logits_from_a_cached_prefix_are_those_of_transformers() {
    let reference = reference();
    for (name, results) in &reference.models {
        let checkpoint = Checkpoint::load(name, &Device::flex());
        let PrefixCached { case: case_name, prefix_length } = &results.prefix_cached;
        let case = &reference.cases[case_name];
        let file = reference.file(case);
        let logits = checkpoint.logits_from_cache(&file, &case.input_ids, *prefix_length);
        let got = pollster::block_on(logits);
        let expected = &arrays(&format!("qwen3_vl_cases/{name}.safetensors"))[&format!("{case_name}.logits")];
        assert_close(&format!("{name} {case_name}: logits from the cache"), &got, &expected.data, F32_NATIVE);
    }
}

/// Compares the gradients that a fixture has of a module's parameters.
struct GradientComparison<'a> {
    expected: &'a mut BTreeMap<String, Array>,
    loss: &'a str,
    gradients: &'a Gradients,
    path: Path,
}

impl ModuleVisitor for GradientComparison<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let what = format!("{}.{}", self.loss, self.path.name());
        let Some(expected) = self.expected.remove(&what) else { return };
        let gradient = param.val().grad(self.gradients).unwrap_or_else(|| panic!("{what}: no gradient"));
        let rows = gradient.dims()[0];
        let mut got: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        if self.path.is_transposed(D) {
            got = transposed(&got, rows);
        }
        assert_close(&what, &got, &expected.data, F32_GRADIENT);
    }
}

#[test]
fn losses_and_gradients_are_those_of_transformers() {
    let reference = reference();
    let GradientCase { model, case, losses } = &reference.gradients;
    let case = &reference.cases[case];
    let mut expected = arrays("qwen3_vl_cases/gradients.safetensors");
    // `full` is over the whole vocabulary, `closed` over the letters a to o, ids 64 to 78; the answer is c.
    for (loss_name, classes) in [("full", 0..512), ("closed", 64..79)] {
        let mut checkpoint = Checkpoint::load(model, &Device::flex().autodiff());
        checkpoint.embeddings = checkpoint.embeddings.require_grad();
        checkpoint.head = checkpoint.embeddings.clone();
        let logits = pollster::block_on(async {
            let features = checkpoint.encode(&reference.file(case), &()).await;
            let (positions, _) = reference.positions(case, &checkpoint.config);
            checkpoint.logits(&case.input_ids, &positions, (&features, None), &()).await.0
        });
        let target = 66 - classes.start;
        let loss = log_softmax(logits.slice([0..1, classes]), 1).narrow(1, target, 1).neg();
        let gradients = loss.backward();
        let loss: Vec<f32> = loss.into_data().try_to_vec().unwrap();
        assert_close(&format!("{loss_name} loss"), &loss, &[losses[loss_name]], F32_NATIVE);

        let table = format!("{loss_name}.model.language_model.embed_tokens.weight");
        let rows = checkpoint.embeddings.grad(&gradients).unwrap().narrow(0, 64, 16);
        let rows: Vec<f32> = rows.into_data().try_to_vec().unwrap();
        assert_close(&table, &rows, &expected.remove(&table).unwrap().data, F32_GRADIENT);
        let mut comparison = GradientComparison {
            expected: &mut expected,
            loss: loss_name,
            gradients: &gradients,
            path: Path::default(),
        };
        checkpoint.model.visit(&mut comparison);
    }
    assert!(expected.is_empty(), "never compared: {:?}", expected.keys());
}
