//! Damaged and malicious weight files: an error or finite numbers, never a panic, and never
//! more memory than a file of that size calls for.

use std::cell::Cell;

use imatch::Result;
use imatch::error::Kind;
use imatch::format::quant::decode_f32;
use imatch::weights::{ByteSource, Checkpoint, MemorySource, safetensors};
use pollster::block_on;

const GGUF: &[u8] = include_bytes!("golden/weights/python.gguf");
const SAFETENSORS: &[u8] = include_bytes!("golden/weights/python.safetensors");

/// Opens a file and reads all there is; every value must be finite.
fn read_all(bytes: &[u8]) -> Result<usize> {
    block_on(async {
        let checkpoint = Checkpoint::open(vec![("file".to_owned(), MemorySource(bytes.to_vec()))]).await?;
        let names: Vec<String> = checkpoint.tensors().map(|info| info.name.clone()).collect();
        for name in &names {
            let (info, bytes) = checkpoint.read(name).await?;
            assert!(decode_f32(&info, &bytes)?.iter().all(|value| value.is_finite()));
        }
        Ok(names.len())
    })
}

/// A number that looks random, the same in every run (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn whole_files_are_read() {
    assert_eq!(read_all(GGUF).unwrap(), 7);
    assert_eq!(read_all(SAFETENSORS).unwrap(), 8);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    // Both files end with values, not with padding that nobody misses.
    let last = GGUF.len() - GGUF.iter().rev().take_while(|byte| **byte == 0).count();
    for end in 0..last {
        assert!(read_all(&GGUF[..end]).is_err(), "GGUF cut at {end}");
    }
    for end in 0..SAFETENSORS.len() {
        assert!(read_all(&SAFETENSORS[..end]).is_err(), "safetensors cut at {end}");
    }
    let longer = [SAFETENSORS, b"x"].concat();
    assert!(read_all(&longer).unwrap_err().to_string().contains("expected 8224"));
}

#[test]
fn damaged_bytes_end_in_an_error_or_in_finite_numbers() {
    let mut state = 7;
    let mut errors = [0, 0];
    for (which, original) in [GGUF, SAFETENSORS].into_iter().enumerate() {
        for case in 0..4000 {
            let mut bytes = original.to_vec();
            // Half of the cases hit the header, where the sizes are.
            let span = if case % 2 == 0 { 900 } else { bytes.len() };
            for _ in 0..=random(&mut state) % 3 {
                let at = random(&mut state) as usize % span;
                bytes[at] = random(&mut state) as u8;
            }
            errors[which] += usize::from(read_all(&bytes).is_err());
        }
    }
    assert!(errors.iter().all(|count| (500..4000).contains(count)), "{errors:?}");
}

/// The start of a GGUF file: magic, version, counts.
fn head(n_tensors: u64, n_entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_entries.to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A metadata entry of type `id` whose value is `value`.
fn entry(key: &str, id: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &id.to_le_bytes()[..], value].concat()
}

