//! Normalised rows: one workgroup a row.

use super::rows::{INFO, bindings, grid, item, lanes};

/// `x / sqrt(mean(x²) + epsilon) * gamma`, or `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
///
/// Bindings: `x [rows, width]`, `gamma [width]`, `beta [width]` of [`Kind::Layer`], `out [rows, width]`,
/// [`info`](Self::info).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Norm {
    /// Which norm.
    pub(crate) kind: Kind,
    /// Whether the width is a multiple of four, so that rows are read and written as whole vectors.
    pub(crate) vectors: bool,
}

/// The two norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// By the root of the mean square.
    Rms,
    /// By mean and standard deviation.
    Layer,
}

impl Norm {
    /// The kernel's text.
    pub(crate) fn source(&self) -> String {
        let item = item(self.vectors);
        let mut buffers = vec![("x", "read", item), ("gamma", "read", item)];
        if self.kind == Kind::Layer {
            buffers.push(("beta", "read", item));
        }
        buffers.extend([("out", "read_write", item), INFO]);
        let (mean, shift) = match self.kind {
            Kind::Rms => ("0.0", ""),
            Kind::Layer => ("mean_of(start, width, thread)", " + beta[i]"),
        };
        let total = if self.vectors { "dot(value, vec4<f32>(1.0))" } else { "value" };
        bindings(&buffers)
            + &include_str!("norm.wgsl")
                .replace("$mean_of", if self.kind == Kind::Layer { MEAN_OF } else { "" })
                .replace("$mean", mean)
                .replace("$shift", shift)
                .replace("$total", total)
                .replace("$item", item)
                .replace("$lanes", &format!("{}.0", lanes(self.vectors)))
    }

    /// Rows, items of a row, and the bits of epsilon.
    pub(crate) fn info(&self, rows: usize, width: usize, epsilon: f32) -> Vec<u32> {
        vec![rows as u32, (width / lanes(self.vectors)) as u32, epsilon.to_bits()]
    }

    /// One workgroup a row.
    pub(crate) fn workgroups(rows: usize) -> [u32; 3] {
        grid(rows)
    }

    /// Both kinds in both forms.
    pub(crate) fn variants() -> Vec<Self> {
        let kinds = [Kind::Rms, Kind::Layer];
        kinds.into_iter().flat_map(|kind| [false, true].map(|vectors| Self { kind, vectors })).collect()
    }
}

/// The mean comes before the squares: as a difference of two means, the variance of numbers far from zero is lost.
const MEAN_OF: &str = "
fn mean_of(start: u32, width: u32, thread: u32) -> f32 {
    var sum = $item();
    for (var i = thread; i < width; i += 64u) {
        sum += x[start + i];
    }
    return sum_of_all(total(sum), thread) / (f32(width) * $lanes);
}
";
