//! Keys and values of a prefix that many questions share.

use burn::tensor::Tensor;

/// Keys (already turned by their rotary positions) and values of every layer.
///
/// Immutable: a pass over more tokens reads it and returns the longer one. It never
/// slides or drops tokens.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// Per layer `(key, value)`, each `[B, Hkv, S, Dh]`.
    pub(crate) layers: Vec<(Tensor<4>, Tensor<4>)>,
}

impl KvCache {
    /// Number of tokens it holds.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[2])
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` tokens only.
    pub fn truncated(&self, len: usize) -> Self {
        let cut = |x: &Tensor<4>| x.clone().narrow(2, 0, len);
        Self { layers: self.layers.iter().map(|(key, value)| (cut(key), cut(value))).collect() }
    }
}
