//! Formats, names, reports, manifests: what is read, what is written, what is said.

use std::cell::RefCell;

use imatch::Result;
use imatch::config::{Family, ModelConfig};
use imatch::format::quant::{check_finite, decode_f32, quantise};
use imatch::weights::gguf::{self, Array, Value};
use imatch::weights::gguf_write::Writer;
use imatch::weights::manifest::{Hasher, model_sha256, verify};
use imatch::weights::names::{GgufName, Place};
use imatch::weights::{
    ByteSource, Checkpoint, DType, FileEntry, LoadReport, Manifest, MemorySource, Role, TensorInfo, layout,
    names, safetensors,
};
use pollster::block_on;
use serde_json::json;

const GGUF: &[u8] = include_bytes!("golden/weights/python.gguf");
const VALUES: &[u8] = include_bytes!("golden/weights/python.safetensors");

fn memory(bytes: &[u8]) -> MemorySource {
    MemorySource(bytes.to_vec())
}

fn open(files: &[&[u8]]) -> Result<Checkpoint<MemorySource>> {
    let files = files.iter().enumerate().map(|(i, bytes)| (format!("file {i}"), memory(bytes)));
    block_on(Checkpoint::open(files.collect()))
}

fn golden(name: &str) -> Vec<f32> {
    let file = block_on(safetensors::read_header(&memory(VALUES))).unwrap();
    let info = file.iter().find(|info| info.name == name).unwrap();
    let start = info.offset as usize;
    decode_f32(info, &VALUES[start..start + info.len as usize]).unwrap()
}

/// A source that remembers which ranges were read.
struct Watched(MemorySource, RefCell<Vec<(u64, usize)>>);

impl ByteSource for &Watched {
    fn len(&self) -> u64 {
        self.0.len()
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.1.borrow_mut().push((offset, len));
        self.0.read(offset, len).await
    }
}

#[test]
fn a_file_of_the_gguf_package_is_read_to_the_bit() {
    let header = block_on(gguf::read_header(&memory(GGUF))).unwrap();
    for info in &header.tensors {
        let start = info.offset as usize;
        let values = decode_f32(info, &GGUF[start..start + info.len as usize]).unwrap();
        let expected = golden(&info.name);
        assert!(values.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits())), "{}", info.name);
    }
    let names: Vec<&str> = header.tensors.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["f32", "f16", "bf16", "q8_0", "q4_0", "random_q8_0", "random_q4_0"]);
    assert!(header.tensors[..5].iter().all(|info| info.shape == [4, 64]));
    assert!(header.tensors[5..].iter().all(|info| info.shape == [3, 64]));
}

#[test]
fn metadata_keeps_its_types() {
    let header = block_on(gguf::read_header(&memory(GGUF))).unwrap();
    let strings = ["a", "", "Ġb"].map(str::to_owned).to_vec();
    let expected = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60000)),
        ("i16", Value::I16(-30000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("u64", Value::U64(1 << 63)),
        ("i64", Value::I64(-(1 << 62))),
        ("f32", Value::F32(0.5)),
        ("f64", Value::F64(0.1)),
        ("bool", Value::Bool(true)),
        ("string", Value::from("grün")),
        ("bools", Value::Array(Array::Bool(vec![true, false, true]))),
        ("strings", Value::Array(Array::String(strings))),
        ("ints", Value::Array(Array::I32(vec![1, -2, 3]))),
    ];
    for (key, value) in expected {
        assert_eq!(header.metadata[&format!("test.{key}")], value, "{key}");
    }
}

#[test]
fn quantising_gives_the_bytes_that_ggml_gives() {
    let header = block_on(gguf::read_header(&memory(GGUF))).unwrap();
    let values = golden("values");
    for info in &header.tensors[..5] {
        let bytes = quantise(&values, &info.shape, info.dtype).unwrap();
        let start = info.offset as usize;
        assert_eq!(bytes, GGUF[start..start + info.len as usize], "{}", info.name);
    }
}

#[test]
fn values_that_are_not_finite_are_refused_on_both_ways() {
    let info = |dtype| TensorInfo::new("x", dtype, vec![1, 32]).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 32];
            values[7] = bad;
            assert!(quantise(&values, &[1, 32], dtype).is_err(), "{dtype} {bad}");
        }
        let mut bytes = quantise(&[1.0; 32], &[1, 32], dtype).unwrap();
        let scale = dtype.block_bytes().min(4) - if dtype.is_quantised() { 3 } else { 1 };
        bytes[scale] = 0x7f;
        bytes[scale - 1] = 0xff;
        assert!(check_finite(&info(dtype), &bytes).is_err(), "{dtype}");
        assert!(decode_f32(&info(dtype), &bytes).is_err(), "{dtype}");
    }
    let error = quantise(&[1e30; 32], &[1, 32], DType::F16).unwrap_err().to_string();
    assert_eq!(error, "a value is not finite as f16");
}

