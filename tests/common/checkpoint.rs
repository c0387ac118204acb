//! A checkpoint folder on a device, run as transformers runs it.
//!
//! The tensors are placed by this file alone, from the names in the checkpoint, so that no mistake
//! of the model can be cancelled by the same mistake of the crate's own loader.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use imatch::config::{ImageConfig, ModelConfig};
use imatch::image::decode::{DecodeLimits, decode};
use imatch::image::patches::{Patches, preprocess};
use imatch::model::{
    DecoderInput, KvCache, Observer, Stage, VisionFeatures, VisionLanguageModel, for_tokens, token_positions,
};
use imatch::ops::Seen;

use super::{Array, Tolerance, arrays, assert_close, golden};

/// A model with the two tables that are not part of its module.
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    pub(crate) image: ImageConfig,
    pub(crate) model: VisionLanguageModel,
    /// `[vocab_size, D]`.
    pub(crate) embeddings: Tensor<2>,
    /// `[vocab_size, D]`; the embedding table itself where the checkpoint has no other.
    pub(crate) head: Tensor<2>,
    device: Device,
}

/// Both configurations of a checkpoint folder in `tests/golden`.
pub(crate) fn configs(name: &str) -> (ModelConfig, ImageConfig) {
    let read = |file: &str| std::fs::read(golden(&format!("{name}/{file}"))).unwrap();
    let config = ModelConfig::from_json(&read("config.json")).unwrap();
    let image = ImageConfig::from_json(&read("preprocessor_config.json"), &config).unwrap();
    (config, image)
}

/// A picture of `tests/golden` as the model reads it.
pub(crate) fn patches(picture: &str, config: &ImageConfig) -> Patches {
    let bytes = std::fs::read(golden(picture)).unwrap();
    preprocess(&decode(&bytes, &DecodeLimits::default()).unwrap(), config).unwrap()
}

impl Checkpoint {
    /// Every tensor of the folder's safetensors files, each in its place; none missing, none left over.
    pub(crate) fn load(name: &str, device: &Device) -> Self {
        let (config, image) = configs(name);
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(golden(name)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            if file.ends_with(".safetensors") {
                tensors.extend(arrays(&format!("{name}/{file}")));
            }
        }
        let mut tensors = renamed(tensors);
        let table = |array: Array| Tensor::<2>::from_data(TensorData::new(array.data, array.shape), device);
        let embeddings = table(tensors.remove("model.language_model.embed_tokens.weight").unwrap());
        let tied = config.text.tie_word_embeddings;
        assert!(tied || tensors.contains_key("lm_head.weight"), "{name}: the head");
        let head = tensors.remove("lm_head.weight").map_or_else(|| embeddings.clone(), table);
        let mut placement = Placement { tensors, path: Path::default(), device: device.clone() };
        let model = VisionLanguageModel::new(&config, device).map(&mut placement);
        assert!(placement.tensors.is_empty(), "{name}: no place for {:?}", placement.tensors.keys());
        Self { config, image, model, embeddings, head, device: device.clone() }
    }

    /// Features of a picture of `tests/golden`.
    pub(crate) async fn encode(&self, picture: &str, observer: &impl Observer) -> VisionFeatures {
        let patches = patches(picture, &self.image);
        let shape = [1, patches.n_rows(), patches.row_len];
        let rows = Tensor::from_data(TensorData::new(patches.data, shape), &self.device);
        self.model.visual.forward(rows, patches.grid_thw, observer).await.unwrap()
    }

