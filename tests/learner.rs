//! A learner that starts from a checkpoint: it answers what the engine answers, and so does its export.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use imatch::engine::{Engine, Place, Question};
use imatch::format::quant::decode_f32;
use imatch::image::decode::{DecodeLimits, decode};
use imatch::score::ScoringOptions;
use imatch::train::{Batch, Item, export};
use imatch::weights::{Bundle, Checkpoint, ConvertJob, DType, FileSource, convert, layout};
use pollster::block_on;
use tempfile::TempDir;

use super::common::lessons::{LETTERS, learner, letters, open};
use super::common::{F32_NATIVE, assert_close, golden};

const FOLDERS: [&str; 2] = ["qwen3_vl_tied", "qwen3_vl_untied"];

/// Logits of the letters by the engine, each question alone.
fn engine_letters(mut bundle: Bundle<FileSource>, item: &Item) -> Vec<f32> {
    bundle.facts.scoring = ScoringOptions::default();
    let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
    let bytes = std::fs::read(golden("qwen3_vl_cases/wide.png")).unwrap();
    let picture = decode(&bytes, &DecodeLimits::default()).unwrap();
    let ask = |ids: &Vec<u32>| {
        let question = Question {
            element: None,
            text: String::new(),
            token_ids: ids.clone(),
            answer_token_ids: (LETTERS..LETTERS + 15).collect(),
        };
        let mut session = block_on(engine.open(&picture, &())).unwrap();
        block_on(session.ask(&[question], &())).unwrap().0.concat()
    };
    item.asked.iter().flat_map(|asked| ask(&asked.ids)).collect()
}

#[test]
fn a_learner_answers_what_the_engine_answers() {
    for folder in FOLDERS.map(golden) {
        let device = Device::flex().autodiff();
        let (learner, bundle, item) = learner(&folder, &device);
        assert!(learner.auxiliary.is_none() && learner.locator.is_none() && learner.grounding.is_empty());
        assert_eq!(learner.lm_head.is_none(), bundle.facts.config.text.tie_word_embeddings);
        let got = letters(&learner, &Batch::new(&[&item], &bundle.facts.config, &device).unwrap());
        assert_close(&folder.display().to_string(), &got, &engine_letters(bundle, &item), F32_NATIVE);
    }
}

/// Names of parameters that do not learn.
#[derive(Default)]
struct Frozen(Vec<String>);

impl ModuleVisitor for Frozen {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            self.0.push(param.id.to_string());
        }
    }
}

#[test]
fn every_parameter_of_a_learner_learns() {
    let (learner, ..) = learner(&golden("qwen3_vl_untied"), &Device::flex().autodiff());
    for learner in [learner.clone(), learner.valid().train()] {
        let mut frozen = Frozen::default();
        learner.visit(&mut frozen);
        assert_eq!(frozen.0, [""; 0]);
    }
}

#[test]
fn what_is_exported_is_what_was_loaded() {
    for folder in FOLDERS.map(golden) {
        let (learner, bundle, _) = learner(&folder, &Device::flex().autodiff());
        let out = TempDir::new().unwrap();
        export(&learner, &bundle.facts, out.path()).unwrap();
        let again = open(out.path());
        assert_eq!(again.facts.config, bundle.facts.config);
        for (name, shape) in layout::expected(&bundle.facts.config) {
            let values = |checkpoint: &Checkpoint<FileSource>| {
                let (info, bytes) = block_on(checkpoint.read(&name)).unwrap();
                assert_eq!(info.shape, shape, "{name}");
                decode_f32(&info, &bytes).unwrap()
            };
            assert!(values(&again.checkpoint) == values(&bundle.checkpoint), "{name}");
        }
    }
}

#[test]
fn a_learner_of_a_converted_folder_has_its_decoded_values() {
    let folder = golden("qwen3_vl_untied");
    for (quant, tolerance) in [(DType::F16, F32_NATIVE), (DType::Q8_0, F32_NATIVE), (DType::Q4_0, F32_NATIVE)]
    {
        let out = TempDir::new().unwrap();
        let job = ConvertJob { model_dir: folder.clone(), quant, out_dir: out.path().into(), adapter: None };
        block_on(convert(job)).unwrap();
        let device = Device::flex();
        let (learner, bundle, item) = learner(out.path(), &device);
        let got = letters(&learner, &Batch::new(&[&item], &bundle.facts.config, &device).unwrap());
        assert_close(quant.name(), &got, &engine_letters(bundle, &item), tolerance);
    }
}
