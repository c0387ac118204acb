//! Damaged model files: every reader ends in an error or a value, and holds no more memory than the file calls for.
//!
//! Each test runs a fixed number of cases from a fixed seed. For more, and others:
//!
//! ```sh
//! IMATCH_FUZZ_CASES=1000000 IMATCH_FUZZ_SEED=7 cargo test --release --test fuzz
//! ```
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use imatch::config::ModelConfig;
use imatch::data::rng::Rng;
use imatch::error::Result;
use imatch::score::ScoringOptions;
use imatch::weights::{
    Bundle, Checkpoint, Headers, Manifest, MemorySource, ModelFiles, PeftConfig, gguf, safetensors,
};
use peak_alloc::PeakAlloc;
use pollster::block_on;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted over the whole process, so one case runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Memory that a reader may hold for each byte of its file: texts and numbers are kept apart from the
/// bytes that they are read from, and lists grow by doubling.
const PER_BYTE: usize = 24;

/// Memory that a reader may hold whatever its file is: messages, first windows.
const BASE: usize = 1 << 20;

/// Values that lengths, counts, offsets and types go wrong with.
const ODD: [u64; 12] = [
    0,
    1,
    31,
    33,
    255,
    65_535,
    1 << 24,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn read(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A damaged copy: some of its first `within` bytes are changed, moved, doubled, cut off.
fn damaged(whole: &[u8], within: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=rng.below(4) {
        let within = within.min(bytes.len());
        if within == 0 {
            break;
        }
        let at = rng.below(within);
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.below(256) as u8,
            2 | 3 => {
                let odd = ODD[rng.below(ODD.len())].to_le_bytes();
                let width = [1, 4, 8][rng.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&odd[..width]);
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + rng.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = (at + 1 + rng.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// A file to damage.
struct Target<'a> {
    name: &'a str,
    whole: &'a [u8],
    /// How many of its first bytes are damaged.
    within: usize,
    /// Bytes that are read with it and are whole.
    beside: usize,
}

impl<'a> Target<'a> {
    fn new(name: &'a str, whole: &'a [u8]) -> Self {
        Self { name, whole, within: whole.len(), beside: 0 }
    }
}

/// Runs `reader` on damaged copies and watches its memory. Some have to be refused, or the damage is none.
fn fuzz(target: &Target<'_>, cases: u64, reader: impl Fn(&[u8]) -> Result<()>) {
    let Target { name: what, whole, within, beside } = *target;
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    reader(whole).unwrap_or_else(|error| panic!("{what} undamaged: {error}"));
    let seed = number("IMATCH_FUZZ_SEED", 1);
    let mut refused = 0;
    for case in 0..number("IMATCH_FUZZ_CASES", cases) {
        let mut rng = Rng::stream(seed, case);
        let bytes = damaged(whole, within, &mut rng);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let outcome = reader(&bytes);
        let held = MEMORY.peak_usage().saturating_sub(before);
        let most = BASE + PER_BYTE * (bytes.len() + beside);
        assert!(held <= most, "{what}, case {case}: {held} bytes held for a file of {}", bytes.len());
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(
                !text.is_empty() && text.len() < 4096 && !text.contains('\n'),
                "{what}, case {case}: {text}"
            );
            refused += 1;
        }
    }
    assert!(refused > 0, "{what}: nothing was refused");
}

/// Every value of a checkpoint is read: each is finite or an error.
async fn values(files: Vec<(String, MemorySource)>) -> Result<()> {
    let checkpoint = Checkpoint::open(files).await?;
    for info in checkpoint.tensors() {
        let (info, bytes) = checkpoint.read(&info.name).await?;
        assert!(imatch::format::quant::decode_f32(&info, &bytes)?.iter().all(|value| value.is_finite()));
    }
    Ok(())
}

#[test]
fn gguf_headers_and_values() {
    for (path, within) in
        [("tests/golden/weights/kquants.gguf", 1 << 20), ("tests/golden/gguf/mmproj-F16.gguf", 8 << 10)]
    {
        let whole = read(path);
        fuzz(&Target { within, ..Target::new(path, &whole) }, 3000, |bytes| {
            let source = MemorySource(bytes.to_vec());
            block_on(gguf::read_header(&source))?;
            block_on(values(vec![("file.gguf".into(), source)]))
        });
    }
}

/// A pair with one file damaged.
struct Pair(Vec<String>, [Vec<u8>; 2]);

impl ModelFiles for Pair {
    type Source = MemorySource;

    fn name(&self) -> String {
        "pair".into()
    }

    fn names(&self) -> &[String] {
        &self.0
    }

    async fn open(&self, name: &str) -> Result<MemorySource> {
        Ok(MemorySource(self.1[usize::from(name.contains("mmproj"))].clone()))
    }
}

#[test]
fn a_pair_as_a_whole() {
    let names = vec!["decoder.gguf".to_owned(), "mmproj.gguf".to_owned()];
    let [decoder, tower] =
        ["tests/golden/gguf/untied-Q4_K_M.gguf", "tests/golden/gguf/mmproj-F16.gguf"].map(read);
    let open = |files: [Vec<u8>; 2]| {
        let pair = Pair(names.clone(), files);
        block_on(Headers::read(&pair))?;
        block_on(Bundle::from_files(&pair, async |_, _| Ok(()))).map(|_| ())
    };
    let target = |name, whole, within, beside: &Vec<u8>| Target { name, whole, within, beside: beside.len() };
    fuzz(&target("decoder", &decoder, 24 << 10, &tower), 200, |bytes| open([bytes.to_vec(), tower.clone()]));
    fuzz(&target("tower", &tower, 8 << 10, &decoder), 200, |bytes| open([decoder.clone(), bytes.to_vec()]));
}

#[test]
fn safetensors_headers_values_and_indices() {
    let whole = read("tests/golden/qwen3_vl_tied/model.safetensors");
    fuzz(&Target { within: 12 << 10, ..Target::new("safetensors", &whole) }, 3000, |bytes| {
        let source = MemorySource(bytes.to_vec());
        block_on(safetensors::read_header(&source))?;
        block_on(values(vec![("model.safetensors".into(), source)]))
    });
    let index = br#"{"metadata": {"total_size": 12}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    fuzz(&Target::new("index", index), 10_000, |bytes| safetensors::shard_names(bytes).map(|_| ()));
}

#[test]
fn manifests_and_configurations() {
    let manifest = read("www/models/shapes/manifest.json");
    fuzz(&Target::new("manifest", &manifest), 10_000, |bytes| Manifest::parse(bytes).map(|_| ()));
    let config = read("tests/golden/qwen3_vl_tied/config.json");
    fuzz(&Target::new("config", &config), 10_000, |bytes| ModelConfig::from_json(bytes).map(|_| ()));
    let options = serde_json::to_vec(&ScoringOptions::default()).unwrap();
    fuzz(&Target::new("options", &options), 10_000, |bytes| ScoringOptions::from_json(bytes).map(|_| ()));
    let adapter = read("tests/golden/training/adapter/adapter_config.json");
    fuzz(&Target::new("adapter", &adapter), 10_000, |bytes| PeftConfig::from_json(bytes).map(|_| ()));
}
