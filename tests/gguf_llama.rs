//! GGUF pairs with llama.cpp's keys, names and types that gguf-py wrote, against transformers with their values.
//!
//! `scripts/reference.py gguf_pair` writes them: two decoders that share an mmproj file. Nothing of this
//! crate took part in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Device;
use imatch::config::{Geometry, ImageConfig, ModelConfig};
use imatch::engine::{Engine, Place};
use imatch::image::decode::{DecodeLimits, decode};
use imatch::score::ScoringOptions;
use imatch::text::{OverallKind, Tokenizer};
use imatch::train::{Batch, Learner};
use imatch::weights::{Bundle, FileSource};
use pollster::block_on;
use serde::Deserialize;
use serde_json::Value;

use super::common::checkpoint::patches;
use super::common::lessons::{asked, item, open};
use super::common::{F32_NATIVE, assert_close, golden};

/// `reference.json`.
#[derive(Deserialize)]
struct Reference {
    pictures: BTreeMap<String, Picture>,
    cases: BTreeMap<String, Case>,
    models: BTreeMap<String, Model>,
    preprocessor: Value,
    answers: BTreeMap<String, u32>,
    texts: Vec<Text>,
    added: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct Picture {
    file: String,
    grid_thw: [usize; 3],
}

#[derive(Deserialize)]
struct Case {
    picture: String,
    text: String,
    input_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Model {
    file: String,
    config: Value,
    /// Matrices of the decoder by type.
    types: BTreeMap<String, usize>,
    cases: BTreeMap<String, Logits>,
}

/// Logits of the answers in the order of their ids.
#[derive(Deserialize)]
struct Logits {
    /// With the values that the file's blocks stand for.
    decoded: Vec<f32>,
    /// With k-quants that were quantised again, which no device does.
    requantised: Vec<f32>,
}

impl Reference {
    /// Ids whose logits the fixture has, in increasing order.
    fn answer_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.answers.values().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// A picture with the cases about it, in their order.
    fn about(&self, picture: &str) -> Vec<(&String, &Case)> {
        self.cases.iter().filter(|(_, case)| case.picture == picture).collect()
    }
}

impl Model {
    fn path(&self) -> PathBuf {
        golden("gguf").join(&self.file)
    }

    fn open(&self) -> Bundle<FileSource> {
        open(&self.path())
    }

