//! Fine-tuning at low rank: what learns, what stays, and what is left on disk.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::{DType as DeviceDType, Device, Tensor};
use imatch::config::ModelConfig;
use imatch::error::Kind;
use imatch::train::{Base, Batch, Item, Learner, LoraOptions, export};
use imatch::weights::{Adapter, Bundle, ConvertJob, DType, FileSource, convert};
use pollster::block_on;
use tempfile::TempDir;

use super::common::lessons::{self, Optimizer, learner, letters, open, step};
use super::common::{F32_NATIVE, assert_close, golden};

const SEED: u64 = 11;

/// A learner of one of the checkpoints with adapters, and one picture's questions.
struct Setup {
    learner: Learner,
    bundle: Bundle<FileSource>,
    batch: Batch,
    item: Item,
    /// What the learner answered without adapters.
    before: Vec<f32>,
}

fn setup(model: &str, options: &LoraOptions) -> Setup {
    let device = Device::flex().autodiff();
    let (learner, bundle, item) = learner(&golden(model), &device);
    let batch = Batch::new(&[&item], &bundle.facts.config, &device).unwrap();
    let before = letters(&learner, &batch);
    device.seed(SEED);
    let learner = learner.with_lora(options, &bundle.facts.config).unwrap();
    Setup { learner, bundle, batch, item, before }
}

fn options(targets: &str, base: Base) -> LoraOptions {
    LoraOptions { rank: 4, alpha: 8.0, targets: targets.to_owned(), base }
}

const ALL: &str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";

/// Some steps of `AdamW` at a rate that is seen, and the losses before each.
fn trained(mut learner: Learner, batch: &Batch, steps: usize) -> (Learner, Vec<f32>) {
    let mut optimizer = Optimizer::new(&AdamWConfig::new(), 1.0, 0.01);
    let losses = (0..steps).map(|_| {
        let loss;
        (learner, loss) = step(learner.clone(), batch, &mut optimizer);
        loss
    });
    let losses = losses.collect();
    (learner, losses)
}

/// What a learner consists of, by path: values where they are floats, and whether they learn.
#[derive(Default)]
struct Parts {
    path: Vec<String>,
    values: BTreeMap<String, Vec<f32>>,
    learning: BTreeSet<String>,
    packed: usize,
}

impl ModuleVisitor for Parts {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let value = param.val();
        let is_packed = matches!(value.dtype(), DeviceDType::QFloat(_));
        self.packed += usize::from(is_packed);
        let value = if is_packed { value.dequantize() } else { value };
        if param.is_require_grad() {
            self.learning.insert(path.clone());
        }
        self.values.insert(path, value.into_data().try_into_vec().unwrap());
    }
}

fn parts(learner: &Learner) -> Parts {
    let mut parts = Parts::default();
    learner.visit(&mut parts);
    parts
}

#[test]
fn fresh_adapters_change_nothing_and_alone_learn() {
    let Setup { learner, bundle, batch, before, .. } = setup("qwen3_vl_tied", &options(ALL, Base::F32));
    assert_close("fresh", &letters(&learner, &batch), &before, F32_NATIVE);
    for learner in [learner.clone(), learner.valid().train()] {
        let Parts { values, learning, .. } = parts(&learner);
        let factors: BTreeSet<String> =
            values.keys().filter(|path| path.contains(".lora.")).cloned().collect();
        assert_eq!(factors.len(), bundle.facts.config.text.num_hidden_layers * 7 * 2);
        assert_eq!(learning, factors);
        // Widths of the checkpoint: 40, 4 and 2 heads of 32, 104.
        let per_layer = (40 + 128) + 2 * (40 + 64) + (128 + 40) + 3 * (40 + 104);
        let all: usize = values.values().map(Vec::len).sum();
        assert_eq!(learner.parameters(), (4 * per_layer * 4, all));
        for (path, values) in values.iter().filter(|(path, _)| path.contains(".lora.")) {
            if path.ends_with(".lora.b") {
                assert!(values.iter().all(|value| *value == 0.0), "{path}");
                continue;
            }
            let bound = (values.len() as f32 / 4.0).powf(-0.5);
            let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(largest <= bound && largest > 0.8 * bound, "{path}: {largest} of {bound}");
        }
    }
    // Tests beside this one draw from the same generator of the process: of a few pairs of starts, one is undisturbed.
    let start = || parts(&setup("qwen3_vl_tied", &options(ALL, Base::F32)).learner).values;
    assert!((0..8).any(|_| start() == start()), "the start depends on the seed alone");
}

