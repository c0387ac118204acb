//! Training against torch: every gradient of a batch and the losses of ten steps, full and low-rank.
//!
//! `scripts/reference.py training` computes them in 64 bits, asking each question alone; here the
//! questions of a picture lie packed behind what they share.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::AdamWConfig;
use burn::tensor::{Device, Gradients, Tensor};
use imatch::image::patches::Patches;
use imatch::score::ScoringOptions;
use imatch::train::{Asked, Base, Batch, Item, Learner};
use imatch::weights::{Adapter, Checkpoint, ModelFacts};
use pollster::block_on;
use serde::Deserialize;

use super::common::checkpoint::{Path, configs, transposed};
use super::common::lessons::{Optimizer, item, step};
use super::common::{Array, arrays, golden};

/// Largest norm of a gradient's difference over the gradient's norm. Measured: 1.6e-6 at most;
/// an answer asked for one token early gives differences as large as the gradients.
const GRADIENT: f64 = 1e-4;

/// Largest difference of two losses. Measured: 1.5e-6 at most.
const LOSS: f32 = 1e-4;

#[derive(Deserialize)]
struct Cases {
    optimizer: Steps,
    items: Vec<ItemCase>,
    losses: BTreeMap<String, Losses>,
}

/// Hyper-parameters of the ten steps.
#[derive(Deserialize)]
struct Steps {
    count: usize,
    pictures_per_step: usize,
    learning_rate: f64,
    weight_decay: f32,
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    clip: f32,
}

#[derive(Deserialize)]
struct ItemCase {
    grid_thw: [usize; 3],
    questions: Vec<QuestionCase>,
}

#[derive(Deserialize)]
struct QuestionCase {
    ids: Vec<u32>,
    answers: Vec<(u32, f32)>,
    weight: f32,
}

#[derive(Deserialize)]
struct Losses {
    batch: f32,
    steps: Vec<f32>,
}

/// The fixture, opened: what is asked, what torch found, and a learner of one of its models.
struct Fixture {
    cases: Cases,
    items: Vec<Item>,
    arrays: BTreeMap<String, Array>,
    facts: ModelFacts,
    learner: Learner,
    device: Device,
}

impl Fixture {
    fn open(model: &str) -> Self {
        let cases: Cases =
            serde_json::from_slice(&std::fs::read(golden("training/cases.json")).unwrap()).unwrap();
        let mut arrays = arrays("training/gradients.safetensors");
        let pixels = arrays.remove("pixels").unwrap();
        let [_, rows, row_len] = pixels.shape[..] else { panic!("{:?}", pixels.shape) };
        let pictures = pixels.data.chunks_exact(rows * row_len);
        let items = cases.items.iter().zip(pictures).map(|(case, pixels)| {
            let patches = Patches { data: pixels.to_vec(), grid_thw: case.grid_thw, row_len };
            let asked = case.questions.iter().map(|QuestionCase { ids, answers, weight }| Asked {
                ids: ids.clone(),
                answer: answers.clone(),
                weight: *weight,
                is_element: true,
                places: Vec::new(),
                mentions: Default::default(),
            });
            item(patches, asked.collect())
        });
        let items = items.collect();
        let (config, image) = configs(&format!("training/{model}"));
        let facts = ModelFacts { config, image, tokenizer: Vec::new(), scoring: ScoringOptions::default() };
        let device = Device::flex().autodiff();
        let checkpoint = block_on(Checkpoint::open_folder(&golden(&format!("training/{model}")))).unwrap();
        let loading = Learner::load(&facts, &checkpoint, &device, async |_, _| Ok(()));
        let (learner, _) = block_on(loading).unwrap();
        Self { cases, items, arrays, facts, learner, device }
    }

    /// With the fixture's adapter; `B` is zero where `fresh`.
    fn adapted(fresh: bool) -> Self {
        let mut fixture = Self::open("untied");
        let config = &fixture.facts.config;
        let folder = golden("training/adapter");
        let (mut adapter, _) = block_on(Adapter::open_folder(&folder, config)).unwrap();
        if fresh {
            adapter.factors.values_mut().for_each(|factors| factors.b.fill(0.0));
        }
        fixture.learner = fixture.learner.with_adapter(&adapter, Base::F32, config).unwrap();
        fixture
    }

    fn batch(&self, pictures: &[usize]) -> Batch {
        let items: Vec<&Item> = pictures.iter().map(|&picture| &self.items[picture]).collect();
        Batch::new(&items, &self.facts.config, &self.device).unwrap()
    }