/// A tensor's description; sizes innermost first.
fn tensor(name: &str, sizes: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((sizes.len() as u32).to_le_bytes());
    bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// The parts with plenty of zeros behind them for data.
fn file(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn absurd_gguf_headers_are_refused_with_a_reason() {
    let array = |id: u32, len: u64| [&id.to_le_bytes()[..], &len.to_le_bytes()].concat();
    let alignment = |value: u32| entry("general.alignment", 4, &value.to_le_bytes());
    let one = |sizes: &[u64], id, offset| file(&[&head(1, 0), &tensor("a", sizes, id, offset)]);
    let two = |second: &str, offset| {
        file(&[&head(2, 0), &tensor("a", &[32], 0, 0), &tensor(second, &[32], 0, offset)])
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (file(&[b"GGUF\x02\0\0\0"]), "GGUF version 2, only version 3 is read"),
        (file(&[b"GGUF\0\0\0\x03"]), "GGUF version 50331648"),
        (file(&[&head(u64::MAX, 0)]), "18446744073709551615 tensors, expected at most 65536"),
        (file(&[&head(0, u64::MAX)]), "18446744073709551615 metadata entries"),
        (file(&[&head(65536, 0)]), "tensor  has 0 dimensions"),
        (file(&[&head(0, 1), &u64::MAX.to_le_bytes()]), "18446744073709551615 bytes of text"),
        (file(&[&head(0, 1), &entry("k", 8, &(u64::MAX - 7).to_le_bytes())]), "bytes of text"),
        (file(&[&head(0, 1), &entry("k", 8, &(30u64 << 20).to_le_bytes())]), "31457280 bytes of header"),
        (
            file(&[&head(0, 1), &entry("k", 9, &array(12, u64::MAX))]),
            "18446744073709551615 values in an array",
        ),
        (file(&[&head(0, 1), &entry("k", 9, &array(12, 1 << 24))]), "134217728 bytes of header"),
        (file(&[&head(0, 1), &entry("k", 9, &array(8, 1 << 24))]), "leave the file"),
        (file(&[&head(0, 1), &entry("k", 9, &array(9, 1))]), "unknown type 9"),
        (file(&[&head(0, 1), &entry("k", 77, &[])]), "metadata key k holds values of the unknown type 77"),
        (file(&[&head(0, 1), &entry("k", 7, &[2])]), "holds 2, expected a flag"),
        (file(&[&head(0, 1), &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]]), "not UTF-8"),
        (file(&[&head(0, 2), &entry("k", 7, &[1]), &entry("k", 7, &[1])]), "metadata key k comes twice"),
        (file(&[&head(0, 1), &alignment(0)]), "general.alignment is 0"),
        (file(&[&head(0, 1), &alignment(48)]), "general.alignment is 48"),
        (file(&[&head(0, 1), &alignment(1 << 31)]), "general.alignment is 2147483648"),
        (
            file(&[&head(0, 1), &entry("general.alignment", 8, &text("32"))]),
            "general.alignment is no whole number",
        ),
        (one(&[], 0, 0), "has 0 dimensions"),
        (one(&[1; 5], 0, 0), "has 5 dimensions"),
        (one(&[0, 2], 0, 0), "absurd size"),
        (one(&[u64::MAX, u64::MAX], 0, 0), "cannot be f32 of shape"),
        (one(&[1 << 62, 2], 0, 0), "cannot be f32 of shape"),
        (one(&[1 << 40], 0, 0), "leaves the file"),
        (one(&[33], 8, 0), "cannot be q8_0 of shape [33]"),
        (one(&[32], 0, u64::MAX - 31), "leaves the file"),
        (one(&[32], 0, 1 << 40), "leaves the file"),
        (one(&[32], 0, 8), "lies at 8, which is not a multiple of 32"),
        (
            one(&[256], 10, 0),
            "tensor a is of type Q2_K (10), only F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K are read",
        ),
        (one(&[256], 4_000_000_000, 0), "of type unknown (4000000000)"),
        (two("b", 96), "tensors a and b overlap"),
        (two("a", 128), "tensor a comes twice"),
    ];
    for (bytes, expected) in cases {
        let error = read_all(&bytes).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}, expected {expected}");
        assert!(matches!(error.kind(), Kind::Model | Kind::Unsupported), "{error}");
    }
    assert_eq!(read_all(&two("b", 128)).unwrap(), 2);
}