#[test]
fn rows_that_do_not_fill_blocks_become_half_precision() {
    assert_eq!(DType::Q8_0.storable(&[8, 48]), DType::F16);
    assert_eq!(DType::Q4_0.storable(&[8, 64]), DType::Q4_0);
    assert_eq!(DType::Q4_0.storable(&[64]), DType::F32);
    assert_eq!(DType::BF16.storable(&[8, 48]), DType::BF16);
    assert!(quantise(&[0.0; 96], &[2, 48], DType::Q8_0).is_err());
    assert!(quantise(&[0.0; 96], &[3, 64], DType::Q8_0).is_err());
}

#[test]
fn what_is_written_as_gguf_is_read_back() {
    let tensors = [
        TensorInfo::new("a", DType::F32, vec![3]).unwrap(),
        TensorInfo::new("b", DType::Q8_0, vec![2, 32]).unwrap(),
        TensorInfo::new("c", DType::F16, vec![2, 3, 1, 1]).unwrap(),
    ];
    let metadata = block_on(gguf::read_header(&memory(GGUF))).unwrap().metadata;
    let list: Vec<_> = metadata.clone().into_iter().collect();
    let mut writer = Writer::start(Vec::new(), &list, &tensors).unwrap();
    for tensor in &tensors {
        let bytes = vec![tensor.name.as_bytes()[0]; tensor.len as usize];
        let (first, second) = bytes.split_at(5);
        writer.write(first).unwrap();
        writer.write(second).unwrap();
    }
    assert!(writer.write(&[0]).is_err());
    let file = writer.finish().unwrap();
    let header = block_on(gguf::read_header(&memory(&file))).unwrap();
    assert_eq!(header.metadata, metadata);
    for (got, wanted) in header.tensors.iter().zip(&tensors) {
        assert_eq!((&got.name, got.dtype, &got.shape), (&wanted.name, wanted.dtype, &wanted.shape));
        let bytes = &file[got.offset as usize..(got.offset + got.len) as usize];
        assert!(bytes.iter().all(|byte| *byte == got.name.as_bytes()[0]) && got.offset % 32 == 0);
    }
    let unfinished = Writer::start(Vec::new(), &[], &tensors).unwrap();
    assert!(unfinished.finish().is_err());
}

#[test]
fn names_go_to_both_formats_and_back() {
    let config = tiny(&[1, 4], false);
    let taps = &config.vision.deepstack_visual_indexes;
    let mut seen = std::collections::HashSet::new();
    for (name, _) in layout::expected(&config) {
        let place = Place { name: name.clone(), piece: 0 };
        assert_eq!(names::from_hf(&names::to_hf(&name)), Some(place.clone()));
        let [stored] = <[GgufName; 1]>::try_from(names::to_gguf(&name, Family::Qwen3Vl, taps)).unwrap();
        assert_eq!(names::from_gguf(&stored.name, taps), Some(place));
        assert!(seen.insert(stored.name));
    }
    let named = |name: &str| names::to_gguf(name, Family::Qwen3Vl, taps).pop().map(|stored| stored.name);
    assert_eq!(
        named("visual.deepstack_merger_list.1.linear_fc2.bias").as_deref(),
        Some("v.deepstack.4.fc2.bias")
    );
    assert_eq!(named("visual.merger.linear_fc2.weight").as_deref(), Some("mm.2.weight"));
    assert_eq!(
        named("language_model.layers.27.mlp.down_proj.weight").as_deref(),
        Some("blk.27.ffn_down.weight")
    );
    let second = Place { name: names::PATCH_EMBEDDING.to_owned(), piece: 1 };
    assert_eq!(names::from_gguf("v.patch_embd.weight.1", taps), Some(second));
    for other in
        ["blk.01.attn_q.weight", "blk..attn_q.weight", "blk.-1.attn_q.weight", "v.deepstack.2.fc1.bias", "x"]
    {
        assert_eq!(names::from_gguf(other, taps), None, "{other}");
    }
    assert_eq!(names::from_hf("mtp.layers.0.weight"), None);
}

