//! Rotary positions: the first half of a head against its second half, as `rotate_half` does.
//!
//! Tables are `[T, Dh]`: for each token the cosines of `Dh / 2` angles, then their sines.

use super::rows::{Buffer, INFO, bindings, grid, item, lanes};

/// Heads of a workgroup: eight threads a head.
const HEADS: usize = 8;

/// Turns heads of a buffer in place, after an RMS norm of each head if asked for.
///
/// Bindings: `x [T, stride]`, `table`, `weight [Dh]` of the norm, [`info`](Self::info).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rotate {
    /// Whether each head is normed before it turns.
    pub(crate) norm: bool,
    /// Whether `Dh` is a multiple of eight (and `stride` and `offset` of four), so that rows are read and written as
    /// whole vectors.
    pub(crate) vectors: bool,
}

/// What [`Rotate`] works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RotateSizes {
    /// `T`.
    pub(crate) rows: usize,
    /// Heads to turn, side by side.
    pub(crate) heads: usize,
    /// `Dh`.
    pub(crate) head_dim: usize,
    /// Numbers of a row.
    pub(crate) stride: usize,
    /// The column of the first head.
    pub(crate) offset: usize,
    /// Of the norm.
    pub(crate) epsilon: f32,
}

/// Writes keys, normed and turned if asked for, and values to rows of a cache.
///
/// Bindings: `k [T, Hkv Dh]`, `v [T, Hkv Dh]`, `table` if keys turn, `weight [Dh]` if they are normed,
/// `cache [2, capacity, Hkv Dh]`, [`info`](Self::info).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// Whether each head of the keys is normed, before it turns.
    pub(crate) norm: bool,
    /// Whether keys turn.
    pub(crate) turn: bool,
    /// Whether `Dh` is a multiple of eight, so that rows are read and written as whole vectors.
    pub(crate) vectors: bool,
}

/// What [`Store`] works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreSizes {
    /// `T`.
    pub(crate) rows: usize,
    /// `Hkv`.
    pub(crate) heads: usize,
    /// `Dh`.
    pub(crate) head_dim: usize,
    /// Rows that the cache has room for.
    pub(crate) capacity: usize,
    /// The cache's row of the first key.
    pub(crate) start: usize,
    /// Of the norm.
    pub(crate) epsilon: f32,
}

impl Rotate {
    /// The kernel's text.
    pub(crate) fn source(&self) -> String {
        let item = item(self.vectors);
        let mut buffers = vec![("x", "read_write", item), ("table", "read", item)];
        buffers.extend(self.norm.then_some(("weight", "read", item)));
        text(&buffers, &Heads { norm: self.norm, turn: true, vectors: self.vectors }, &ROTATE)
    }

    /// Rows, heads, the bits of epsilon; then in items: half a head, a row of `x`, the first head.
    pub(crate) fn info(&self, sizes: &RotateSizes) -> Vec<u32> {
        let RotateSizes { rows, heads, head_dim, stride, offset, epsilon } = *sizes;
        let lanes = lanes(self.vectors);
        facts(rows, heads, epsilon, [head_dim / 2 / lanes, stride / lanes, offset / lanes])
    }

    /// One workgroup for eight heads.
    pub(crate) fn workgroups(sizes: &RotateSizes) -> [u32; 3] {
        grid((sizes.rows * sizes.heads).div_ceil(HEADS))
    }

    /// All forms.
    pub(crate) fn variants() -> Vec<Self> {
        both().into_iter().flat_map(|norm| both().map(|vectors| Self { norm, vectors })).collect()
    }
}

impl Store {
    /// The kernel's text.
    pub(crate) fn source(&self) -> String {
        let item = item(self.vectors);
        let mut buffers = vec![("k", "read", item), ("v", "read", item)];
        buffers.extend(self.turn.then_some(("table", "read", item)));
        buffers.extend(self.norm.then_some(("weight", "read", item)));
        buffers.push(("cache", "read_write", item));
        text(&buffers, &Heads { norm: self.norm, turn: self.turn, vectors: self.vectors }, &STORE)
    }

