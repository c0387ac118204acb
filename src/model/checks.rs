//! Which operations a model uses and at which sizes: what a device has to show before it scores.

use std::collections::HashSet;

use super::{Linear, VisionLanguageModel};
use crate::ops::check::{Check, Finish};

/// Rows of the left side of products: two whole tiles and a part of one.
const ROWS: usize = 70;

/// Columns of a product beyond these are more of the same.
const MOST_COLUMNS: usize = 320;

/// Tokens of a prefix and of the questions behind it, and patches of a picture: no multiples of any tile.
const PAST: usize = 70;
const SEGMENTS: [usize; 4] = [9, 70, 5, 70];
const PATCHES: usize = 75;

/// Each check once, in the order in which a model computes.
#[derive(Default)]
pub(super) struct Checks {
    checks: Vec<Check>,
    known: HashSet<Check>,
}

impl VisionLanguageModel {
    /// One check for each operation and each of its sizes in this model.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let mut checks = Checks::default();
        self.visual.checks(&mut checks);
        self.language_model.checks(&mut checks);
        checks.checks
    }
}

impl Checks {
    /// A layer of which `finish` follows; its bias is added here.
    pub(super) fn linear(&mut self, layer: &Linear, finish: Finish) {
        let Some(stored) = layer.stored() else { return };
        let [d_out, d_in] = stored.shape();
        self.add(Check::Product {
            stored: stored.dtype().name().to_owned(),
            rows: ROWS,
            d_in,
            // Widths that are no multiple of four have kernels of their own.
            d_out: d_out.min(MOST_COLUMNS + d_out % 4),
            finish: Finish { bias: layer.bias.is_some(), ..finish },
        });
    }

    pub(super) fn norm(&mut self, layer: bool, width: usize) {
        self.add(Check::Norm { layer, rows: 7, width });
    }

    pub(super) fn joint(&mut self, heads: usize, width: usize, turned: bool) {
        self.add(Check::Joint { heads, width, tokens: PATCHES, turned });
    }

    pub(super) fn cached(&mut self, [heads, key_heads]: [usize; 2], width: usize, normed: bool) {
        self.add(Check::Cached { heads, key_heads, width, normed, past: PAST, segments: SEGMENTS.to_vec() });
    }

    pub(super) fn add_rows(&mut self, width: usize) {
        self.add(Check::AddRows { rows: 41, width, start: 3, features: 30 });
    }

    fn add(&mut self, check: Check) {
        if self.known.insert(check.clone()) {
            self.checks.push(check);
        }
    }
}
