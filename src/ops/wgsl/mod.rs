//! Kernels of our own in WGSL, for browsers and every other device that runs it.
//!
//! ```text
//! product attention norm rotary rows    texts, from the few facts that each depends on
//! layout, stored/*.wgsl                 stored matrices as words, and how a kernel unpacks them
//! launch                                text and buffers to burn's runtime
//! forms                                 the operations of `ops` as launches
//! ```
//!
//! The texts are plain, so that every compiler takes them: no subgroups, no f16, no early return before a barrier,
//! whole vectors into workgroup memory, two-dimensional grids, each buffer bound once. No text depends on the adapter,
//! and none takes more than what WebGPU guarantees: 16,384 bytes of workgroup memory, 256 threads, 8 buffers.
//! Every kernel's last buffer holds its sizes, as words.
#![cfg_attr(not(feature = "kernels"), allow(dead_code, reason = "without a GPU only tests read the texts"))]

mod attention;
#[cfg(feature = "kernels")]
mod forms;
#[cfg(feature = "kernels")]
mod launch;
mod layout;
mod norm;
mod product;
mod rotary;
mod rows;

#[cfg(feature = "kernels")]
pub(crate) use attention::WIDTHS;
#[cfg(feature = "kernels")]
pub(super) use forms::{Cache, Words, add_rows, attend_cached, attend_joint, layer_norm, product, rms_norm};
#[cfg(feature = "kernels")]
pub(crate) use launch::{is_on, runs_on};
pub(crate) use layout::n_bytes as words_bytes;

use std::fmt::Debug;

/// Name and text of every kernel in all its variants.
pub fn every_source() -> Vec<(String, String)> {
    fn named<K: Debug>(variants: &[K], source: impl Fn(&K) -> String) -> Vec<(String, String)> {
        variants.iter().map(|variant| (format!("{variant:?}"), source(variant))).collect()
    }
    [
        named(&product::Product::variants(), product::Product::source),
        named(&attention::Attention::variants(), attention::Attention::source),
        named(&norm::Norm::variants(), norm::Norm::source),
        named(&rotary::Rotate::variants(), rotary::Rotate::source),
        named(&rotary::Store::variants(), rotary::Store::source),
        named(&rows::AddRows::variants(), rows::AddRows::source),
    ]
    .concat()
}
