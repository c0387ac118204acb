//! Two tiny Qwen3-VL checkpoints against transformers: pixels, ids, positions and every stage.
//!
//! `scripts/reference.py qwen3_vl` writes the checkpoints and what transformers computes with
//! them. Every parameter is random, so that nothing can be forgotten without a difference.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use imatch::config::{ImageConfig, ModelConfig};
use imatch::image::decode::{DecodeLimits, decode};
use imatch::image::patches::{Patches, preprocess};
use imatch::model::{
    DecoderInput, KvCache, Observer, Rotary, Stage, VisionFeatures, VisionLanguageModel, answer_logits, causal_mask,
    token_positions,
};
use imatch::text::{ChatTemplate, Tokenizer};
use serde::Deserialize;

use crate::common::{Array, EXACT, F32_NATIVE, arrays, assert_close, golden};

/// The two checkpoints: tied and untied head, one and several files, both forms of configuration.
const MODELS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// `cases.json`.
#[derive(Deserialize)]
struct Reference {
    pictures: BTreeMap<String, PictureCase>,
    cases: BTreeMap<String, Case>,
    models: BTreeMap<String, Results>,
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

fn read(path: &str) -> Vec<u8> {
    std::fs::read(golden(path)).unwrap()
}

fn reference() -> Reference {
    let reference: Reference = serde_json::from_slice(&read("qwen3_vl_cases/cases.json")).unwrap();
    assert_eq!(reference.models.keys().collect::<Vec<_>>(), MODELS, "checkpoints of cases.json");
    assert!(reference.cases.len() >= 5 && reference.pictures.len() >= 2, "cases.json lost cases");
    reference
}

fn configs(model: &str) -> (ModelConfig, ImageConfig) {
    let config = ModelConfig::from_json(&read(&format!("{model}/config.json"))).unwrap();
    let image = ImageConfig::from_json(&read(&format!("{model}/preprocessor_config.json")), &config).unwrap();
    (config, image)
}

fn patches(picture: &PictureCase, config: &ImageConfig) -> Patches {
    let bytes = read(&format!("qwen3_vl_cases/{}", picture.file));
    preprocess(&decode(&bytes, &DecodeLimits::default()).unwrap(), config).unwrap()
}

#[test]
fn pixel_values_are_those_of_transformers() {
    let expected = arrays("qwen3_vl_cases/pixel_values.safetensors");
    for model in MODELS {
        let (_, config) = configs(model);
        for (name, picture) in reference().pictures {
            let patches = patches(&picture, &config);
            assert_eq!(patches.grid_thw, picture.grid_thw, "{model} {name}: grid_thw");
            assert_eq!(expected[&name].shape, [patches.n_rows(), patches.row_len], "{model} {name}: shape");
            assert_close(&format!("{model} {name}: pixel_values"), &patches.data, &expected[&name].data, EXACT);
        }
    }
}

#[test]
fn token_ids_are_those_of_transformers() {
    let reference = reference();
    for model in MODELS {
        let (config, image) = configs(model);
        let tokenizer = Tokenizer::from_json(&read(&format!("{model}/tokenizer.json"))).unwrap();
        let template = ChatTemplate::new(tokenizer, config.tokens).unwrap();
        for (name, case) in &reference.cases {
            let n_tokens = patches(&reference.pictures[&case.picture], &image).n_tokens(image.merge_size);
            let ids = template.sequence(&case.text, n_tokens).unwrap();
            assert_eq!(ids, case.input_ids, "{model} {name}: input_ids");
        }
    }
}

#[test]
fn position_ids_are_those_of_transformers() {
    let reference = reference();
    let (config, _) = configs(MODELS[0]);
    for (name, case) in &reference.cases {
        let grid = merged_grid(&reference.pictures[&case.picture], &config);
        let (positions, next) = token_positions(&case.input_ids, config.tokens.image, grid);
        for (axis, expected) in case.position_ids.iter().enumerate() {
            let got: Vec<usize> = positions.iter().map(|position| position[axis]).collect();
            assert_eq!(&got, expected, "{name}: position_ids of axis {axis}");
        }
        let largest = case.position_ids.iter().flatten().max().unwrap();
        assert_eq!(next, largest + 1, "{name}: the position after the last");
    }
}

/// Height and width of the picture in merged tokens.
fn merged_grid(picture: &PictureCase, config: &ModelConfig) -> [usize; 2] {
    [1, 2].map(|axis| picture.grid_thw[axis] / config.vision.spatial_merge_size)
}

/// Keeps what every stage of a pass computes.
#[derive(Default)]
struct Taps(RefCell<BTreeMap<String, Array>>);

impl Observer for Taps {
    fn stage(&self, stage: Stage, output: &Tensor<3>) {
        let array = Array { shape: output.dims().to_vec(), data: output.to_data().to_vec().unwrap() };
        self.0.borrow_mut().insert(stage.to_string(), array);
    }
}

/// A checkpoint on a device, with the two tables that are not part of the module.
struct Loaded {
    config: ModelConfig,
    image: ImageConfig,
    model: VisionLanguageModel,
    /// `[vocab_size, D]`.
    embeddings: Tensor<2>,
    /// `[vocab_size, D]`, the same as the embeddings when tied.
    head: Tensor<2>,
    device: Device,
}

impl Loaded {
    fn new(name: &str) -> Self {
        let device = Device::flex();
        let (config, image) = configs(name);
        let (model, embeddings, head) = crate::loader::load(name, &config, &device);
        Self { config, image, model, embeddings, head, device }
    }

