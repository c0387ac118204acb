//! The questions of `qwen3_vl_cases` as items of training.

use std::collections::BTreeMap;

use imatch::config::ImageConfig;
use imatch::train::{Asked, Item, Words};
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
    Asked { ids, answer: vec![(LETTERS + level, 1.0)], weight, is_element: true, places: Vec::new() }
}

/// A picture with what is asked about it, and nothing that only training from scratch needs.
pub(crate) fn item(patches: imatch::image::patches::Patches, asked: Vec<Asked>) -> Item {
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
