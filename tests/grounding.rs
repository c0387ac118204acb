//! Grounding: which tokens mention something, where it is, and which layer learns it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use imatch::data::draw::{CELL_CLASSES, cells};
use imatch::data::scene::{Color, Scene, Shape, Size, Texture, Thing, Tone};
use imatch::data::synth::Sampler;
use imatch::engine::plan::PACK_TOKENS;
use imatch::text::Tokenizer;
use imatch::train::{
    Asked, Batch, Blueprint, CELLS, CLASSES, GROUNDED_LAYERS, Item, Learner, Mention, Recipe, SIDE, Scenes,
    Source,
};
use imatch::weights::ModelFacts;
use pollster::block_on;

const SEED: u64 = 5;

/// Pictures of a step.
const PICTURES: usize = 24;

struct Drawn {
    facts: ModelFacts,
    items: Vec<Item>,
    scenes: Vec<Scene>,
}

/// The pictures of the first step with their scenes.
fn drawn() -> Drawn {
    let facts = Blueprint::shapes(SEED).unwrap();
    let items = Scenes::new(&facts, Recipe::shapes(), SEED).unwrap().items(0, PICTURES, true).unwrap();
    let sampler = Sampler::new(SEED).with_size(SIDE);
    let scenes = (0..PICTURES as u64).map(|index| sampler.sample(index).scene).collect();
    Drawn { facts, items, scenes }
}

/// Where the scene fulfils what one word says, in the order of the dense truth: a thing by its
/// colour or its shape, then sizes, textures and tones.
fn shown(scene: &Scene, word: &str) -> Option<Vec<u8>> {
    let word = word.strip_suffix('s').filter(|word| !word.is_empty()).unwrap_or(word);
    let index = |all: &[&str]| all.iter().position(|known| *known == word);
    let classes: Vec<usize> = if let Some(color) = index(&Color::ALL.map(Color::word)) {
        (0..Shape::ALL.len()).map(|shape| shape * Color::ALL.len() + color).collect()
    } else if let Some(shape) = index(&Shape::ALL.map(Shape::word)) {
        (0..Color::ALL.len()).map(|color| shape * Color::ALL.len() + color).collect()
    } else {
        let mut others = Size::ALL.map(Size::word).to_vec();
        others.extend(Texture::ALL.map(Texture::word));
        others.extend(Tone::ALL.map(Tone::word));
        vec![Thing::COUNT + index(&others)?]
    };
    let dense = cells(scene, 3, 3);
    Some(
        dense
            .chunks(CELL_CLASSES)
            .map(|cell| u8::from(classes.iter().any(|&class| cell[class] > 0)))
            .collect(),
    )
}

/// The cells in which things of this name have their centres.
fn centered(scene: &Scene, words: &str) -> Vec<u8> {
    let mut cells = vec![0; 9];
    for object in scene.objects.iter().filter(|object| words == object.thing.words()) {
        let [x, y] = object.center.map(|at| (at * 3.0) as usize);
        cells[3 * y + x] = 1;
    }
    cells
}

/// The text of a token without the space before it.
fn word(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.decode(&[id]).unwrap().trim().to_owned()
}

#[test]
fn every_word_and_every_thing_says_where_it_is() {
    let Drawn { facts, items, scenes } = drawn();
    let tokenizer = Tokenizer::from_json(&facts.tokenizer).unwrap();
    let (mut present, mut absent) = (0, 0);
    for (item, scene) in items.iter().zip(&scenes) {
        for Asked { ids, mentions: [words, things], .. } in &item.asked {
            let texts: Vec<String> = ids.iter().map(|id| word(&tokenizer, *id)).collect();
            let all = texts.iter().enumerate();
            let want: Vec<Mention> =
                all.filter_map(|(token, text)| Some(Mention { token, cells: shown(scene, text)? })).collect();
            assert_eq!(*words, want, "{texts:?}");
            let singular = |text: &str| text.trim_end_matches('s').to_owned();
            let pairs = texts.windows(2).zip(1..);
            let want: Vec<Mention> = pairs
                .map(|(pair, token)| (format!("{} {}", pair[0], singular(&pair[1])), token))
                .filter(|(name, _)| {
                    let things =
                        Color::ALL.iter().flat_map(|&color| Shape::ALL.map(|shape| Thing { color, shape }));
                    things.into_iter().any(|thing| thing.words() == *name)
                })
                .map(|(name, token)| Mention { token, cells: centered(scene, &name) })
                .collect();
            assert_eq!(*things, want, "{texts:?}");
            present += things.iter().filter(|mention| mention.cells.contains(&1)).count();
            absent += things.iter().filter(|mention| !mention.cells.contains(&1)).count();
        }
    }
    assert!(present > 100 && absent > 100, "{present} things are there, {absent} are not");
}

