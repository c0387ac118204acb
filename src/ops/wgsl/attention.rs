//! `softmax(q kᵗ / sqrt(Dh)) v` without scores in memory: a workgroup takes a block of queries of one head through
//! blocks of keys, and rescales its sums whenever it meets a larger score (Milakov and Gimelshein, arXiv:1805.02867).

use std::f32::consts::LOG2_E;
use std::fmt::Write;
use std::ops::RangeInclusive;

use super::rows::{Buffer, INFO, THREADS, bindings};

/// Attention over rows of heads, `H / Hkv` query heads on each key head.
///
/// Bindings of [`Form::Joint`]: `qkv [N, 3 H Dh]`, `out [N, H Dh]`, [`info`](Sizes::info).
///
/// Bindings of [`Form::Cached`]: `q [T, H Dh]`, `cache [2, capacity, Hkv Dh]` (keys, then values), `seen`,
/// `out [T, H Dh]`, [`info`](Sizes::info). `seen` holds two `i32` a query, its segment and the last key that it may
/// see (-1 for none); then one a key, its segment or -1. A query sees a key up to its last if the key has its segment
/// or -1. A query that sees no key gets zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attention {
    /// `Dh`, a multiple of four up to 256.
    pub(crate) head_dim: usize,
    /// Where queries, keys and values lie, and what is seen.
    pub(crate) form: Form,
}

/// Where queries, keys and values lie, and what is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Side by side in one buffer; all see all.
    Joint,
    /// Queries in rows of their own, keys and values in a cache; segments say what is seen.
    Cached,
}

/// What a kernel works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// `T`, or `N`.
    pub(crate) queries: usize,
    /// `S`, at most the cache's capacity; `N` of [`Form::Joint`].
    pub(crate) keys: usize,
    /// `H`.
    pub(crate) heads: usize,
    /// `Hkv`; `H` of [`Form::Joint`].
    pub(crate) key_heads: usize,
    /// Rows that the cache has room for; of no meaning for [`Form::Joint`].
    pub(crate) capacity: usize,
}

/// How a workgroup of 64 threads shares the work: `across` threads a query, four queries a thread.
struct Tiles {
    /// Vectors of a head.
    width: usize,
    /// Threads that share a query's keys and columns.
    across: usize,
    /// Threads below each other.
    down: usize,
    /// Queries of a block.
    queries: usize,
    /// Keys of a block.
    keys: usize,
    /// Vectors of a head that the pool holds at a time of queries and keys.
    chunk: usize,
    /// Keys of a block whose values the pool holds at a time.
    part: usize,
}

/// Widths of heads that kernels take, where they are multiples of four.
pub(crate) const WIDTHS: RangeInclusive<usize> = 4..=256;

/// Queries of a thread, the lanes of a vector.
const LANES: [&str; 4] = ["x", "y", "z", "w"];

/// Vectors that fit into the 16,384 bytes of workgroup memory that WebGPU guarantees, without those for maxima.
const POOL: usize = 16_384 / 16 - THREADS;

impl Tiles {
    /// Tiles whose sums stay in registers: at most five vectors a query and thread.
    fn of(head_dim: usize) -> Self {
        let width = head_dim / 4;
        let across = match width {
            ..=20 => 4,
            21..=32 => 8,
            _ => 16,
        };
        let down = THREADS / across;
        let (queries, keys) = (LANES.len() * down, 32.max(4 * across));
        let chunk = width.div_ceil(width.div_ceil(8));
        // The last threads read columns beyond the head, which the pool must have.
        let room = (POOL - keys * down - beyond(width, across)) / width;
        let part = keys.min(1 << room.ilog2());
        Self { width, across, down, queries, keys, chunk, part }
    }

    /// Keys of a thread.
    fn keys_of_thread(&self) -> usize {
        self.keys / self.across
    }

    /// Vectors of a query and thread; those of the last threads may lie beyond the head.
    fn columns_of_thread(&self) -> usize {
        self.width.div_ceil(self.across)
    }

    /// Vectors of the pool: queries and keys, later probabilities and values.
    fn pool(&self) -> usize {
        let scoring = self.chunk * (self.queries + 1 + self.keys + 1);
        scoring.max(self.keys * self.down + self.part * self.width + beyond(self.width, self.across))
    }

    fn constants(&self) -> String {
        let constants = [
            ("WIDTH", self.width),
            ("ACROSS", self.across),
            ("DOWN", self.down),
            ("QUERIES", self.queries),
            ("KEYS", self.keys),
            ("CHUNK", self.chunk),
            ("PART", self.part),
            ("POOL", self.pool()),
        ];
        let mut text = String::new();
        for (name, value) in constants {
            let _ = writeln!(text, "const {name} = {value}u;");
        }
        text
    }
}

/// Vectors beyond a head's `width` that `across` threads read.
const fn beyond(width: usize, across: usize) -> usize {
    width.next_multiple_of(across) - width
}

impl Sizes {
    /// Queries, keys, queries' heads a key head; then in vectors of four: a row of queries, a row of keys, the first
    /// key, the first value, a row of the result; the bits of the scores' factor.
    pub(crate) fn info(&self, kernel: &Attention) -> Vec<u32> {
        let width = kernel.head_dim / 4;
        let out = self.heads * width;
        let (query_row, key_row, first_key, first_value) = match kernel.form {
            Form::Joint => (3 * out, 3 * out, out, 2 * out),
            Form::Cached => {
                let row = self.key_heads * width;
                (out, row, 0, self.capacity * row)
            }
        };
        let group = self.heads / self.key_heads;
        // The kernel takes powers of two.
        let factor = LOG2_E / (kernel.head_dim as f32).sqrt();
        let counts = [self.queries, self.keys, group, query_row, key_row, first_key, first_value, out];
        counts.into_iter().map(|count| count as u32).chain([factor.to_bits()]).collect()
    }
}