#[test]
fn the_layout_has_the_published_number_of_parameters() {
    let mut config = tiny(&[5, 11, 17], true);
    let vision = &mut config.vision;
    (vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads) = (24, 1024, 4096, 16);
    (vision.num_position_embeddings, vision.out_hidden_size) = (2304, 2048);
    let text = &mut config.text;
    (text.vocab_size, text.hidden_size, text.intermediate_size) = (151_936, 2048, 6144);
    (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) = (28, 16, 8);
    text.head_dim = 128;
    let count: usize =
        layout::expected(&config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    // Qwen3-VL-2B as transformers builds it.
    assert_eq!(count, 2_127_532_032);
}

#[test]
fn rows_are_read_alone_and_in_the_order_asked_for() {
    let values: Vec<f32> = (0..1000 * 64).map(|i| i as f32).collect();
    let file =
        safetensors::write_f32([(names::to_hf(names::EMBEDDING), vec![1000, 64], &values[..])]).unwrap();
    let watched = Watched(memory(&file), RefCell::default());
    let checkpoint = block_on(Checkpoint::open(vec![("model.safetensors".to_owned(), &watched)])).unwrap();
    watched.1.borrow_mut().clear();
    let rows = block_on(checkpoint.rows(names::EMBEDDING, &[999, 3, 3, 4])).unwrap();
    let expected: Vec<f32> =
        [999, 3, 3, 4].iter().flat_map(|row| &values[row * 64..(row + 1) * 64]).copied().collect();
    assert_eq!(rows, expected);
    assert_eq!(watched.1.borrow().iter().map(|(_, len)| *len).collect::<Vec<_>>(), [512, 256]);
    assert!(block_on(checkpoint.rows(names::EMBEDDING, &[])).unwrap().is_empty());
    let error = block_on(checkpoint.rows(names::EMBEDDING, &[1000])).unwrap_err().to_string();
    assert_eq!(
        error,
        "model.safetensors: row 1000 of tensor language_model.embed_tokens.weight, which has 1000"
    );
}

#[test]
fn a_quantised_row_is_the_row_of_the_quantised_table() {
    let values = golden("values");
    let info = TensorInfo::new("token_embd.weight", DType::Q4_0, vec![4, 64]).unwrap();
    let mut writer = Writer::start(Vec::new(), &[], std::slice::from_ref(&info)).unwrap();
    writer.write(&quantise(&values, &[4, 64], DType::Q4_0).unwrap()).unwrap();
    let checkpoint = open(&[&writer.finish().unwrap()]).unwrap();
    let whole = golden("q4_0");
    assert_eq!(block_on(checkpoint.rows(names::EMBEDDING, &[2])).unwrap(), whole[128..192]);
}

#[test]
fn a_checkpoint_of_shards_is_one_set_of_names() {
    let one =
        safetensors::write_f32([("model.language_model.norm.weight".to_owned(), vec![2], &[1.0, 2.0][..])]);
    let two = safetensors::write_f32([("lm_head.weight".to_owned(), vec![1, 2], &[3.0, 4.0][..])]);
    let (one, two) = (one.unwrap(), two.unwrap());
    let checkpoint = open(&[&one, &two]).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["language_model.norm.weight", "lm_head.weight"]);
    assert_eq!(block_on(checkpoint.read("lm_head.weight")).unwrap().0.shape, [1, 2]);
    let error = open(&[&one, &two, &two]).unwrap_err().to_string();
    assert_eq!(error, "tensor lm_head.weight is in file 1 and again in file 2");

    let index = json!({"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}});
    assert_eq!(
        safetensors::shard_names(index.to_string().as_bytes()).unwrap(),
        ["1.safetensors", "2.safetensors"]
    );
    for bad in ["../x", "/x", "a/b", "", "..", "C:x", "a\\b"] {
        assert!(
            safetensors::shard_names(json!({"weight_map": {"a": bad}}).to_string().as_bytes()).is_err(),
            "{bad}"
        );
    }
    assert!(safetensors::shard_names(b"{}").is_err());
}

#[test]
fn a_report_names_what_is_wrong_and_what_was_meant() {
    let expected = [
        ("visual.merger.norm.weight", vec![4]),
        ("lm_head.weight", vec![2, 4]),
        ("language_model.norm.weight", vec![4]),
    ];
    let expected = expected.map(|(name, shape)| (name.to_owned(), shape));
    let found = [
        ("visual.merger.nrom.weight", vec![4]),
        ("lm_head.weight", vec![4, 2]),
        ("language_model.norm.weight", vec![4]),
    ];
    let found = found.map(|(name, shape)| TensorInfo::new(name, DType::F32, shape).unwrap());
    let report = LoadReport::compare(&expected, &found);
    let sentence = "1 tensors applied, 1 missing (visual.merger.norm.weight, did you mean visual.merger.nrom.weight?), \
                    1 of another shape (lm_head.weight is [4, 2], expected [2, 4]), 1 unused (visual.merger.nrom.weight)";
    assert_eq!(report.to_string(), sentence);
    assert_eq!(report.complete().unwrap_err().to_string(), sentence);
    assert!(LoadReport::compare(&expected[2..], &found[2..]).complete().is_ok());
}

fn manifest() -> serde_json::Value {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let file = |path: &str, role: &str| json!({"path": path, "role": role, "bytes": 3, "sha256": digest});
    json!({
        "format": "imatch", "version": 1, "name": "shapes", "architecture": "qwen3_vl", "quantization": "q8_0",
        "config": {"model_type": "qwen3_vl"}, "preprocessor": {},
        "files": [file("model.gguf", "text"), file("sub/mmproj.gguf", "vision"), file("tokenizer.json", "tokenizer")],
    })
}

fn parsed(value: &serde_json::Value) -> Result<Manifest> {
    Manifest::parse(value.to_string().as_bytes())
}

#[test]
fn a_manifest_is_read_checked_and_written() {
    let manifest = parsed(&manifest()).unwrap();
    assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
    assert_eq!(
        manifest.files_of(Role::Vision).map(|file| file.path.as_str()).collect::<Vec<_>>(),
        ["sub/mmproj.gguf"]
    );
    let file = &manifest.files[0];
    assert!(verify(b"abc", file).is_ok());
    let error = verify(b"abd", file).unwrap_err();
    assert_eq!(error.code(), "integrity");
    assert!(error.to_string().starts_with("model.gguf has SHA-256 a52d"), "{error}");
    let error = verify(b"ab", file).unwrap_err().to_string();
    assert_eq!(error, "model.gguf has 2 bytes, expected 3");
    let mut hasher = Hasher::default();
    hasher.update(b"a");
    hasher.update(b"bc");
    assert!(hasher.verify(file).is_ok());
}

#[test]
fn the_digest_of_a_model_depends_on_names_and_contents_not_on_order() {
    let digest = model_sha256([("b", "1"), ("a", "2")]);
    assert_eq!(digest, model_sha256([("a", "2"), ("b", "1")]));
    assert_ne!(digest, model_sha256([("a", "1"), ("b", "2")]));
    // printf '2  a\n1  b\n' | sha256sum
    assert_eq!(digest, "059ce8eb9e49fe905c0bf0eb8a7208c9848438606b7b75ddd328275779120041");
}

#[test]
fn a_manifest_that_reaches_outside_or_promises_nonsense_is_refused() {
    let with = |pointer: &str, new: serde_json::Value| {
        let mut value = manifest();
        *value.pointer_mut(pointer).unwrap() = new;
        parsed(&value)
    };
    let long = "a".repeat(300);
    for path in
        ["../x", "/etc/x", "a/../b", "a//b", "", ".", "a\\b", "http://x/y", "a\0b", "x?y", "%2e%2e/x", &long]
    {
        assert!(with("/files/0/path", json!(path)).is_err(), "{path}");
    }
    for digest in ["", "ba78", &"g".repeat(64), &"A".repeat(64)] {
        assert!(with("/files/0/sha256", json!(digest)).is_err(), "{digest}");
    }
    assert!(with("/files/0/bytes", json!(u64::MAX)).is_err());
    assert!(with("/files/0/bytes", json!(-1)).is_err());
    assert!(with("/files/0/role", json!("weights")).is_err());
    assert!(with("/files/1/path", json!("model.gguf")).is_err());
    assert!(with("/files/1/role", json!("text")).unwrap_err().to_string().contains("no file of role vision"));
    assert!(with("/files/1/role", json!("tokenizer")).is_err());
    assert!(with("/version", json!(2)).unwrap_err().to_string().contains("version is not 1"));
    assert!(with("/format", json!("gguf")).is_err());
    assert!(with("/config", json!([])).is_err());
    assert!(Manifest::parse(b"").is_err());
    assert!(Manifest::parse(&vec![b' '; 9 << 20]).is_err());
}

#[test]
fn an_entry_serialises_as_the_contract_says() {
    let entry = FileEntry { path: "a".into(), role: Role::Vision, bytes: 1, sha256: "0".repeat(64) };
    let expected = json!({"path": "a", "role": "vision", "bytes": 1, "sha256": "0".repeat(64)});
    assert_eq!(serde_json::to_value(entry).unwrap(), expected);
}

/// A small configuration with the given taps.
pub(crate) fn tiny(taps: &[usize], tied: bool) -> ModelConfig {
    let value = json!({
        "model_type": "qwen3_vl", "image_token_id": 4, "video_token_id": 5,
        "vision_start_token_id": 2, "vision_end_token_id": 3, "tie_word_embeddings": tied,
        "text_config": {
            "vocab_size": 12, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512, "rope_theta": 10000.0, "rope_scaling": {"mrope_section": [2, 1, 1]},
        },
        "vision_config": {
            "depth": 24, "hidden_size": 48, "intermediate_size": 64, "num_heads": 4, "patch_size": 16,
            "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 16,
            "deepstack_visual_indexes": taps, "out_hidden_size": 64,
        },
    });
    ModelConfig::from_json(value.to_string().as_bytes()).unwrap()
}
