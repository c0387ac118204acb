//! A checkpoint folder on a device, run as transformers runs it.
//!
//! The tensors are placed by this file alone, from the names in the checkpoint, so that no mistake
//! of the model can be cancelled by the same mistake of the crate's own loader.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use imatch::config::{ImageConfig, ModelConfig};
use imatch::image::decode::{DecodeLimits, decode};
use imatch::image::patches::{Patches, preprocess};
use imatch::model::{
    DecoderInput, KvCache, Observer, Rotary, VisionFeatures, VisionLanguageModel, answer_logits, causal_mask,
};

use super::{Array, arrays, golden};

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
        let table = |array: Array| Tensor::<2>::from_data(TensorData::new(array.data, array.shape), device);
        let embeddings = table(tensors.remove("model.language_model.embed_tokens.weight").unwrap());
        let tied = config.text.tie_word_embeddings;
        assert_eq!(tensors.contains_key("lm_head.weight"), !tied, "{name}: the head");
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
        let [_, h, w] = patches.grid_thw;
        let rows = Tensor::from_data(TensorData::new(patches.data, shape), &self.device);
        self.model.visual.forward(rows, [h, w], observer).await.unwrap()
    }

    /// Logits of the last of `ids`, which follow `cache`, over the whole vocabulary; and the longer cache.
    ///
    /// # Shapes
    /// - output: `[1, vocab_size]`
    pub(crate) async fn logits(
        &self,
        ids: &[u32],
        positions: &[[usize; 3]],
        (features, cache): (&VisionFeatures, Option<&KvCache>),
        observer: &impl Observer,
    ) -> (Tensor<2>, KvCache) {
        let past = cache.map_or(0, KvCache::len);
        let mask = TensorData::new(causal_mask(past, ids.len()), [1, ids.len(), past + ids.len()]);
        let input = DecoderInput {
            embeds: self.embed(ids, features),
            rotary: Rotary::for_tokens(&[positions.to_vec()], &self.config.text, &self.device),
            mask: Tensor::from_data(mask, &self.device),
            deepstack: self.picture_start(ids).map(|start| (features.deepstack.as_slice(), start)),
            cache,
        };
        let decoder = &self.model.language_model;
        let (hidden, cache) = decoder.forward(input, observer).await.unwrap();
        let last = decoder.final_norm(hidden.narrow(1, ids.len() - 1, 1), observer);
        (answer_logits(last.squeeze_dim(0), self.head.clone()), cache)
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

/// Where a walk over a module is.
#[derive(Default)]
pub(crate) struct Path(Vec<(String, bool)>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        // Which of several towers it is has no part in a name.
        let name = if container.starts_with("Enum:") { "" } else { name };
        self.0.push((name.to_owned(), container == "Struct:Linear"));
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The name of the parameter in the checkpoint.
    pub(crate) fn name(&self) -> String {
        let names = self.0.iter().filter(|(name, _)| !name.is_empty()).map(|(name, _)| match name.as_str() {
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