#[test]
fn a_position_mentions_both_of_its_things() {
    let Drawn { facts, items, .. } = drawn();
    let tokenizer = Tokenizer::from_json(&facts.tokenizer).unwrap();
    let asks = tokenizer.single("Is the position \"").unwrap();
    let mut positions = 0;
    for Asked { ids, mentions: [_, things], places, .. } in items.iter().flat_map(|item| &item.asked) {
        let Some(start) = ids.iter().position(|id| *id == asks) else { continue };
        let text = tokenizer.decode(ids).unwrap();
        let own: Vec<&Mention> = things.iter().filter(|mention| mention.token >= start).collect();
        let [first, second] = own[..] else { panic!("{text} mentions {} things", own.len()) };
        assert_eq!([first.cells.as_slice(), &second.cells].concat(), *places, "{text}");
        positions += 1;
    }
    assert!(positions > 20, "{positions} positions are asked about");
}

/// A mention's row, cells and weight, as its item's pictures share the batch.
type Row = (usize, Vec<u8>, f32);

/// What a batch of `items` should ground behind a layer: sequences hold what an item's questions
/// share and then at most [`PACK_TOKENS`] of their own; what is shared counts in the first.
fn expected(items: &[&Item], length: usize, layer: usize) -> Vec<Row> {
    let (mut rows, mut sequence) = (Vec::new(), 0);
    for item in items {
        let shared = shared_length(item);
        let mut own = Vec::new();
        let mut used = 0;
        for (question, asked) in item.asked.iter().enumerate() {
            let tokens = asked.ids.len() - shared;
            if used + tokens > PACK_TOKENS {
                (sequence, used) = (sequence + 1, 0);
            }
            for mention in &asked.mentions[layer] {
                let at = match mention.token.checked_sub(shared) {
                    Some(token) => shared + used + token,
                    None if question == 0 => mention.token,
                    None => continue,
                };
                own.push((sequence * length + at, mention.cells.clone()));
            }
            used += tokens;
        }
        sequence += 1;
        let weight = 1.0 / (own.len() * items.len()) as f32;
        rows.extend(own.into_iter().map(|(row, cells)| (row, cells, weight)));
    }
    rows
}

#[test]
fn a_batch_grounds_each_mention_at_its_own_token_once() {
    let Drawn { facts, mut items, .. } = drawn();
    // So many questions that they take two sequences, and a picture about which nothing is mentioned.
    items[0].asked = std::iter::repeat_n(items[0].asked.clone(), 7).flatten().collect();
    items[1].asked.iter_mut().for_each(|asked| asked.mentions = Default::default());
    let items: Vec<&Item> = items.iter().take(4).collect();
    let batch = Batch::new(&items, &facts.config, &Device::flex()).unwrap();
    let [sequences, length] = batch.size;
    assert_eq!(sequences, items.len() + 1, "one item needs two sequences");
    for (layer, grounding) in batch.grounding.into_iter().enumerate() {
        let grounding = grounding.unwrap();
        let rows: Vec<i32> = grounding.rows.into_data().try_to_vec().unwrap();
        let cells: Vec<f32> = grounding.cells.into_data().try_to_vec().unwrap();
        let weights: Vec<f32> = grounding.weights.into_data().try_to_vec().unwrap();
        let marks = cells.chunks_exact(CELLS).map(|cells| cells.iter().map(|&mark| mark as u8).collect());
        let got: Vec<Row> = rows
            .iter()
            .zip(marks)
            .zip(weights)
            .map(|((&row, cells), weight)| (row as usize, cells, weight))
            .collect();
        assert_eq!(got, expected(&items, length, layer), "layer {layer}");
    }
    let bare = Batch::new(&items[1..2], &facts.config, &Device::flex()).unwrap();
    assert!(bare.grounding.iter().all(Option::is_none));
}