    /// Logits of the last of `ids`, which follow `cache`, over the whole vocabulary; and the longer cache.
    ///
    /// # Shapes
    /// - output: `[1, vocab_size]`
    pub(crate) async fn logits(
        &self,
        ids: &[u32],
        positions: &[[usize; 3]],
        (features, cache): (&VisionFeatures, Option<KvCache>),
        observer: &impl Observer,
    ) -> (Tensor<2>, KvCache) {
        let past = cache.as_ref().map_or(0, KvCache::len);
        let input = DecoderInput {
            embeds: self.embed(ids, features),
            rotary: for_tokens(&[positions.to_vec()], &self.config.text, &self.device),
            seen: Seen::causal(past, ids.len(), &self.device),
            deepstack: self.picture_start(ids).map(|start| (features.deepstack.as_slice(), start)),
            cache,
            wanted: None,
        };
        let decoder = &self.model.language_model;
        let (hidden, cache) = decoder.forward(input, observer).await.unwrap();
        let last = decoder.final_norm(hidden.narrow(1, ids.len() - 1, 1), observer);
        (last.squeeze_dim::<2>(0).matmul(self.head.clone().transpose()), cache)
    }

    /// What one question about a picture computes at every stage, its logits included.
    pub(crate) async fn stages(&self, picture: &str, ids: &[u32]) -> BTreeMap<String, Array> {
        let taps = Taps::default();
        let features = self.encode(picture, &taps).await;
        let (positions, _) = token_positions(ids, &self.config, patches(picture, &self.image).grid_thw);
        let (logits, _) = self.logits(ids, &positions, (&features, None), &taps).await;
        let logits = Array { shape: logits.dims().to_vec(), data: logits.into_data().try_to_vec().unwrap() };
        let mut stages = taps.0.into_inner();
        stages.insert("logits".to_owned(), logits);
        stages
    }

    /// Logits of the last token behind a cache of the first `prefix`.
    pub(crate) async fn logits_from_cache(&self, picture: &str, ids: &[u32], prefix: usize) -> Vec<f32> {
        let features = self.encode(picture, &()).await;
        let (positions, _) = token_positions(ids, &self.config, patches(picture, &self.image).grid_thw);
        let (first, rest) = ids.split_at(prefix);
        let (before, after) = positions.split_at(prefix);
        let (_, cache) = self.logits(first, before, (&features, None), &()).await;
        assert_eq!(cache.len(), prefix, "tokens in the cache");
        let (logits, _) = self.logits(rest, after, (&features, Some(cache)), &()).await;
        logits.into_data().try_to_vec().unwrap()
    }

    /// Rows of the embedding table with the picture's tokens in their places.
    fn embed(&self, ids: &[u32], features: &VisionFeatures) -> Tensor<3> {
        let indices = TensorData::new(ids.iter().map(|&id| id as i32).collect(), [ids.len()]);
        let indices = Tensor::<1, Int>::from_data(indices, &self.device);
        let rows = self.embeddings.clone().select(0, indices).unsqueeze::<3>();
        let Some(start) = self.picture_start(ids) else { return rows };
        let [_, n, width] = features.tokens.dims();
        rows.slice_assign([0..1, start..start + n, 0..width], features.tokens.clone())
    }

    fn picture_start(&self, ids: &[u32]) -> Option<usize> {
        ids.iter().position(|&id| id == self.config.tokens.image)
    }
}

/// Keeps what every stage of a pass computes; rows of a stage that comes for each tile stand together.
#[derive(Default)]
struct Taps(RefCell<BTreeMap<String, Array>>);

impl Observer for Taps {
    fn stage(&self, stage: Stage, output: &Tensor<3>) {
        let array = Array { shape: output.dims().to_vec(), data: output.to_data().try_to_vec().unwrap() };
        let mut taps = self.0.borrow_mut();
        match taps.get_mut(&stage.to_string()) {
            Some(earlier) => {
                earlier.shape[1] += array.shape[1];
                earlier.data.extend(array.data);
            }
            None => drop(taps.insert(stage.to_string(), array)),
        }
    }
}

/// Compares the stages that a fixture has of a question; returns their number.
pub(crate) fn compare_stages(
    what: &str,
    got: &BTreeMap<String, Array>,
    (stages, prefix): (&[String], &str),
    expected: &BTreeMap<String, Array>,
    tolerance: Tolerance,
) -> usize {
    for stage in stages {
        let what = format!("{what}: {stage}");
        let got = got.get(stage).unwrap_or_else(|| panic!("{what}: no such stage"));
        let expected = &expected[&format!("{prefix}.{stage}")];
        // The model has an axis for sequences in front.
        assert!(got.shape.ends_with(&expected.shape), "{what}: shape {:?}", got.shape);
        assert_close(&what, &got.data, &expected.data, tolerance);
    }
    stages.len()
}