#[test]
fn steps_change_every_factor_and_nothing_else() {
    for base in [Base::F32, Base::Q8, Base::Q4] {
        let Setup { learner, batch, .. } = setup("qwen3_vl_untied", &options("all-linear", base));
        let before = parts(&learner);
        assert_eq!(before.packed > 0, base != Base::F32, "{base:?}");
        let (learner, losses) = trained(learner, &batch, 6);
        assert!(losses[5] < 0.7 * losses[0], "{base:?}: {losses:?}");
        let after = parts(&learner);
        assert_eq!((after.learning, after.packed), (before.learning, before.packed));
        for (path, values) in &after.values {
            assert_eq!(*values != before.values[path], path.contains(".lora."), "{base:?} {path}");
        }
    }
}

#[test]
fn a_quantised_base_is_that_of_a_converted_model() {
    for (base, quant) in [(Base::Q8, DType::Q8_0), (Base::Q4, DType::Q4_0)] {
        let Setup { learner, batch, .. } = setup("qwen3_vl_untied", &options(ALL, base));
        let out = TempDir::new().unwrap();
        let (model_dir, out_dir) = (golden("qwen3_vl_untied"), out.path().to_owned());
        block_on(convert(ConvertJob { model_dir, quant, out_dir, adapter: None })).unwrap();
        let (mut stored, ..) = lessons::learner(out.path(), &Device::flex().autodiff());
        // Tables and the patch embedding are no part of what is quantised for training.
        let (dense, ..) = lessons::learner(&golden("qwen3_vl_untied"), &Device::flex().autodiff());
        (stored.embed_tokens, stored.lm_head) = (dense.embed_tokens, dense.lm_head);
        let (got, want) = (parts(&learner).values, parts(&stored).values);
        for (path, want) in &want {
            // Convolutions are kept in f16 where a model is stored.
            if !path.contains("patch_embed") {
                assert!(got[path] == *want, "{path}");
            }
        }
        let finite = letters(&learner, &batch);
        assert!(finite.iter().all(|logit| logit.is_finite()), "{finite:?}");
    }
}

#[test]
fn a_checkpoint_keeps_adapters() {
    for base in [Base::F32, Base::Q8] {
        let options = options(ALL, base);
        let Setup { learner, batch, bundle, .. } = setup("qwen3_vl_untied", &options);
        let (learner, _) = trained(learner, &batch, 3);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("learner.bpk");
        learner.clone().into_record().save(&path).unwrap();
        // Another start, which the record must replace.
        Device::flex().autodiff().seed(SEED + 1);
        let (fresh, ..) = lessons::learner(&golden("qwen3_vl_untied"), &Device::flex().autodiff());
        let fresh = fresh.with_lora(&options, &bundle.facts.config).unwrap();
        assert!(parts(&fresh).values != parts(&learner).values);
        let loaded = fresh.try_load_record(ModuleRecord::load(&path).unwrap()).unwrap();
        let (loaded_parts, own) = (parts(&loaded), parts(&learner));
        assert!(loaded_parts.values == own.values, "{base:?}");
        assert_eq!((loaded_parts.learning, loaded_parts.packed), (own.learning, own.packed));
        // It also goes on as the other does.
        let (_, left) = trained(learner, &batch, 3);
        let (_, right) = trained(loaded, &batch, 3);
        assert_eq!(left, right, "{base:?}");
    }
}

#[test]
fn a_record_of_what_learns_is_enough() {
    let options = options(ALL, Base::Q8);
    let Setup { learner, batch, bundle, before, .. } = setup("qwen3_vl_untied", &options);
    let (learner, _) = trained(learner, &batch, 3);
    let (fresh, ..) = lessons::learner(&golden("qwen3_vl_untied"), &Device::flex().autodiff());
    let whole = fresh.clone().with_record(learner.record()).unwrap_err();
    assert!(whole.to_string().starts_with("a record of 42 parameters, expected the "), "{whole}");
    let all = fresh.record();
    let fresh = fresh.with_lora(&options, &bundle.facts.config).unwrap();
    assert!(fresh.clone().with_record(all).is_err());
    let loaded = fresh.clone().with_record(learner.record()).unwrap();
    let want = letters(&learner, &batch);
    assert!(letters(&loaded, &batch) == want && want != before);
    let (_, left) = trained(learner, &batch, 2);
    let (_, right) = trained(loaded, &batch, 2);
    assert_eq!(left, right);
    let other = LoraOptions { targets: "all-linear".into(), ..options };
    let (other_learner, ..) = lessons::learner(&golden("qwen3_vl_untied"), &Device::flex().autodiff());
    let other = other_learner.with_lora(&other, &bundle.facts.config).unwrap();
    assert!(fresh.with_record(other.record()).is_err());
}