    async fn encode(&self, picture: &PictureCase, observer: &Taps) -> VisionFeatures {
        let patches = patches(picture, &self.image);
        let shape = [1, patches.n_rows(), patches.row_len];
        let [_, h, w] = patches.grid_thw;
        let rows = Tensor::from_data(TensorData::new(patches.data, shape), &self.device);
        self.model.visual.forward(rows, [h, w], observer).await.unwrap()
    }

    /// Rows of the embedding table with the picture's tokens in their places.
    fn embed(&self, ids: &[u32], features: &VisionFeatures) -> Tensor<3> {
        let indices = TensorData::new(ids.iter().map(|&id| id as i32).collect(), [ids.len()]);
        let rows = self.embeddings.clone().select(0, Tensor::<1, Int>::from_data(indices, &self.device));
        let rows = rows.unsqueeze::<3>();
        let Some(start) = self.picture_start(ids) else { return rows };
        let [_, n, width] = features.tokens.dims();
        rows.slice_assign([0..1, start..start + n, 0..width], features.tokens.clone())
    }

    fn picture_start(&self, ids: &[u32]) -> Option<usize> {
        ids.iter().position(|&id| id == self.config.tokens.image)
    }

    /// Logits of the last of `ids`, which follow `cache`, and the longer cache.
    async fn logits(
        &self,
        ids: &[u32],
        positions: &[[usize; 3]],
        (features, cache): (&VisionFeatures, Option<&KvCache>),
        observer: &Taps,
    ) -> (Vec<f32>, KvCache) {
        let past = cache.map_or(0, KvCache::len);
        let mask = TensorData::new(causal_mask(past, ids.len()), [1, ids.len(), past + ids.len()]);
        let input = DecoderInput {
            embeds: self.embed(ids, features),
            rotary: Rotary::for_tokens(&[positions.to_vec()], &self.config.text, &self.device),
            mask: Tensor::from_data(mask, &self.device),
            deepstack: self.picture_start(ids).map(|start| (features.deepstack.as_slice(), start)),
            cache,
        };
        let (hidden, cache) = self.model.language_model.forward(input, observer).await.unwrap();
        let last = hidden.narrow(1, ids.len() - 1, 1);
        let rows = self.model.language_model.final_norm(last, observer).squeeze_dim::<2>(0);
        let logits = answer_logits(rows, self.head.clone());
        (logits.into_data().to_vec().unwrap(), cache)
    }
}

#[test]
fn every_stage_is_that_of_transformers() {
    pollster::block_on(async {
        let reference = reference();
        for (name, results) in &reference.models {
            let loaded = Loaded::new(name);
            let expected = arrays(&format!("qwen3_vl_cases/{name}.safetensors"));
            let mut compared = 0;
            for (case_name, case) in &reference.cases {
                let picture = &reference.pictures[&case.picture];
                let taps = Taps::default();
                let features = loaded.encode(picture, &taps).await;
                let (positions, _) =
                    token_positions(&case.input_ids, loaded.config.tokens.image, merged_grid(picture, &loaded.config));
                let (logits, _) = loaded.logits(&case.input_ids, &positions, (&features, None), &taps).await;
                let mut stages = taps.0.into_inner();
                stages.insert("logits".to_owned(), Array { shape: vec![logits.len()], data: logits });
                for stage in &results.cases[case_name].stages {
                    let what = format!("{name} {case_name}: {stage}");
                    let got = stages.get(stage).unwrap_or_else(|| panic!("{what}: no such stage"));
                    assert_close(&what, &got.data, &expected[&format!("{case_name}.{stage}")].data, F32_NATIVE);
                    compared += 1;
                }
            }
            assert_eq!(compared, expected.len(), "{name}: every array of the fixture is compared");
        }
    });
}

#[test]
fn logits_from_a_cached_prefix_are_those_of_transformers() {
    pollster::block_on(async {
        let reference = reference();
        for (name, results) in &reference.models {
            let loaded = Loaded::new(name);
            let PrefixCached { case: case_name, prefix_length } = &results.prefix_cached;
            let case = &reference.cases[case_name];
            let picture = &reference.pictures[&case.picture];
            let taps = Taps::default();
            let features = loaded.encode(picture, &taps).await;
            let (positions, _) =
                token_positions(&case.input_ids, loaded.config.tokens.image, merged_grid(picture, &loaded.config));
            let (prefix, suffix) = case.input_ids.split_at(*prefix_length);
            let (before, after) = positions.split_at(*prefix_length);
            let (_, cache) = loaded.logits(prefix, before, (&features, None), &taps).await;
            assert_eq!(cache.len(), prefix.len(), "{name}: tokens in the cache");
            let (logits, _) = loaded.logits(suffix, after, (&features, Some(&cache)), &taps).await;
            let expected = &arrays(&format!("qwen3_vl_cases/{name}.safetensors"))[&format!("{case_name}.logits")];
            assert_close(&format!("{name} {case_name}: logits from the cache"), &logits, &expected.data, F32_NATIVE);
        }
    });
}
