//! The decoder: embeddings to hidden states (`Qwen3VLTextModel`, `Qwen3Model`, `Qwen2Model`).

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};

use super::checks::Checks;
use super::linear::{Linear, linears};
use super::observer::{Observer, Stage};
use crate::config::TextConfig;
use crate::error::Result;
use crate::ops::check::{Finish, Made};
use crate::ops::{
    Activation, Epilogue, Heads, KeyValues, Projected, Rotary, Seen, add_rows, attend_cached, rms_norm,
    select,
};

/// What one pass of the decoder reads.
#[derive(Debug)]
pub struct DecoderInput<'a> {
    /// Embedded tokens, `[B, T, D]`.
    pub embeds: Tensor<3>,
    /// Their positions.
    pub rotary: Rotary,
    /// Which keys each token sees, cached ones first.
    pub seen: Seen,
    /// `DeepStack` features and the index of the first picture token in this pass.
    pub deepstack: Option<(&'a [Tensor<3>], usize)>,
    /// Keys and values of the tokens before this pass.
    pub cache: Option<KvCache>,
    /// The tokens whose hidden states are wanted, of a single sequence; all where there is none. Of the last layer
    /// only these are computed.
    pub wanted: Option<&'a [usize]>,
}

/// Keys and values of every layer: of a prefix that many questions share.
///
/// A pass over more tokens takes it and gives the longer one back. It never slides or drops tokens by itself.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<KeyValues>,
}

impl KvCache {
    /// Number of tokens it holds.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, KeyValues::len)
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` tokens only.
    pub fn truncated(self, len: usize) -> Self {
        Self { layers: self.layers.into_iter().map(|layer| layer.truncated(len)).collect() }
    }
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

    /// Hidden states before the final norm, `[B, T or wanted, D]`, and the cache of all tokens so far.
    pub async fn forward(
        &self,
        input: DecoderInput<'_>,
        observer: &impl Observer,
    ) -> Result<(Tensor<3>, KvCache)> {
        let DecoderInput { embeds, rotary, seen, deepstack, cache, wanted } = input;
        observer.stage(Stage::InputsEmbeds, &embeds);
        let mut hidden = embeds;
        let mut past = cache.map(|cache| cache.layers.into_iter());
        let mut layers = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let features = deepstack.and_then(|(features, start)| Some((features.get(index)?, start)));
            let is_last = index + 1 == self.layers.len();
            // Features are added to rows of the picture, which nobody asks for, but they have to be there.
            let rows = wanted.filter(|_| is_last && features.is_none());
            let past = past.as_mut().and_then(Iterator::next);
            let (output, key_values) = layer.forward(hidden, (&rotary, &seen), past, rows);
            hidden = match features {
                Some((features, start)) => add_rows(output, features, start),
                None => output,
            };
            if let (true, None, Some(wanted)) = (is_last, rows, wanted) {
                hidden = select(hidden, wanted);
            }
            layers.push(key_values);
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
        let hidden = rms_norm(&self.norm, hidden);
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
    /// - input: `[B, T, D]`
    /// - output: `[B, T or rows, D]`
    fn forward(
        &self,
        hidden: Tensor<3>,
        (rotary, seen): (&Rotary, &Seen),
        past: Option<KeyValues>,
        rows: Option<&[usize]>,
    ) -> (Tensor<3>, KeyValues) {
        let normed = rms_norm(&self.input_layernorm, hidden.clone());
        let (attended, hidden, key_values) = match rows {
            None => {
                let projected = self.self_attn.project(normed.clone(), normed);
                let (attended, key_values) = self.self_attn.attend(projected, [rotary; 2], seen, past);
                (attended, hidden, key_values)
            }
            Some(rows) => {
                let projected = self.self_attn.project(select(normed.clone(), rows), normed);
                let rotary = [&rotary.select(rows), rotary];
                let (attended, key_values) =
                    self.self_attn.attend(projected, rotary, &seen.select(rows), past);
                (attended, select(hidden, rows), key_values)
            }
        };
        let hidden = self.self_attn.o_proj.forward_then(attended, Epilogue::adding(hidden));
        let fed = rms_norm(&self.post_attention_layernorm, hidden.clone());
        (self.mlp.forward(fed, hidden), key_values)
    }
}

impl Attention {
    /// The queries of some tokens, keys and values of all.
    fn project(&self, some: Tensor<3>, all: Tensor<3>) -> Projected {
        Projected {
            query: self.q_proj.forward(some),
            key: self.k_proj.forward(all.clone()),
            value: self.v_proj.forward(all),
        }
    }

    fn attend(
        &self,
        projected: Projected,
        rotary: [&Rotary; 2],
        seen: &Seen,
        past: Option<KeyValues>,
    ) -> (Tensor<3>, KeyValues) {
        let heads =
            Heads { width: self.head_dim, query_norm: self.q_norm.as_ref(), key_norm: self.k_norm.as_ref() };
        attend_cached(projected, heads, rotary, past, seen)
    }
}

impl Mlp {
    /// The layer's output added to `residual`.
    fn forward(&self, hidden: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(hidden.clone());
        let gated = Epilogue { activation: Activation::Gate(gate.flatten(0, 1)), ..Epilogue::default() };
        let wide = self.up_proj.forward_then(hidden, gated);
        self.down_proj.forward_then(wide, Epilogue::adding(residual))
    }
}

impl Decoder {
    /// What a device has to show before it computes this.
    pub(super) fn checks(&self, checks: &mut Checks) {
        for layer in &self.layers {
            let [width] = layer.input_layernorm.gamma.lazy_shape().dims();
            checks.norm(false, width);
            checks.add_rows(width);
            layer.self_attn.checks(checks);
            layer.mlp.checks(checks);
        }
    }
}

impl Attention {
    fn checks(&self, checks: &mut Checks) {
        for layer in [&self.q_proj, &self.k_proj, &self.v_proj] {
            checks.linear(layer, Finish::default());
        }
        let heads = [&self.q_proj, &self.k_proj].map(|layer| layer.widths()[1] / self.head_dim);
        checks.cached(heads, self.head_dim, self.q_norm.is_some());
        checks.linear(&self.o_proj, Finish { residual: true, ..Finish::default() });
    }
}

impl Mlp {
    fn checks(&self, checks: &mut Checks) {
        checks.linear(&self.gate_proj, Finish::default());
        checks.linear(&self.up_proj, Finish { made: Made::Gate, ..Finish::default() });
        checks.linear(&self.down_proj, Finish { residual: true, ..Finish::default() });
    }
}

linears!(Decoder { layers });
linears!(DecoderLayer { self_attn, mlp });
linears!(Attention { q_proj, k_proj, v_proj, o_proj });
linears!(Mlp { gate_proj, up_proj, down_proj });

fn norm(width: usize, config: &TextConfig, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(config.rms_norm_eps).init(device)
}
