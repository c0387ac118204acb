//! Attention of the patches of a picture among themselves, and of tokens behind a cache.

use burn::nn::RmsNorm;
use burn::tensor::{Device, Tensor};

use super::composed::{attend, heads};
use super::rotary::Rotary;
use super::seen::Seen;
#[cfg(feature = "kernels")]
use crate::error::Error;
use crate::error::Result;

/// How a projection is cut into heads, and what is done to each query and key head before it is turned.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// `Dh`.
    pub width: usize,
    /// The norm of each query head, in some families.
    pub query_norm: Option<&'a RmsNorm>,
    /// The norm of each key head.
    pub key_norm: Option<&'a RmsNorm>,
}

/// Keys, turned by their rotary positions, and values of the tokens so far.
#[derive(Debug)]
pub struct KeyValues(Form);

#[derive(Debug)]
enum Form {
    /// `[B, Hkv, S, Dh]` each, made anew when tokens come.
    Composed { key: Tensor<4>, value: Tensor<4> },
    /// Room for more tokens than there are, filled in place.
    #[cfg(feature = "kernels")]
    InPlace(super::wgsl::Cache),
}

impl KeyValues {
    /// Number of tokens it holds.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Composed { key, .. } => key.dims()[2],
            #[cfg(feature = "kernels")]
            Form::InPlace(cache) => cache.len(),
        }
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` tokens only.
    pub fn truncated(self, len: usize) -> Self {
        Self(match self.0 {
            Form::Composed { key, value } => {
                Form::Composed { key: key.narrow(2, 0, len), value: value.narrow(2, 0, len) }
            }
            #[cfg(feature = "kernels")]
            Form::InPlace(cache) => Form::InPlace(cache.truncated(len)),
        })
    }
}

/// Refuses heads of a width that a device's kernels do not take.
///
/// # Errors
/// [`Kind::Device`](crate::error::Kind::Device), so that the CPU is tried in its place.
pub fn check_width(width: usize, device: &Device) -> Result<()> {
    #[cfg(feature = "kernels")]
    if super::wgsl::runs_on(device) && (!width.is_multiple_of(4) || !super::wgsl::WIDTHS.contains(&width)) {
        let [least, most] = [super::wgsl::WIDTHS.start(), super::wgsl::WIDTHS.end()];
        return Err(Error::device(format!(
            "attention heads have {width} values, and the GPU takes multiples of 4 from {least} to {most}"
        )));
    }
    let _ = (width, device);
    Ok(())
}

/// What one layer projects the tokens of a pass to.
#[derive(Debug)]
pub struct Projected {
    /// Of the tokens whose output is wanted, `[B, T or fewer, H * Dh]`.
    pub query: Tensor<3>,
    /// `[B, T, Hkv * Dh]`.
    pub key: Tensor<3>,
    /// `[B, T, Hkv * Dh]`.
    pub value: Tensor<3>,
}

/// Attention of the queries to the tokens of `past` and of this pass, as far as `seen` lets them, and all keys and
/// values so far.
///
/// `rotary` turns queries and keys, which are fewer and all tokens of this pass.
///
/// # Shapes
/// - output: `[B, queries, H * Dh]`
pub fn attend_cached(
    projected: Projected,
    heads_of: Heads<'_>,
    rotary: [&Rotary; 2],
    past: Option<KeyValues>,
    seen: &Seen,
) -> (Tensor<3>, KeyValues) {
    #[cfg(feature = "kernels")]
    if super::wgsl::is_on(&projected.key) && projected.key.dims()[0] == 1 {
        let past = past.map(|KeyValues(form)| match form {
            Form::InPlace(cache) => cache,
            Form::Composed { .. } => unreachable!("the cache of one pass was made by another form"),
        });
        let (output, cache) = super::wgsl::attend_cached(projected, heads_of, rotary, past, seen);
        return (output, KeyValues(Form::InPlace(cache)));
    }
    let Heads { width, query_norm, key_norm } = heads_of;
    let normed = |norm: Option<&RmsNorm>, x: Tensor<4>| match norm {
        Some(norm) => norm.forward(x),
        None => x,
    };
    let query = rotary[0].apply(normed(query_norm, heads(projected.query, width)));
    let mut key = rotary[1].apply(normed(key_norm, heads(projected.key, width)));
    let mut value = heads(projected.value, width);
    match past {
        Some(KeyValues(Form::Composed { key: past_key, value: past_value })) => {
            key = Tensor::cat(vec![past_key, key], 2);
            value = Tensor::cat(vec![past_value, value], 2);
        }
        None => {}
        #[cfg(feature = "kernels")]
        Some(KeyValues(Form::InPlace(_))) => unreachable!("the cache of one pass was made by another form"),
    }
    let output = attend(query, key.clone(), value.clone(), Some(seen.mask()));
    (output, KeyValues(Form::Composed { key, value }))
}

/// Attention of every patch to every patch.
///
/// # Shapes
/// - `qkv`: queries, keys and values side by side, `[B, T, 3 * H * Dh]`
/// - output: `[B, T, H * Dh]`
#[allow(clippy::needless_pass_by_value, reason = "kernels turn queries and keys in place")]
pub fn attend_joint(qkv: Tensor<3>, width: usize, rotary: Option<&Rotary>) -> Tensor<3> {
    #[cfg(feature = "kernels")]
    if super::wgsl::is_on(&qkv) && qkv.dims()[0] == 1 {
        return super::wgsl::attend_joint(qkv, width, rotary);
    }
    let all = qkv.dims()[2] / 3;
    let part = |index: usize| heads(qkv.clone().narrow(2, index * all, all), width);
    let turned = |x: Tensor<4>| match rotary {
        Some(rotary) => rotary.apply(x),
        None => x,
    };
    attend(turned(part(0)), turned(part(1)), part(2), None)
}