/// The tensors of any family by the names of Qwen3-VL, under which modules look for them.
fn renamed(tensors: BTreeMap<String, Array>) -> BTreeMap<String, Array> {
    const NAMES: [(&str, &str); 16] = [
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", "model.visual."),
        (".embeddings.cls_token", ".cls_token"),
        (".embeddings.position_embeddings", ".pos_embed.weight"),
        (".embeddings.patch_embeddings.projection.", ".patch_embed.proj."),
        (".encoder.layer.", ".blocks."),
        (".layernorm_before.", ".norm1."),
        (".layernorm_after.", ".norm2."),
        (".lambda_", ".ls"),
        (".attention.projection_layer.", ".attn.proj."),
        (".mlp.fc", ".mlp.linear_fc"),
        ("multi_modal_projector.layer_norm.", "model.visual.merger.norm."),
        ("multi_modal_projector.linear_", "model.visual.merger.linear_fc"),
        (".attention.k_proj.", ".attn.qkv."),
        (".attention.v_proj.", ".attn.qkv."),
    ];
    if tensors.keys().any(|name| name.starts_with("model.visual.")) {
        return tensors;
    }
    let mut renamed: BTreeMap<String, Array> = BTreeMap::new();
    // Queries come before keys, and those before values.
    let rank = |name: &str| ["q_proj", "k_proj", "v_proj"].iter().position(|part| name.contains(part));
    let mut tensors: Vec<(String, Array)> = tensors.into_iter().collect();
    tensors.sort_by_key(|(name, _)| rank(name));
    for (name, mut array) in tensors {
        let name = NAMES.iter().fold(name, |name, (from, to)| name.replace(from, to));
        let name = name.replace(".attention.q_proj.", ".attn.qkv.");
        if name.ends_with("cls_token") || name.ends_with("pos_embed.weight") {
            array.shape.retain(|size| *size > 1);
        }
        match renamed.get_mut(&name) {
            Some(earlier) => {
                earlier.shape[0] += array.shape[0];
                earlier.data.extend(array.data);
            }
            None => drop(renamed.insert(name, array)),
        }
    }
    renamed
}

/// Where a walk over a module is.
#[derive(Default)]
pub(crate) struct Path(Vec<(String, bool)>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_owned(), container == "Struct:Linear"));
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The name of the parameter in the checkpoint.
    pub(crate) fn name(&self) -> String {
        let names = self.0.iter().map(|(name, _)| match name.as_str() {
            "gamma" => "weight",
            "beta" => "bias",
            name => name,
        });
        ["model"].into_iter().chain(names).collect::<Vec<_>>().join(".")
    }

    /// Whether it is the matrix of a linear layer, which the checkpoint stores transposed.
    pub(crate) fn is_transposed(&self, rank: usize) -> bool {
        rank == 2 && self.0.iter().any(|&(_, linear)| linear)
    }
}

/// Rows of a matrix as columns.
pub(crate) fn transposed(data: &[f32], rows: usize) -> Vec<f32> {
    let columns = data.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| data[row * columns + column])).collect()
}

struct Placement {
    tensors: BTreeMap<String, Array>,
    path: Path,
    device: Device,
}

impl ModuleMapper for Placement {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let array = self.tensors.remove(&name).unwrap_or_else(|| panic!("{name} is not in the checkpoint"));
        let (rows, columns) = (array.shape[0], array.shape[1..].iter().product());
        let (data, shape) = match D {
            1 => (array.data, vec![rows]),
            _ if self.path.is_transposed(D) => (transposed(&array.data, rows), vec![columns, rows]),
            _ => (array.data, vec![rows, columns]),
        };
        assert_eq!(param.lazy_shape().to_vec(), shape, "{name}: shape");
        let value = Tensor::from_data(TensorData::new(data, shape), &self.device);
        param.map(|initial| value.set_require_grad(initial.is_require_grad()))
    }
}