    /// Every gradient of the batch of all pictures beside torch's; `prefix` is that of the fixture's names.
    fn compare_gradients(mut self, losses: &str, prefix: &str) {
        let batch = self.batch(&[0, 1, 2, 3]);
        let learner = self.learner.valid().train();
        let loss = block_on(learner.answer(&batch)).unwrap().answer;
        let gradients = loss.backward();
        let loss: f32 = loss.into_scalar();
        let want = self.cases.losses[losses].batch;
        assert!((loss - want).abs() < LOSS, "{losses}: the loss is {loss}, expected {want}");
        let prefix = format!("{prefix}.");
        let mut expected: BTreeMap<String, Array> = std::mem::take(&mut self.arrays)
            .into_iter()
            .filter_map(|(name, array)| Some((name.strip_prefix(&prefix)?.to_owned(), array)))
            .collect();
        let all = expected.len();
        let mut comparison =
            Comparison { expected: &mut expected, gradients: &gradients, path: Path::default(), worst: 0.0 };
        learner.model.visit(&mut comparison);
        comparison.compare("model.language_model.embed_tokens.weight", &learner.embed_tokens, false);
        if let Some(head) = &learner.lm_head {
            comparison.compare("lm_head.weight", head, false);
        }
        println!("{losses}: {all} gradients, relative differences of at most {:e}", comparison.worst);
        assert!(expected.is_empty(), "{losses}: no gradient for {:?}", expected.keys());
    }

    /// The losses of the fixture's steps beside torch's.
    fn compare_steps(self, losses: &str) {
        let Steps { count, pictures_per_step, learning_rate, clip, .. } = self.cases.optimizer;
        let Steps { weight_decay, beta_1, beta_2, epsilon, .. } = self.cases.optimizer;
        let config = AdamWConfig::new().with_beta_1(beta_1).with_beta_2(beta_2).with_epsilon(epsilon);
        let config = config.with_weight_decay(weight_decay);
        let mut optimizer = Optimizer::new(&config, clip, learning_rate);
        let mut learner = self.learner.clone();
        let mut worst = 0f32;
        assert_eq!(self.cases.losses[losses].steps.len(), count);
        for (index, want) in self.cases.losses[losses].steps.iter().enumerate() {
            let pictures: Vec<usize> =
                (index..index + pictures_per_step).map(|picture| picture % self.items.len()).collect();
            let got;
            (learner, got) = step(learner, &self.batch(&pictures), &mut optimizer);
            assert!((got - want).abs() < LOSS, "{losses} {index}: the loss is {got}, expected {want}");
            worst = worst.max((got - want).abs());
        }
        println!("{losses}: {count} losses, at most {worst:e} apart");
    }
}

/// Compares the gradients of a module's parameters with those of a fixture.
struct Comparison<'a> {
    expected: &'a mut BTreeMap<String, Array>,
    gradients: &'a Gradients,
    path: Path,
    worst: f64,
}

impl Comparison<'_> {
    fn compare<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>, is_transposed: bool) {
        let gradient = param.val().grad(self.gradients);
        let Some(expected) = self.expected.remove(name) else {
            assert!(gradient.is_none(), "{name}: a gradient that torch does not have");
            return;
        };
        let gradient = gradient.unwrap_or_else(|| panic!("{name}: no gradient"));
        let rows = gradient.dims()[0];
        let mut got: Vec<f32> = gradient.into_data().try_into_vec().unwrap();
        if is_transposed {
            got = transposed(&got, rows);
        }
        assert_eq!(got.len(), expected.data.len(), "{name}: number of elements");
        let square = |value: f32| f64::from(value) * f64::from(value);
        let size: f64 = expected.data.iter().map(|&value| square(value)).sum();
        let off: f64 = got.iter().zip(&expected.data).map(|(got, want)| square(got - want)).sum();
        let relative = (off / size).sqrt();
        // A NaN is no small difference.
        assert!(relative < GRADIENT, "{name}: {relative:e} of the gradient is different");
        self.worst = self.worst.max(relative);
    }
}

impl ModuleVisitor for Comparison<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let module = |factor: &str| name.strip_suffix(&format!(".weight.lora.{factor}"));
        let peft = |module: &str, factor: &str| format!("base_model.model.{module}.lora_{factor}.weight");
        let name = match (module("a"), module("b")) {
            (Some(module), _) => peft(module, "A"),
            (_, Some(module)) => peft(module, "B"),
            _ => name,
        };
        let is_transposed = self.path.is_transposed(D);
        self.compare(&name, param, is_transposed);
    }
}

#[test]
fn gradients_of_every_parameter_are_those_of_torch() {
    for model in ["tied", "untied"] {
        Fixture::open(model).compare_gradients(model, model);
    }
}

#[test]
fn gradients_of_every_factor_are_those_of_torch() {
    Fixture::adapted(false).compare_gradients("lora", "lora");
}

#[test]
fn ten_steps_lose_what_torch_loses() {
    for model in ["tied", "untied"] {
        Fixture::open(model).compare_steps(model);
    }
}

#[test]
fn ten_steps_at_low_rank_lose_what_torch_loses() {
    Fixture::adapted(true).compare_steps("lora");
}