impl Attention {
    /// The kernel's text.
    pub(crate) fn source(&self) -> String {
        let tiles = Tiles::of(self.head_dim);
        let (sight, [queries, keys]) = match self.form {
            Form::Joint => (include_str!("attention_joint.wgsl"), ["qkv", "qkv"]),
            Form::Cached => (include_str!("attention_cached.wgsl"), ["q", "cache"]),
        };
        let text = include_str!("attention.wgsl")
            .replace("$query_buffer", queries)
            .replace("$key_buffer", keys)
            .replace("$sums", &sums(&tiles))
            .replace("$scores", &scores(&tiles))
            .replace("$products", &products(&tiles))
            .replace("$hide", &hide(&tiles))
            .replace("$maximum", &maximum(&tiles))
            .replace("$probabilities", &probabilities(&tiles))
            .replace("$rescale", &rescale(&tiles))
            .replace("$weigh", &weigh(&tiles))
            .replace("$stores", &stores(&tiles));
        bindings(self.buffers()) + &tiles.constants() + &text + sight
    }

    /// One workgroup a block of queries and head.
    pub(crate) fn workgroups(&self, sizes: &Sizes) -> [u32; 3] {
        [sizes.queries.div_ceil(Tiles::of(self.head_dim).queries) as u32, sizes.heads as u32, 1]
    }

    /// Both forms of all widths that models have, and of the odd ones that tests have.
    pub(crate) fn variants() -> Vec<Self> {
        let widths = [4, 24, 32, 36, 40, 64, 72, 80, 88, 96, 128, 160, 192, 256];
        let forms = |head_dim| [Form::Joint, Form::Cached].map(|form| Self { head_dim, form });
        widths.into_iter().flat_map(forms).collect()
    }

    fn buffers(&self) -> &'static [Buffer] {
        match self.form {
            Form::Joint => &[("qkv", "read", "vec4<f32>"), ("out", "read_write", "vec4<f32>"), INFO],
            Form::Cached => &[
                ("q", "read", "vec4<f32>"),
                ("cache", "read", "vec4<f32>"),
                ("seen", "read", "i32"),
                ("out", "read_write", "vec4<f32>"),
                INFO,
            ],
        }
    }
}

/// Registers of the result: `o1_2` is the third vector of the second query.
fn sums(tiles: &Tiles) -> String {
    each_sum(tiles, |query, column| format!("    var o{query}_{column} = vec4<f32>();\n"))
}

/// Registers of the scores, a lane a query.
fn scores(tiles: &Tiles) -> String {
    each_key(tiles, |key| format!("        var s{key} = vec4<f32>();\n"))
}

/// Adds the products of one vector of queries and keys.
fn products(tiles: &Tiles) -> String {
    let mut text = String::new();
    for query in 0..LANES.len() {
        let _ = writeln!(text, "                let q{query} = pool[queries + {}u];", query * tiles.down);
    }
    for key in 0..tiles.keys_of_thread() {
        let _ = writeln!(text, "                let k{key} = pool[keys + {}u];", key * tiles.across);
    }
    text + &each_key(tiles, |key| {
        let dots = [0, 1, 2, 3].map(|query| format!("dot(q{query}, k{key})")).join(", ");
        format!("                s{key} += vec4<f32>({dots});\n")
    })
}

fn hide(tiles: &Tiles) -> String {
    each_key(tiles, |key| {
        let place = format!("block + x + {}u", key * tiles.across);
        format!("        s{key} = select(vec4<f32>(HIDDEN), s{key}, visible({place}, sight, mine));\n")
    })
}

fn maximum(tiles: &Tiles) -> String {
    each_key(tiles, |key| format!("        highest = max(highest, s{key});\n"))
}

/// Powers of the scores, into the sum of this thread and into the pool.
fn probabilities(tiles: &Tiles) -> String {
    each_key(tiles, |key| {
        let place = key * tiles.across;
        format!(
            "        let p{key} = exp2(s{key} - highest);
        total += p{key};
        pool[(x + {place}u) * DOWN + y] = p{key};\n"
        )
    })
}

fn rescale(tiles: &Tiles) -> String {
    each_sum(tiles, |query, column| format!("        o{query}_{column} *= shrink.{};\n", LANES[query]))
}

/// Adds one key's values by their probabilities.
fn weigh(tiles: &Tiles) -> String {
    let mut text = String::new();
    for column in 0..tiles.columns_of_thread() {
        let _ = writeln!(text, "                let v{column} = pool[value + {}u];", column * tiles.across);
    }
    text + &each_sum(tiles, |query, column| {
        let lane = LANES[query];
        let sum = format!("o{query}_{column}");
        format!("                {sum} = fma(vec4<f32>(p.{lane}), v{column}, {sum});\n")
    })
}

fn stores(tiles: &Tiles) -> String {
    each_sum(tiles, |query, column| {
        let (row, lane) = (query * tiles.down, LANES[query]);
        let place = column * tiles.across;
        format!("    store(first + y + {row}u, x + {place}u, head, o{query}_{column} * inverse.{lane});\n")
    })
}

/// A line for each key of a thread.
fn each_key(tiles: &Tiles, line: impl Fn(usize) -> String) -> String {
    (0..tiles.keys_of_thread()).map(line).collect()
}

/// A line for each vector of a thread's result.
fn each_sum(tiles: &Tiles, line: impl Fn(usize, usize) -> String) -> String {
    let columns = tiles.columns_of_thread();
    (0..LANES.len() * columns).map(|index| line(index / columns, index % columns)).collect()
}
