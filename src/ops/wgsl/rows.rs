//! Sums of rows, and the parts that kernels over rows share.

use std::fmt::Write;

/// Threads of a workgroup.
pub(super) const THREADS: usize = 64;

/// Workgroups that a dispatch has at most in one direction.
const MOST_GROUPS: usize = 65_535;

/// `out = hidden`, with the rows of `features` added from row `start` on.
///
/// Bindings: `hidden [T, D]`, `features [M, D]`, `out [T, D]`, [`info`](Self::info).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AddRows {
    /// Whether `D` is a multiple of four, so that rows are read and written as whole vectors.
    pub(crate) vectors: bool,
}

/// What [`AddRows`] works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddRowsSizes {
    /// `T`.
    pub(crate) rows: usize,
    /// `D`.
    pub(crate) width: usize,
    /// The row of `hidden` that the first of `features` is added to.
    pub(crate) start: usize,
    /// `M`.
    pub(crate) features: usize,
}

impl AddRows {
    /// The kernel's text.
    pub(crate) fn source(&self) -> String {
        let item = item(self.vectors);
        let buffers =
            [("hidden", "read", item), ("features", "read", item), ("out", "read_write", item), INFO];
        bindings(&buffers) + include_str!("add_rows.wgsl")
    }

    /// Items of `hidden`, the first item that gets a feature, and items of `features`.
    pub(crate) fn info(&self, sizes: &AddRowsSizes) -> Vec<u32> {
        let width = sizes.width / lanes(self.vectors);
        [sizes.rows * width, sizes.start * width, sizes.features * width].map(|word| word as u32).to_vec()
    }

    /// Workgroups of 64 items.
    pub(crate) fn workgroups(&self, sizes: &AddRowsSizes) -> [u32; 3] {
        grid((sizes.rows * sizes.width / lanes(self.vectors)).div_ceil(THREADS))
    }

    /// Both forms.
    pub(crate) fn variants() -> Vec<Self> {
        [false, true].map(|vectors| Self { vectors }).to_vec()
    }
}

/// A buffer of a kernel: its name, its access and the type of its items.
pub(super) type Buffer = (&'static str, &'static str, &'static str);

/// The buffer of sizes and other facts, last of every kernel.
pub(super) const INFO: Buffer = ("info", "read", "u32");

/// Declares buffers, bound in their order.
pub(super) fn bindings(buffers: &[Buffer]) -> String {
    let mut text = String::new();
    for (index, (name, access, item)) in buffers.iter().enumerate() {
        let _ = writeln!(text, "@group(0) @binding({index}) var<storage, {access}> {name}: array<{item}>;");
    }
    text
}

/// The type of a buffer's items.
pub(super) const fn item(vectors: bool) -> &'static str {
    if vectors { "vec4<f32>" } else { "f32" }
}

/// Numbers in an item.
pub(super) const fn lanes(vectors: bool) -> usize {
    if vectors { 4 } else { 1 }
}

/// At least `count` workgroups in two directions. A kernel counts them by rows of the grid, and has nothing to do in
/// those beyond `count`.
pub(super) fn grid(count: usize) -> [u32; 3] {
    let down = count.div_ceil(MOST_GROUPS).max(1);
    [count.div_ceil(down) as u32, down as u32, 1]
}
