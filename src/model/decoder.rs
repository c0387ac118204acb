//! The decoder: embeddings to hidden states (`Qwen3VLTextModel`, `Qwen3Model`, `Qwen2Model`).

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::attention::{attend, heads};
use super::cache::KvCache;
use super::linear::Linear;
use super::observer::{Observer, Stage};
use super::rope::Rotary;
use crate::config::TextConfig;
use crate::error::Result;

/// What one pass of the decoder reads.
#[derive(Debug)]
pub struct DecoderInput<'a> {
    /// Embedded tokens, `[B, T, D]`.
    pub embeds: Tensor<3>,
    /// Their positions.
    pub rotary: Rotary,
    /// Which keys each token sees, cached ones first: `[B or 1, T, S]`, 0 or [`super::HIDDEN`].
    pub mask: Tensor<3>,
    /// `DeepStack` features and the index of the first picture token in this pass.
    pub deepstack: Option<(&'a [Tensor<3>], usize)>,
    /// Keys and values of the tokens before this pass.
    pub cache: Option<&'a KvCache>,
}

/// Causal self-attention with grouped queries, in some families with biases or a norm on each query and
/// key head.
#[derive(Module, Debug)]
pub(super) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    head_dim: usize,
}

/// `SwiGLU`: `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
#[allow(clippy::struct_field_names, reason = "the names are the checkpoint's")]
pub(super) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// One layer: attention, then feed-forward, each behind a norm.
#[derive(Module, Debug)]
pub(super) struct DecoderLayer {
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    self_attn: Attention,
    mlp: Mlp,
}

/// All layers and the final norm; embedding table and head stay outside.
#[derive(Module, Debug)]
pub struct Decoder {
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

impl Decoder {
    /// A decoder of random parameters that come to life when first used.
    pub fn new(config: &TextConfig, device: &Device) -> Self {
        Self {
            layers: (0..config.num_hidden_layers).map(|_| DecoderLayer::new(config, device)).collect(),
            norm: norm(config.hidden_size, config, device),
        }
    }

    /// Hidden states before the final norm, `[B, T, D]`, and the cache of all tokens so far.
    pub async fn forward(
        &self,
        input: DecoderInput<'_>,
        observer: &impl Observer,
    ) -> Result<(Tensor<3>, KvCache)> {
        let DecoderInput { embeds, rotary, mask, deepstack, cache } = input;
        observer.stage(Stage::InputsEmbeds, &embeds);
        let mut hidden = embeds;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let past = cache.map(|cache| &cache.layers[index]);
            let (output, key_value) = layer.forward(hidden, &rotary, mask.clone(), past);
            hidden = match deepstack.and_then(|(features, start)| Some((features.get(index)?, start))) {
                Some((features, start)) => add_at(output, features, start),
                None => output,
            };
            layers.push(key_value);
            observer.stage(Stage::Layer(index), &hidden);
            observer.between_layers().await?;
        }
        Ok((hidden, KvCache { layers }))
    }

    /// The final norm, for the rows whose answers are read.
    ///
    /// # Shapes
    /// - input and output: `[B, T, D]`
    pub fn final_norm(&self, hidden: Tensor<3>, observer: &impl Observer) -> Tensor<3> {
        let hidden = self.norm.forward(hidden);
        observer.stage(Stage::Norm, &hidden);
        hidden
    }
}

impl DecoderLayer {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let (width, head) = (config.hidden_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * head, config.num_key_value_heads * head);
        let linear = |d_in, d_out| Linear::new(d_in, d_out, false, device);
        let biased = |d_in, d_out| Linear::new(d_in, d_out, config.attention_bias, device);
        let head_norm = || config.qk_norm.then(|| norm(head, config, device));
        // Branches that end in the residual stream start small, so that a fresh decoder does not
        // drown its tokens (GPT-2, section 2.3: a factor of 1 / sqrt(number of branches)).
        let gain = (2.0 * config.num_hidden_layers as f64).powf(-0.5);
        let branch_end = |d_in, d_out| Linear::with_gain(d_in, d_out, false, gain, device);
        Self {
            input_layernorm: norm(width, config, device),
            post_attention_layernorm: norm(width, config, device),
            self_attn: Attention {
                q_proj: biased(width, queries),
                k_proj: biased(width, keys),
                v_proj: biased(width, keys),
                o_proj: branch_end(queries, width),
                q_norm: head_norm(),
                k_norm: head_norm(),
                head_dim: head,
            },
            mlp: Mlp {
                gate_proj: linear(width, config.intermediate_size),
                up_proj: linear(width, config.intermediate_size),
                down_proj: branch_end(config.intermediate_size, width),
            },
        }
    }

    /// # Shapes
    /// - input and output: `[B, T, D]`
    fn forward(
        &self,
        hidden: Tensor<3>,
        rotary: &Rotary,
        mask: Tensor<3>,
        past: Option<&(Tensor<4>, Tensor<4>)>,
    ) -> (Tensor<3>, (Tensor<4>, Tensor<4>)) {
        let (attended, key_value) =
            self.self_attn.forward(self.input_layernorm.forward(hidden.clone()), rotary, mask, past);
        let hidden = hidden + attended;
        let fed = self.mlp.forward(self.post_attention_layernorm.forward(hidden.clone()));
        (hidden + fed, key_value)
    }
}

impl Attention {
    fn forward(
        &self,
        hidden: Tensor<3>,
        rotary: &Rotary,
        mask: Tensor<3>,
        past: Option<&(Tensor<4>, Tensor<4>)>,
    ) -> (Tensor<3>, (Tensor<4>, Tensor<4>)) {
        let split = |linear: &Linear, x: Tensor<3>| heads(linear.forward(x), self.head_dim);
        let normed = |norm: &Option<RmsNorm>, x: Tensor<4>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let query = rotary.apply(normed(&self.q_norm, split(&self.q_proj, hidden.clone())));
        let mut key = rotary.apply(normed(&self.k_norm, split(&self.k_proj, hidden.clone())));
        let mut value = split(&self.v_proj, hidden);
        if let Some((past_key, past_value)) = past {
            key = Tensor::cat(vec![past_key.clone(), key], 2);
            value = Tensor::cat(vec![past_value.clone(), value], 2);
        }
        let attended = attend(query, key.clone(), value.clone(), Some(mask));
        (self.o_proj.forward(attended), (key, value))
    }
}

impl Mlp {
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.gate_proj.forward(hidden.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(hidden))
    }
}

fn norm(width: usize, config: &TextConfig, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(config.rms_norm_eps).init(device)
}

/// Adds `features` to the tokens from `start` on.
///
/// # Shapes
/// - `hidden` and output: `[B, T, D]`
/// - `features`: `[B, M, D]` with `start + M <= T`
fn add_at(hidden: Tensor<3>, features: &Tensor<3>, start: usize) -> Tensor<3> {
    let [_, t, _] = hidden.dims();
    let [_, m, _] = features.dims();
    let end = start + m;
    let mut parts = Vec::with_capacity(3);
    if start > 0 {
        parts.push(hidden.clone().narrow(1, 0, start));
    }
    parts.push(hidden.clone().narrow(1, start, m) + features.clone());
    if end < t {
        parts.push(hidden.narrow(1, end, t - end));
    }
    Tensor::cat(parts, 1)
}