    /// Rows, heads, the bits of epsilon; then in items: half a head, the first key of the cache to write, the first
    /// value.
    pub(crate) fn info(&self, sizes: &StoreSizes) -> Vec<u32> {
        let StoreSizes { rows, heads, head_dim, capacity, start, epsilon } = *sizes;
        let row = heads * head_dim / lanes(self.vectors);
        let half = head_dim / 2 / lanes(self.vectors);
        facts(rows, heads, epsilon, [half, start * row, (capacity + start) * row])
    }

    /// One workgroup for eight heads.
    pub(crate) fn workgroups(sizes: &StoreSizes) -> [u32; 3] {
        grid((sizes.rows * sizes.heads).div_ceil(HEADS))
    }

    /// All forms.
    pub(crate) fn variants() -> Vec<Self> {
        let forms =
            |norm| both().into_iter().flat_map(move |turn| both().map(move |vectors| (norm, turn, vectors)));
        let all = both().into_iter().flat_map(forms);
        all.map(|(norm, turn, vectors)| Self { norm, turn, vectors }).collect()
    }
}

/// What is done to heads.
struct Heads {
    norm: bool,
    turn: bool,
    vectors: bool,
}

/// Where heads come from and go to.
struct Places {
    /// The buffer that they are read from.
    from: &'static str,
    /// The buffer that they are written to.
    to: &'static str,
    /// The item at which the head in a row is read.
    read: &'static str,
    /// The item at which it is written.
    write: &'static str,
    /// What else is done with its first and second half.
    beside: &'static str,
}

const ROTATE: Places = Places {
    from: "x",
    to: "x",
    read: "row * info[4] + info[5] + head * 2u * half",
    write: "read",
    beside: "",
};

const STORE: Places = Places {
    from: "k",
    to: "cache",
    read: "index * 2u * half",
    write: "info[4] + read",
    beside: "
            cache[info[5] + read + i] = v[read + i];
            cache[info[5] + read + half + i] = v[read + half + i];",
};

fn text(buffers: &[Buffer], heads: &Heads, places: &Places) -> String {
    let item = item(heads.vectors);
    let buffers = [buffers, &[INFO]].concat();
    let steps = [if heads.norm { SCALE } else { "" }, if heads.turn { TURN } else { "" }].concat();
    bindings(&buffers)
        + if heads.norm { "\nvar<workgroup> sums: array<f32, 64>;\n" } else { "" }
        + &include_str!("rotary.wgsl")
            .replace("$norm", if heads.norm { NORM } else { "" })
            .replace("$steps", &steps)
            .replace("$beside", places.beside)
            .replace("$from", places.from)
            .replace("$to", places.to)
            .replace("$read", places.read)
            .replace("$write", places.write)
            .replace("$item", item)
            .replace("$sum", if heads.vectors { "dot(squares, vec4<f32>(1.0))" } else { "squares" })
            .replace("$lanes", &format!("{}.0", lanes(heads.vectors)))
}

fn facts(rows: usize, heads: usize, epsilon: f32, items: [usize; 3]) -> Vec<u32> {
    let [half, second, third] = items.map(|count| count as u32);
    vec![rows as u32, heads as u32, epsilon.to_bits(), half, second, third]
}

const fn both() -> [bool; 2] {
    [false, true]
}

/// The eight threads of a head add their squares.
const NORM: &str = "
    var squares = $item();
    for (var i = lane; i < end; i += 8u) {
        squares += $from[read + i] * $from[read + i] + $from[read + half + i] * $from[read + half + i];
    }
    sums[thread] = $sum;
    workgroupBarrier();
    var square = 0.0;
    for (var i = 0u; i < 8u; i++) {
        square += sums[thread - lane + i];
    }
    let factor = inverseSqrt(square / (f32(2u * half) * $lanes) + bitcast<f32>(info[2]));
";

const SCALE: &str = "
        a *= factor * weight[i];
        b *= factor * weight[half + i];";

const TURN: &str = "
        let cosine = table[row * 2u * half + i];
        let sine = table[row * 2u * half + half + i];
        let turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;";