#[test]
fn the_auxiliary_losses_are_means_over_pictures() {
    let Drawn { facts, items, .. } = drawn();
    let learner = Learner::new(&facts.config, CLASSES, CELLS, &Device::flex());
    let loss = |items: &[Item]| -> f32 {
        let batch = Batch::new(&items.iter().collect::<Vec<_>>(), &facts.config, &Device::flex()).unwrap();
        block_on(learner.answer(&batch)).unwrap().auxiliary.unwrap().into_scalar()
    };
    let whole = loss(&items[..6]);
    let passes = (loss(&items[..1]) + 2.0 * loss(&items[1..3]) + 3.0 * loss(&items[3..6])) / 6.0;
    assert!((whole - passes).abs() < 1e-4 * whole, "{whole} at once, {passes} in three passes");
}

#[test]
fn mentions_outside_their_question_or_picture_are_refused() {
    let Drawn { facts, items, .. } = drawn();
    let refused = |change: fn(&mut Asked)| {
        let mut item = items[0].clone();
        change(&mut item.asked[2]);
        let error = Batch::new(&[&item], &facts.config, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("a mention needs a token of its question"), "{error}");
    };
    refused(|asked| asked.mentions[0][0].token = asked.ids.len());
    refused(|asked| asked.mentions[1][0].cells.push(0));
}

/// Tokens that all questions of an item begin with.
fn shared_length(item: &Item) -> usize {
    let first = &item.asked[0].ids;
    let same = |other: &Asked| first.iter().zip(&other.ids).take_while(|(a, b)| a == b).count();
    item.asked.iter().map(same).min().unwrap()
}

/// Decoder layers whose parameters have a gradient.
struct Reached<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    layers: Vec<usize>,
}

impl ModuleVisitor for Reached<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(layers) = self.path.iter().position(|name| name == "layers") else { return };
        if param.val().grad(self.gradients).is_some() {
            self.layers.push(self.path[layers + 1].parse().unwrap());
        }
    }
}

#[test]
fn words_are_grounded_behind_the_first_layer_and_things_behind_the_second() {
    let Drawn { facts, items, .. } = drawn();
    let device = Device::flex().autodiff();
    let batch = Batch::new(&items.iter().take(2).collect::<Vec<_>>(), &facts.config, &device).unwrap();
    let mut learner = Learner::new(&facts.config, CLASSES, CELLS, &device);
    (learner.auxiliary, learner.locator) = (None, None);
    for grounded in (1..=GROUNDED_LAYERS).rev() {
        learner.grounding.truncate(grounded);
        let loss = block_on(learner.answer(&batch)).unwrap().auxiliary.unwrap();
        let gradients = loss.backward();
        let mut reached = Reached { path: Vec::new(), gradients: &gradients, layers: Vec::new() };
        learner.visit(&mut reached);
        reached.layers.dedup();
        assert_eq!(reached.layers, (0..grounded).collect::<Vec<_>>());
    }
    learner.grounding.clear();
    assert!(block_on(learner.answer(&batch)).unwrap().auxiliary.is_none(), "nothing else is left to learn");
}

#[test]
fn picture_tokens_learn_their_own_row_and_column() {
    let Drawn { items, .. } = drawn();
    for item in &items {
        let tokens: Vec<&[u8]> = item.cells.chunks_exact(CLASSES).collect();
        assert_eq!(tokens.len(), CELLS);
        for (cell, token) in tokens.iter().enumerate() {
            let own: Vec<usize> = (0..6).filter(|at| token[CLASSES - 6 + at] == 1).collect();
            assert_eq!(own, [cell / 3, 3 + cell % 3], "cell {cell}");
        }
    }
}