    /// What the folder's `config.json` said that the pair was made of.
    fn config(&self) -> ModelConfig {
        ModelConfig::from_json(self.config.to_string().as_bytes()).unwrap()
    }
}

fn reference() -> Reference {
    let bytes = std::fs::read(golden("gguf/reference.json")).unwrap();
    let reference: Reference = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(reference.models.keys().collect::<Vec<_>>(), ["tied", "untied"]);
    assert_eq!((reference.cases.len(), reference.pictures.len(), reference.answers.len()), (4, 2, 17));
    assert!(reference.models.values().all(|model| model.cases.keys().eq(reference.cases.keys())));
    reference
}

#[test]
fn a_pair_says_what_the_checkpoint_said_that_it_was_made_of() {
    let reference = reference();
    for (name, model) in &reference.models {
        let Bundle { identity, facts, .. } = model.open();
        let config = model.config();
        assert_eq!(config.text.tie_word_embeddings, name == "tied");
        assert_eq!(facts.config, config, "{name}");
        let image = ImageConfig::from_json(reference.preprocessor.to_string().as_bytes(), &config).unwrap();
        // The file has no limits of its own; see `MAX_PIXELS` in `weights::llama_cpp::read`.
        let geometry = Geometry::Scaled { min_pixels: 65_536, max_pixels: 1 << 20 };
        let image = ImageConfig { geometry, ..image };
        assert_eq!(facts.image, image, "{name}");
        assert_eq!(facts.scoring, ScoringOptions::of_checkpoint("Qwen3-VL", None).unwrap(), "{name}");
        assert_eq!(identity.name, "Tiny Qwen3 VL");
        assert_eq!((identity.architecture.as_str(), identity.quantization.as_str()), ("qwen3_vl", "q4_k"));
    }
}

#[test]
fn every_matrix_has_the_type_that_it_was_stored_in() {
    for (name, model) in reference().models {
        let bundle = model.open();
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        for info in bundle.checkpoint.tensors() {
            if info.shape.len() == 2 && !info.name.starts_with("visual.") {
                *types.entry(info.dtype.to_string()).or_default() += 1;
            }
        }
        assert_eq!(types, model.types, "{name}");
        for kind in ["q4_k", "q5_k", "q6_k", "q8_0", "q4_0"] {
            assert!(types.contains_key(kind), "{name} has no {kind}");
        }
    }
}

#[test]
fn the_tokenizer_of_a_pair_gives_the_ids_of_transformers() {
    let reference = reference();
    for (name, model) in &reference.models {
        let tokenizer = Tokenizer::from_json(&model.open().facts.tokenizer).unwrap();
        for Text { text, ids } in &reference.texts {
            assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
        }
        for (token, id) in &reference.added {
            assert_eq!(tokenizer.added_id(token), Some(*id), "{name}: {token}");
        }
        for (token, id) in &reference.answers {
            assert_eq!(tokenizer.single(token).unwrap(), *id, "{name}: {token}");
        }
        // Rows past the vocabulary have names, but no text is theirs.
        let size = tokenizer.vocab_size();
        assert!(size < model.config().text.vocab_size);
        assert_eq!(tokenizer.token_id(&format!("[PAD{size}]")), None);
    }
}

#[test]
fn decoded_weights_compute_the_logits_of_transformers() {
    let reference = reference();
    let answers: Vec<usize> = reference.answer_ids().into_iter().map(|id| id as usize).collect();
    let device = Device::flex();
    for (name, model) in &reference.models {
        let Bundle { facts, checkpoint, .. } = model.open();
        let loading = Learner::load(&facts, &checkpoint, &device, async |_, _| Ok(()));
        let (learner, report) = block_on(loading).unwrap();
        assert!(report.is_complete() && report.unused.is_empty(), "{report}");
        for (picture, Picture { file, grid_thw }) in &reference.pictures {
            let patches = patches(file, &facts.image);
            assert_eq!(patches.grid_thw, *grid_thw, "{name} {picture}: grid_thw");
            let cases = reference.about(picture);
            let questions = cases.iter().map(|(_, case)| asked(case.input_ids.clone(), 0, 1.0)).collect();
            let batch = Batch::new(&[&item(patches, questions)], &facts.config, &device).unwrap();
            let logits = block_on(learner.answer(&batch)).unwrap().logits;
            let size = facts.config.text.vocab_size;
            assert_eq!(logits.dims(), [cases.len(), size]);
            let logits: Vec<f32> = logits.into_data().try_into_vec().unwrap();
            for ((case, _), row) in cases.iter().zip(logits.chunks_exact(size)) {
                let got: Vec<f32> = answers.iter().map(|id| row[*id]).collect();
                let what = format!("{name} {case}: logits");
                assert_close(&what, &got, &model.cases[*case].decoded, F32_NATIVE);
            }
        }
    }
}

#[test]
fn weights_as_they_are_stored_compute_the_logits_of_transformers() {
    let reference = reference();
    for (name, model) in &reference.models {
        let mut bundle = model.open();
        bundle.facts.scoring = bundle.facts.scoring.with_overall(OverallKind::Levels);
        let engine = block_on(Engine::load(bundle, Place::cpu(), async |_, _| Ok(()))).unwrap();
        for (case_name, case) in &reference.cases {
            let what = format!("{name} {case_name}");
            let bytes = std::fs::read(golden(&reference.pictures[&case.picture].file)).unwrap();
            let picture = decode(&bytes, &DecodeLimits::default()).unwrap();
            let trace = block_on(engine.trace(&picture, &case.text)).unwrap();
            assert_eq!(trace.token_ids, case.input_ids, "{what}: input_ids");
            assert_eq!(trace.answer_token_ids, reference.answer_ids(), "{what}: ids of the answers");
            let Logits { decoded, requantised } = &model.cases[case_name];
            assert_close(&format!("{what}: logits"), &trace.logits, decoded, F32_NATIVE);
            let off = trace.logits.iter().zip(requantised).map(|(got, other)| (got - other).abs());
            assert!(off.fold(0.0, f32::max) > 1e-3, "{what}: the weights were quantised again");
        }
    }
}
