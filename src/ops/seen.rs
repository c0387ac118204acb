//! Which tokens a query sees: segments and limits, never a matrix until burn's operations ask for one.

use std::sync::OnceLock;

#[cfg(feature = "kernels")]
use burn::tensor::Int;
use burn::tensor::{Device, Tensor, TensorData};

/// Added to the score of a key that a query must not see: its probability is exactly zero
/// in f32, and no back end has to cope with infinities.
pub const HIDDEN: f32 = -1e9;

/// The segment of keys that every query sees.
pub const SHARED: i32 = -1;

/// What the tokens of a pass see of the keys, cached ones first.
///
/// A query sees a key that is shared or of its own segment and lies no further than its limit.
#[derive(Debug, Clone)]
pub struct Seen {
    batch: usize,
    /// Segment and last visible key of each query, sequence by sequence.
    queries: Vec<[i32; 2]>,
    /// Segment of each key, sequence by sequence.
    keys: Vec<i32>,
    device: Device,
    mask: OnceLock<Tensor<3>>,
    #[cfg(feature = "kernels")]
    words: OnceLock<Tensor<1, Int>>,
}

impl Seen {
    /// Of `batch` sequences of equally many queries and keys each.
    ///
    /// # Shapes
    /// - `queries`: `B * T` pairs of a segment and the index of the last visible key, -1 for none
    /// - `keys`: `B * S` segments
    pub fn new(batch: usize, queries: Vec<[i32; 2]>, keys: Vec<i32>, device: &Device) -> Self {
        let device = device.clone();
        Self {
            batch,
            queries,
            keys,
            device,
            mask: OnceLock::new(),
            #[cfg(feature = "kernels")]
            words: OnceLock::new(),
        }
    }

    /// Plain causal attention: `tokens` new tokens behind `past` others.
    pub fn causal(past: usize, tokens: usize, device: &Device) -> Self {
        let queries = (past..past + tokens).map(|last| [SHARED, last as i32]).collect();
        Self::new(1, queries, vec![SHARED; past + tokens], device)
    }

    /// The same keys, seen by some of the queries of a single sequence.
    pub fn select(&self, rows: &[usize]) -> Self {
        let queries = rows.iter().map(|&row| self.queries[row]).collect();
        Self::new(self.batch, queries, self.keys.clone(), &self.device)
    }

    /// Queries and keys of a sequence.
    pub(super) fn lengths(&self) -> [usize; 2] {
        [self.queries.len() / self.batch, self.keys.len() / self.batch]
    }

    /// What is added to scores, `[B, T, S]`: 0 where seen and [`HIDDEN`] where not.
    pub fn mask(&self) -> Tensor<3> {
        let [t, s] = self.lengths();
        let make = || {
            let sequences = self.queries.chunks_exact(t).zip(self.keys.chunks_exact(s));
            let values = sequences.flat_map(|(queries, keys)| {
                queries.iter().flat_map(move |&[segment, last]| {
                    keys.iter().enumerate().map(move |(index, &key)| {
                        let is_seen = index as i32 <= last && (key == SHARED || key == segment);
                        if is_seen { 0.0 } else { HIDDEN }
                    })
                })
            });
            let values: Vec<f32> = values.collect();
            Tensor::from_data(TensorData::new(values, [self.batch, t, s]), &self.device)
        };
        self.mask.get_or_init(make).clone()
    }

    /// As kernels read it: the queries' pairs, then the keys' segments. Of a single sequence.
    #[cfg(feature = "kernels")]
    pub(super) fn words(&self) -> Tensor<1, Int> {
        let make = || {
            let words: Vec<i32> = self.queries.iter().flatten().chain(&self.keys).copied().collect();
            let n = words.len();
            Tensor::from_data(TensorData::new(words, [n]), &self.device)
        };
        self.words.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_shared_keys_and_its_own_segment_up_to_its_limit() {
        // Two shared keys, two segments of two, and a key of nobody.
        let seen = Seen::new(
            1,
            vec![[SHARED, 1], [0, 3], [1, 4], [1, 5], [1, -1]],
            vec![SHARED, SHARED, 0, 0, 1, 1, 7],
            &Device::flex(),
        );
        let mask: Vec<f32> = seen.mask().into_data().try_into_vec().unwrap_or_default();
        let visible: Vec<u8> = mask.iter().map(|&bias| u8::from(bias == 0.0)).collect();
        #[rustfmt::skip]
        assert_eq!(visible, [
            1, 1, 0, 0, 0, 0, 0,
            1, 1, 1, 1, 0, 0, 0,
            1, 1, 0, 0, 1, 0, 0,
            1, 1, 0, 0, 1, 1, 0,
            0, 0, 0, 0, 0, 0, 0,
        ]);
    }
}
