//! Fixtures and comparisons that the parity tests share.

pub(crate) mod checkpoint;
pub(crate) mod lessons;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// A file or folder of `tests/golden`; one that is not there fails the test.
#[track_caller]
pub(crate) fn golden(path: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path);
    assert!(golden.exists(), "{} is missing; scripts/reference.py writes it", golden.display());
    golden
}

/// A numeric array as a fixture stores it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

/// Every array of a safetensors fixture, by name, widened to 32 bits.
#[track_caller]
pub(crate) fn arrays(path: &str) -> BTreeMap<String, Array> {
    arrays_at(&golden(path))
}

/// The same of any safetensors file.
#[track_caller]
pub(crate) fn arrays_at(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.display();
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    let widen = |dtype, bytes: &[u8]| -> Vec<f32> {
        let pairs = || bytes.as_chunks().0.iter().copied();
        match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
            Dtype::F16 => pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
            other => panic!("{path}: {other:?} is no floating-point type of fixtures"),
        }
    };
    file.iter()
        .map(|(name, view)| {
            (name.to_owned(), Array { shape: view.shape().to_vec(), data: widen(view.dtype(), view.data()) })
        })
        .collect()
}

/// How far apart two numbers may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Largest allowed difference, the same for small and large numbers.
    pub(crate) absolute: f32,
}

/// Bytes, ids, positions and what is computed from bytes by one rounded formula.
pub(crate) const EXACT: Tolerance = Tolerance { absolute: 0.0 };

/// A stage of a whole network in 32 bits on the CPU. The reference itself is up to 6e-6 away
/// from its 64-bit run (`noise` in `cases.json`), and another order of summation is as far off
/// again. The mildest mistakes tried, a wrong GELU or epsilon, are off by 1.2e-4 to 7e-4.
pub(crate) const F32_NATIVE: Tolerance = Tolerance { absolute: 1e-4 };

/// Gradients of a loss, which are a tenth as large as the stages: measured differences reach 1.6e-6.
pub(crate) const F32_GRADIENT: Tolerance = Tolerance { absolute: 1e-5 };

/// A stage on a GPU, where WGSL lets exponentials, square roots and divisions differ by
/// several units in the last place.
#[cfg(feature = "gpu")]
pub(crate) const F32_WEBGPU: Tolerance = Tolerance { absolute: 3e-4 };

/// Compares element by element; a failure names `what`, the first and the worst difference.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: Tolerance) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    assert!(!want.is_empty(), "{what}: nothing to compare");
    let mut first = None;
    let (mut worst, mut largest) = (0, 0.0_f32);
    for (index, (&g, &w)) in got.iter().zip(want).enumerate() {
        // A NaN is not within any tolerance, whichever side it is on.
        let difference = if g.is_finite() && w.is_finite() { (g - w).abs() } else { f32::INFINITY };
        if difference > tolerance.absolute {
            first.get_or_insert(index);
        }
        if difference > largest {
            (worst, largest) = (index, difference);
        }
    }
    if let Some(first) = first {
        panic!(
            "{what}: got {} where {} is expected at {first} of {}; the worst is {} for {} at {worst}, \
             {largest:e} apart where {:e} is allowed",
            got[first],
            want[first],
            want.len(),
            got[worst],
            want[worst],
            tolerance.absolute
        );
    }
    println!("{what}: {} elements, at most {largest:e} apart", want.len());
}

#[test]
#[should_panic(expected = "wrong: got 3 where 2 is expected at 1 of 3; the worst is 5 for 0 at 2, 5e0 apart")]
fn a_difference_names_the_first_and_the_worst_place() {
    assert_close("wrong", &[1.0, 3.0, 5.0], &[1.0, 2.0, 0.0], F32_NATIVE);
}

#[test]
#[should_panic(expected = "lost: got NaN where 2 is expected at 1 of 2")]
fn a_nan_is_a_difference() {
    assert_close("lost", &[1.0, f32::NAN], &[1.0, 2.0], F32_NATIVE);
}

#[test]
#[should_panic(expected = "short: number of elements")]
fn a_missing_element_is_a_difference() {
    assert_close("short", &[1.0], &[1.0, 2.0], EXACT);
}
