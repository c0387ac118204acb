//! Where a model that learns from nothing starts: vision heads look at one neighbour each,
//! decoder heads compare like with like.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::objective::Learner;
use crate::config::{TextConfig, VisionConfig};

/// Neighbours (row, column) that the four heads of each block look at; blocks beyond start at random.
const OFFSETS: [[[f32; 2]; 4]; 3] = [
    [[0.0, -1.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]],
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]],
    [[0.0, -2.0], [0.0, 2.0], [-2.0, 0.0], [2.0, 0.0]],
];

/// Length of the query's and key's bias in each rotary plane: it makes the neighbour's
/// probability about twenty times that of the next patch.
const SHARPNESS: f32 = 5.0;

/// Factor on the weights of queries and keys, so that at first position decides and not content.
const CONTENT: f32 = 0.3;

/// Rotary planes per axis that take part; slower ones turn too little to tell neighbours apart.
const PLANES: usize = 2;

/// Sets the biases of queries and keys so that attention starts as a small convolution
/// (the idea of gated positional self-attention in `ConViT`, arXiv:2103.10697, section 3.2,
/// here through rotary phases).
///
/// A query bias of phase 0 and a key bias of phase `-offset * frequency` score
/// `cos((distance - offset) * frequency)` in each plane: most where the distance is the offset.
pub(super) fn look_around(learner: Learner, config: &VisionConfig) -> Learner {
    learner.map(&mut LookAround { path: Vec::new(), config })
}

/// Makes every key head start as the first query head that reads it, so that attention starts by
/// comparing like with like and a word finds what is described by the same word.
pub(super) fn like_with_like(learner: Learner, config: &TextConfig) -> Learner {
    let group = config.num_attention_heads / config.num_key_value_heads;
    learner.map(&mut LikeWithLike { path: Vec::new(), group, head: config.head_dim, query: None })
}

struct LikeWithLike {
    path: Vec<String>,
    group: usize,
    head: usize,
    query: Option<(usize, Vec<f32>)>,
}

impl ModuleMapper for LikeWithLike {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let [.., "self_attn", part, "weight"] = path[..] else { return param };
        let dims = param.lazy_shape().to_vec();
        if part == "q_proj" {
            let values = param.val().inner().into_data().try_into_vec::<f32>().unwrap_or_default();
            self.query = Some((dims[1], values));
            return param;
        }
        let Some((width, query)) = self.query.take().filter(|_| part == "k_proj") else { return param };
        let (group, head) = (self.group, self.head);
        let source = |column: usize| (column / head) * group * head + column % head;
        let rows = query.chunks_exact(width);
        let values: Vec<f32> =
            rows.flat_map(|row| (0..dims[1]).map(move |column| row[source(column)])).collect();
        let shape = param.lazy_shape();
        param.map(|old| Tensor::from_data(TensorData::new(values, shape), &old.device()).require_grad())
    }
}

struct LookAround<'a> {
    path: Vec<String>,
    config: &'a VisionConfig,
}

impl LookAround<'_> {
    /// The block whose query, key and value projection is at the current path, and whether it is the bias.
    fn place(&self) -> Option<(usize, bool)> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let [.., "blocks", block, "attn", "qkv", kind] = path[..] else { return None };
        Some((block.parse().ok()?, kind == "bias"))
    }

    fn bias(&self, block: usize) -> Option<Vec<f32>> {
        let offsets = OFFSETS.get(block)?;
        let (width, head) = (self.config.hidden_size, self.config.hidden_size / self.config.num_heads);
        let (quarter, half) = (head / 4, head / 2);
        let mut bias = vec![0.0; 3 * width];
        for (index, offset) in offsets.iter().enumerate().take(self.config.num_heads) {
            for (axis, offset) in offset.iter().enumerate() {
                for plane in 0..PLANES.min(quarter) {
                    let frequency = 10_000f32.powf(-(plane as f32) / quarter as f32);
                    let at = index * head + axis * quarter + plane;
                    let (sin, cos) = (-offset * frequency).sin_cos();
                    bias[at] = SHARPNESS;
                    bias[width + at] = SHARPNESS * cos;
                    bias[width + at + half] = SHARPNESS * sin;
                }
            }
        }
        Some(bias)
    }
}

impl ModuleMapper for LookAround<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((block, is_bias)) = self.place() else { return param };
        let Some(bias) = self.bias(block) else { return param };
        let values = if is_bias {
            bias
        } else {
            let width = self.config.hidden_size;
            let weights = param.val().inner().into_data().try_into_vec::<f32>().unwrap_or_default();
            let scale =
                |(index, weight)| if index % (3 * width) < 2 * width { weight * CONTENT } else { weight };
            weights.into_iter().enumerate().map(scale).collect()
        };
        let shape = param.lazy_shape();
        param.map(|old| Tensor::from_data(TensorData::new(values, shape), &old.device()).require_grad())
    }
}