/// A safetensors file with this header and `data` bytes of zeros.
fn safe(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_header_beyond_the_limit_says_so_and_not_that_the_file_is_short() {
    let text = |key: &str| [entry(key, 8, &(30u64 << 20).to_le_bytes()), vec![b' '; 30 << 20]].concat();
    let bytes = file(&[&head(0, 3), &text("a"), &text("b"), &text("c")]);
    let error = read_all(&bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Model);
    assert!(error.to_string().ends_with("a GGUF header of more than 67108864 bytes"), "{error}");
}

#[test]
fn what_is_called_gguf_and_is_text_is_told_by_its_start() {
    for (bytes, start) in
        [(b"version https://git-lfs".as_slice(), "vers"), (b"<!doctype html>", "<!do"), (b"", "")]
    {
        let files = vec![("model.GGUF".to_owned(), MemorySource(bytes.to_vec()))];
        let error = block_on(Checkpoint::open(files)).unwrap_err().to_string();
        let expected = format!(
            "model.GGUF: {} bytes that begin with \"{start}\", expected a GGUF file, which begins with \"GGUF\"",
            bytes.len()
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn absurd_safetensors_headers_are_refused_with_a_reason() {
    let entry = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |shape: &str, offsets: &str| safe(&format!("{{{}}}", entry("a", "F32", shape, offsets)), 8);
    let a = entry("a", "F32", "[2]", "[0,8]");
    let deep = format!(r#"{{"__metadata__":{}"#, "[".repeat(10_000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "a safetensors file of 0 bytes"),
        (vec![0xff; 64], "a safetensors header of 18446744073709551615 bytes"),
        (safe("", 0), "malformed"),
        (safe("[]", 0), "malformed"),
        (safe("{", 0), "malformed"),
        (safe(&deep, 0), "malformed"),
        (safe(&format!("{{{a},{a}}}"), 8), "a comes twice"),
        (safe(&format!("{{{a},{}}}", entry("b", "F32", "[1]", "[4,8]")), 8), "tensors a and b overlap"),
        (safe(&format!("{{{a}}}"), 12), "expected"),
        (safe(&format!("{{{}}}", entry("b", "F32", "[1]", "[4,8]")), 8), "a safetensors file of"),
        (
            safe(&format!("{{{}}}", entry("a", "I64", "[1]", "[0,8]")), 8),
            "tensor a is I64, expected F32, F16 or BF16",
        ),
        (one("[2]", "[0,7]"), "cannot lie at 0..7"),
        (one("[2]", "[8,0]"), "cannot lie at 8..0"),
        (one("[3]", "[0,12]"), "cannot lie at 0..12"),
        (one("[2]", "[18446744073709551600,18446744073709551608]"), "cannot lie"),
        (one("[18446744073709551615,2]", "[0,8]"), "cannot lie"),
        (one("[4294967296,4294967296,2]", "[0,8]"), "cannot lie"),
        (one("[1,1,1,1,1,1,1,1,2]", "[0,8]"), "9 dimensions"),
        (one("[-2]", "[0,8]"), "malformed"),
        (one("[2.0]", "[0,8]"), "malformed"),
        (one("[2]", "[0]"), "malformed"),
    ];
    for (bytes, expected) in cases {
        let error = read_all(&bytes).expect_err(expected);
        let sentence = error.to_string();
        assert!(sentence.contains(expected) && !sentence.contains('\n'), "{sentence}, expected {expected}");
        assert!(matches!(error.kind(), Kind::Model | Kind::Unsupported), "{sentence}");
    }
}

/// A file that says it is enormous and has zeros behind its first bytes.
struct Enormous {
    start: Vec<u8>,
    largest_read: Cell<usize>,
}

impl ByteSource for &Enormous {
    fn len(&self) -> u64 {
        u64::MAX / 2
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.largest_read.set(self.largest_read.get().max(len));
        let mut bytes = self.start.get(offset as usize..).unwrap_or_default().to_vec();
        bytes.resize(len, 0);
        Ok(bytes)
    }
}

#[test]
fn headers_of_enormous_files_take_a_bounded_amount_of_memory() {
    let huge = |bytes: u64| entry("k", 8, &bytes.to_le_bytes());
    let starts = [
        [head(1, 0), tensor("a", &[1 << 40], 0, 0)].concat(),
        [head(0, 3), huge(31 << 20), vec![0; 31 << 20], huge(31 << 20)].concat(),
        vec![0xff; 16],
        (40u64 << 20).to_le_bytes().to_vec(),
        (31u64 << 20).to_le_bytes().to_vec(),
    ];
    for start in starts {
        let source = Enormous { start, largest_read: Cell::new(0) };
        let opened = block_on(Checkpoint::open(vec![("file".to_owned(), &source)]));
        assert!(source.largest_read.get() <= 64 << 20, "{} bytes at once", source.largest_read.get());
        drop(opened);
    }
}

#[test]
fn bytes_that_are_not_finite_do_not_leave_a_checkpoint() {
    let mut bytes = [head(1, 0), tensor("blk.0.attn_q.weight", &[32, 1], 8, 0)].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + 34, 0);
    let scale = bytes.len() - 34;
    let read = |bytes: Vec<u8>| {
        let opened = block_on(Checkpoint::open(vec![("file".to_owned(), MemorySource(bytes))])).unwrap();
        block_on(opened.read("language_model.layers.0.self_attn.q_proj.weight"))
    };
    assert!(read(bytes.clone()).is_ok());
    bytes[scale + 1] = 0x7c;
    let error = read(bytes).unwrap_err().to_string();
    assert_eq!(error, "file: tensor blk.0.attn_q.weight holds a value that is not finite");
}

#[test]
fn frames_of_a_patch_embedding_that_do_not_belong_together_are_refused() {
    let frame = |name: &str, sizes: &[u64], offset| tensor(name, sizes, 0, offset);
    let (first, second) = ("v.patch_embd.weight", "v.patch_embd.weight.1");
    let sizes = [2, 2, 3, 2];
    let same = file(&[&head(2, 0), &frame(first, &sizes, 0), &frame(second, &sizes, 96)]);
    assert_eq!(read_all(&same).unwrap(), 1);
    let other = file(&[&head(2, 0), &frame(first, &sizes, 0), &frame(second, &[2, 2, 3, 1], 96)]);
    assert!(read_all(&other).unwrap_err().to_string().contains("the same for each frame"));
    let alone = file(&[&head(1, 0), &frame(second, &sizes, 0)]);
    assert!(read_all(&alone).unwrap_err().to_string().contains("a frame of v.patch_embd.weight is missing"));
    let flat = file(&[&head(1, 0), &frame(first, &[24], 0)]);
    assert!(read_all(&flat).unwrap_err().to_string().contains("expected 4 dimensions"));
}

#[test]
fn an_index_of_shards_is_read_whatever_it_holds() {
    let mut state = 3;
    for _ in 0..500 {
        let len = random(&mut state) % 64;
        let bytes: Vec<u8> = (0..len).map(|_| random(&mut state) as u8).collect();
        assert!(safetensors::shard_names(&bytes).is_err());
    }
}
