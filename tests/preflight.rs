//! What a model needs is told from headers; rows of large tables are read when they are needed.

use std::cell::RefCell;
use std::fs;

use imatch::config::{Geometry, ImageConfig, ModelConfig};
use imatch::engine::Preflight;
use imatch::error::Result;
use imatch::format::quant::{decode_f32, quantise};
use imatch::text::OverallKind;
use imatch::weights::gguf_write::Writer;
use imatch::weights::llama_cpp::write::{text_metadata, tokenizer_metadata, vision_metadata};
use imatch::weights::names::{GgufName, PATCH_EMBEDDING, POSITION_TABLE, Part, to_gguf};
use imatch::weights::source::check_range;
use imatch::weights::{ByteSource, DType, Folder, MemorySource, ModelFiles, Table, TensorInfo, layout};
use pollster::block_on;

use super::common::golden;

/// Header bytes, then as many zeros as the file has by its tensors.
#[derive(Clone)]
struct Sparse {
    header: Vec<u8>,
    len: u64,
}

impl ByteSource for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(self.len, offset, len)?;
        let mut bytes: Vec<u8> = self.header.iter().skip(offset as usize).take(len).copied().collect();
        bytes.resize(len, 0);
        Ok(bytes)
    }
}

struct Pair(Vec<String>, [Sparse; 2]);

impl ModelFiles for Pair {
    type Source = Sparse;

    fn name(&self) -> String {
        "pair".into()
    }

    fn names(&self) -> &[String] {
        &self.0
    }

    async fn open(&self, name: &str) -> Result<Sparse> {
        Ok(self.1[self.0.iter().position(|other| other == name).unwrap()].clone())
    }
}

/// Qwen3-VL-2B in its published shape: decoder in `Q4_0`, vision tower in `Q8_0`, values all zero.
fn two_billion() -> Pair {
    let folder = golden("qwen3_vl_tied");
    let json = fs::read(folder.join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let mut set = |part: &str, values: serde_json::Value| {
        json[part].as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    };
    set(
        "text_config",
        serde_json::json!({"vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "rope_parameters": {"mrope_interleaved": true, "rope_type": "default", "rope_theta": 5e6,
                "mrope_section": [24, 20, 20]}}),
    );
    set(
        "vision_config",
        serde_json::json!({"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
            "num_position_embeddings": 2304, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]}),
    );
    let config = ModelConfig::from_json(json.to_string().as_bytes()).unwrap();
    let image = fs::read(folder.join("preprocessor_config.json")).unwrap();
    let image = ImageConfig::from_json(&image, &config).unwrap();
    let image =
        ImageConfig { geometry: Geometry::Scaled { min_pixels: 65_536, max_pixels: 16_777_216 }, ..image };
    let mut text = text_metadata(&config, None, "two billion", DType::Q4_0);
    text.push(("general.license".into(), "apache-2.0".into()));
    text.extend(tokenizer_metadata(&fs::read(folder.join("tokenizer.json")).unwrap(), 151_936).unwrap());
    let vision = vision_metadata(&config, &image, "two billion", DType::Q8_0);
    let file = |part: Part, metadata: &[_]| {
        let mut infos = Vec::new();
        for (canonical, shape) in layout::expected(&config) {
            let taps = &config.vision.deepstack_visual_indexes;
            let GgufName { name, part: owner } = to_gguf(&canonical, config.family, taps).remove(0);
            let dtype = if part == Part::Text { DType::Q4_0 } else { DType::Q8_0 };
            match canonical.as_str() {
                _ if owner != part => {}
                PATCH_EMBEDDING => infos.extend(["", ".1"].map(|frame| {
                    TensorInfo::new(format!("{name}{frame}"), DType::F16, vec![1024, 3, 16, 16]).unwrap()
                })),
                POSITION_TABLE => infos.push(TensorInfo::new(name, DType::F32, shape).unwrap()),
                _ => infos.push(TensorInfo::new(name, dtype.storable(&shape), shape).unwrap()),
            }
        }
        let mut header = Vec::new();
        Writer::start(&mut header, metadata, &infos).unwrap();
        let len = header.len() as u64 + infos.iter().map(|info| info.len.next_multiple_of(32)).sum::<u64>();
        Sparse { header, len }
    };
    let files = [file(Part::Text, &text), file(Part::Vision, &vision)];
    Pair(vec!["decoder.gguf".into(), "mmproj.gguf".into()], files)
}

