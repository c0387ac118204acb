//! The questions of `qwen3_vl_cases` as items of training.

use std::collections::BTreeMap;
use std::path::Path;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use imatch::config::ImageConfig;
use imatch::image::patches::Patches;
use imatch::train::{Asked, Batch, Item, Learner, Words};
use imatch::weights::{Bundle, FileSource};
use pollster::block_on;
use serde::Deserialize;

use super::checkpoint::patches;
use super::golden;

#[derive(Deserialize)]
struct Cases {
    pictures: BTreeMap<String, Picture>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Picture {
    file: String,
}

#[derive(Deserialize)]
struct Case {
    picture: String,
    input_ids: Vec<u32>,
}

/// Token ids of the letters `a` to `c` and on in the fixtures' tokenizers.
pub(crate) const LETTERS: u32 = 64;

/// A question of `weight` whose answer is the letter of `level`.
pub(crate) fn asked(ids: Vec<u32>, level: u32, weight: f32) -> Asked {
    Asked {
        ids,
        answer: vec![(LETTERS + level, 1.0)],
        weight,
        is_element: true,
        places: Vec::new(),
        mentions: Default::default(),
    }
}

/// A picture with what is asked about it, and nothing that only training from scratch needs.
pub(crate) fn item(patches: Patches, asked: Vec<Asked>) -> Item {
    Item { patches, asked, rehearsed: 1, cells: Vec::new(), words: Words::default() }
}

/// One picture of the fixture and its questions in their order; the answer to each is another letter.
pub(crate) fn lesson(picture: &str, config: &ImageConfig) -> Item {
    let bytes = std::fs::read(golden("qwen3_vl_cases/cases.json")).unwrap();
    let Cases { pictures, cases } = serde_json::from_slice(&bytes).unwrap();
    let file = format!("qwen3_vl_cases/{}", pictures[picture].file);
    let ids: Vec<Vec<u32>> =
        cases.into_values().filter(|case| case.picture == picture).map(|case| case.input_ids).collect();
    let weight = 1.0 / ids.len() as f32;
    let asked = (0..).zip(ids).map(|(level, ids)| asked(ids, level, weight)).collect();
    item(patches(&file, config), asked)
}

pub(crate) fn open(folder: &Path) -> Bundle<FileSource> {
    block_on(Bundle::open(folder)).unwrap()
}

/// A learner of a folder's checkpoint, with the facts about it and a picture with its questions.
pub(crate) fn learner(folder: &Path, device: &Device) -> (Learner, Bundle<FileSource>, Item) {
    let bundle = open(folder);
    let loading = Learner::load(&bundle.facts, &bundle.checkpoint, device, async |_, _| Ok(()));
    let (learner, report) = block_on(loading).unwrap();
    assert!(report.is_complete() && report.unused.is_empty(), "{report}");
    let item = lesson("wide", &bundle.facts.image);
    (learner, bundle, item)
}

/// Logits of the letters, one row a question.
pub(crate) fn letters(learner: &Learner, batch: &Batch) -> Vec<f32> {
    let logits = block_on(learner.answer(batch)).unwrap().logits;
    let [n, _] = logits.dims();
    let letters = LETTERS as usize..LETTERS as usize + 15;
    logits.slice([0..n, letters]).into_data().try_into_vec().unwrap()
}

/// `AdamW` as training runs it.
pub(crate) struct Optimizer {
    optimizer: ModuleOptimizer,
    learning_rate: f64,
}

impl Optimizer {
    /// `clip` bounds the norm of each parameter's gradient.
    pub(crate) fn new(config: &AdamWConfig, clip: f32, learning_rate: f64) -> Self {
        let clipping = GradientClippingConfig::Norm(clip).init();
        Self { optimizer: config.init().with_grad_clipping(clipping), learning_rate }
    }
}

/// One step, and the loss before it; leaves are made anew as the training loop does.
pub(crate) fn step(learner: Learner, batch: &Batch, optimizer: &mut Optimizer) -> (Learner, f32) {
    let leaves = learner.valid().train();
    let loss = block_on(leaves.answer(batch)).unwrap().answer;
    let gradients = GradientsParams::from_grads(loss.backward(), &leaves);
    let learner = optimizer.optimizer.step(optimizer.learning_rate, learner, gradients);
    (learner, loss.into_scalar())
}