#[test]
fn factors_that_are_no_longer_finite_are_named() {
    let Setup { learner, .. } = setup("qwen3_vl_tied", &options("q_proj", Base::F32));
    learner.check_finite().unwrap();
    // Without automatic differentiation nothing learns and everything is looked at, packed or not.
    setup("qwen3_vl_untied", &options(ALL, Base::Q8)).learner.valid().check_finite().unwrap();
    let error = learner.map(&mut Spoil).check_finite().unwrap_err().to_string();
    assert!(error.contains("q_proj.weight.lora.") && error.contains("is no longer finite"), "{error}");
}

/// Makes every parameter that learns infinite.
struct Spoil;

impl ModuleMapper for Spoil {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.is_require_grad() { param.map(|value| (value + 1.0) * f32::INFINITY) } else { param }
    }
}

/// Logits of a folder's model.
fn answers(folder: &TempDir, item: &Item) -> Vec<f32> {
    let device = Device::flex();
    let (learner, bundle, _) = lessons::learner(folder.path(), &device);
    letters(&learner, &Batch::new(&[item], &bundle.facts.config, &device).unwrap())
}

#[test]
fn what_was_learned_is_the_same_in_every_form() {
    for (model, targets) in
        [("qwen3_vl_tied", r".*(_proj|qkv|patch_embed\.proj)"), ("qwen3_vl_untied", "q_proj,lm_head")]
    {
        let options = options(targets, Base::F32);
        let Setup { learner, batch, bundle, item, before } = setup(model, &options);
        let (learner, _) = trained(learner, &batch, 4);
        let want = letters(&learner, &batch);
        assert!(want.iter().zip(&before).any(|(after, before)| (after - before).abs() > 0.1), "{model}");
        let config: &ModelConfig = &bundle.facts.config;

        let folder = TempDir::new().unwrap();
        let adapter = learner.adapter(&options.peft().unwrap(), config).unwrap();
        adapter.write_folder(folder.path(), model, config, &bundle.facts.scoring).unwrap();
        let (again, _) = block_on(Adapter::open_folder(folder.path(), config)).unwrap();
        assert_eq!(again.factors, adapter.factors, "{model}");

        let (fresh, ..) = lessons::learner(&golden(model), &Device::flex().autodiff());
        let attached = fresh.with_adapter(&again, Base::F32, config).unwrap();
        assert!(letters(&attached, &batch) == want, "{model}: attached");
        assert_eq!(attached.parameters(), learner.parameters());
        let (_, left) = trained(learner.clone(), &batch, 2);
        let (_, right) = trained(attached, &batch, 2);
        assert_eq!(left, right, "{model}: it learns on");

        let merged = TempDir::new().unwrap();
        let (model_dir, out_dir) = (golden(model), merged.path().to_owned());
        let adapter = Some(folder.path().to_owned());
        block_on(convert(ConvertJob { model_dir, quant: DType::F32, out_dir, adapter })).unwrap();
        assert_close(&format!("{model}: merged"), &answers(&merged, &item), &want, F32_NATIVE);

        let exported = TempDir::new().unwrap();
        export(&learner, &bundle.facts, exported.path()).unwrap();
        assert_eq!(open(exported.path()).facts.config, bundle.facts.config);
        assert_close(&format!("{model}: exported"), &answers(&exported, &item), &want, F32_NATIVE);
    }
}

#[test]
fn what_cannot_be_adapted_is_refused() {
    let device = Device::flex().autodiff();
    let (learner, bundle, _) = learner(&golden("qwen3_vl_tied"), &device);
    for (targets, expected) in [
        ("q_proj,lm_head", "target lm_head is no linear layer of this model"),
        ("embed_tokens", "target embed_tokens is no linear layer of this model"),
        ("input_layernorm", "target input_layernorm is no linear layer"),
        (".*norm.*", "targets .*norm.* match no linear layer of this model"),
        ("(q_proj", "(q_proj is no regular expression"),
    ] {
        let error =
            learner.clone().with_lora(&options(targets, Base::F32), &bundle.facts.config).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    let wrong = LoraOptions { rank: 0, ..LoraOptions::default() };
    assert_eq!(learner.clone().with_lora(&wrong, &bundle.facts.config).unwrap_err().kind(), Kind::Input);
    let learner = learner.with_lora(&LoraOptions::default(), &bundle.facts.config).unwrap();
    let other = LoraOptions { targets: "q_proj".into(), ..LoraOptions::default() }.peft().unwrap();
    let error = learner.adapter(&other, &bundle.facts.config).unwrap_err();
    assert!(error.to_string().contains("k_proj is not adapted as its configuration says"), "{error}");
}