#[test]
fn a_model_of_two_billion_parameters_is_told_by_its_header() {
    let preflight = block_on(Preflight::of(&two_billion())).unwrap();
    assert_eq!((preflight.name.as_str(), preflight.license.as_deref()), ("two billion", Some("apache-2.0")));
    assert_eq!((preflight.quantization.as_str(), preflight.form), ("q4_0", "gguf"));
    assert_eq!(preflight.overall, OverallKind::YesNo);
    let close = |what: &str, got: f64, want: f64, within: f64| {
        assert!((got / want - 1.0).abs() < within, "{what}: {got}, expected about {want}");
    };
    // Counted on transformers' own modules, mergers left out: 722 GFLOP for the picture of 1,024 patches, 1740 in all
    // with 256 + 100 tokens, 115 for 40 more.
    close("first score", preflight.gflop.first_score, 1740.0, 0.05);
    close("question", preflight.gflop.question, 115.0, 0.03);
    // 1,409 million parameters in 4.5 bits and 407 million in 8.5; cache of 356 tokens, activations and what is in f32.
    let working = 82e6 + 67e6 + 24e6;
    for (what, bytes) in [("GPU", preflight.device_bytes.gpu), ("CPU", preflight.device_bytes.cpu)] {
        close(what, bytes as f64, 1.409e9 * 0.5625 + 0.407e9 * 1.0625 + working, 0.01);
    }
    // The widest merger, 4096 x 4096.
    assert_eq!(preflight.largest_binding_bytes, 4096 * 4096 / 32 * 34);
    assert!(preflight.host_bytes < 128 << 20, "{}", preflight.host_bytes);
    close("download", preflight.download_bytes as f64, 1.72e9 * 0.5625 + 0.407e9 * 1.0625, 0.03);
}

#[test]
fn the_preflight_of_a_folder_counts_what_lies_in_it() {
    for model in ["qwen3_vl_tied", "qwen3_vl_untied"] {
        let preflight = block_on(Preflight::of(&Folder::at(&golden(model)).unwrap())).unwrap();
        assert_eq!((preflight.form, preflight.quantization.as_str()), ("hugging_face", "f16"));
        let files = fs::read_dir(golden(model)).unwrap().map(|entry| entry.unwrap());
        let weights = files.filter(|file| file.path().extension().is_some_and(|end| end == "safetensors"));
        assert_eq!(preflight.download_bytes, weights.map(|file| file.metadata().unwrap().len()).sum::<u64>());
        assert_eq!(preflight.device_bytes.gpu, preflight.device_bytes.cpu, "f16 stays f16 on every device");
    }
}

/// A file that remembers what was asked of it.
#[derive(Default)]
struct Watched {
    bytes: Vec<u8>,
    asked: RefCell<Vec<(u64, usize)>>,
}

impl ByteSource for &'static Watched {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.asked.borrow_mut().push((offset, len));
        MemorySource(self.bytes.clone()).read(offset, len).await
    }
}

#[test]
fn rows_of_a_table_are_the_same_held_or_read_and_read_once() {
    const ROWS: usize = 4000;
    let values: Vec<f32> = (0..ROWS * 256).map(|i| ((i * 37) % 1009) as f32 / 500.0 - 1.0).collect();
    let bytes = quantise(&values, &[ROWS, 256], DType::Q8_0).unwrap();
    let mut info = TensorInfo::new("table", DType::Q8_0, vec![ROWS, 256]).unwrap();
    let whole = decode_f32(&info, &bytes).unwrap();
    info.offset = 64;
    let file: &'static Watched =
        Box::leak(Box::new(Watched { bytes: [vec![0; 64], bytes].concat(), ..Default::default() }));
    let held = block_on(Table::open(info.clone(), file, info.len)).unwrap();
    assert_eq!(file.asked.take(), [(64, info.len as usize)]);
    let ranged = block_on(Table::open(info.clone(), file, info.len - 1)).unwrap();
    assert!(file.asked.borrow().is_empty());
    let row = |id: u32| &whole[id as usize * 256..(id as usize + 1) * 256];
    for ids in [vec![3999, 7, 7, 0, 60], (0..4000).rev().collect(), vec![5, 3999], vec![]] {
        let expected: Vec<f32> = ids.iter().flat_map(|id| row(*id)).copied().collect();
        assert_eq!(block_on(held.rows(&ids)).unwrap(), expected);
        assert_eq!(block_on(ranged.rows(&ids)).unwrap(), expected);
    }
    // Rows 0 to 60 in one go and 3999 in another; then all but those; then what was kept of all.
    let asked = file.asked.take();
    assert_eq!(asked[..2], [(64, 61 * 272), (64 + 3999 * 272, 272)]);
    let read: usize = asked[2..].iter().map(|(_, len)| len).sum();
    assert!(read <= 3999 * 272 && asked.last().unwrap().1 > 1000 * 272, "{asked:?}");
    for table in [held, ranged] {
        let error = block_on(table.rows(&[0, 4000])).unwrap_err().to_string();
        assert_eq!(error, "row 4000 of tensor table, which has 4000");
    }
}
