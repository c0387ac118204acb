//! Configuration files in all their forms, and the contradictions that are refused.

use imatch::config::{Geometry, ImageConfig, ModelConfig};
use serde_json::{Value, json};

/// A small configuration in the form that transformers 4.57 writes.
fn model() -> Value {
    json!({
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 500, "video_token_id": 501,
        "vision_start_token_id": 502, "vision_end_token_id": 503,
        "tie_word_embeddings": true,
        "text_config": {
            "model_type": "qwen3_vl_text", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160,
            "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "hidden_act": "silu", "attention_bias": false, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096, "rope_theta": 5_000_000,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": true, "mrope_section": [6, 5, 5]},
        },
        "vision_config": {
            "model_type": "qwen3_vl", "depth": 6, "hidden_size": 48, "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": 112, "num_heads": 4, "in_channels": 3, "patch_size": 16,
            "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2, 4], "out_hidden_size": 64,
        },
    })
}

/// A small `preprocessor_config.json`.
fn preprocessor() -> Value {
    json!({
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "size": {"shortest_edge": 65536, "longest_edge": 16_777_216},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    })
}

/// `value` with `pointer` set, or removed where `new` is null.
fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
    let object = value.pointer_mut(parent).and_then(Value::as_object_mut).expect("the parent is an object");
    if new.is_null() {
        object.shift_remove(key);
    } else {
        object.insert(key.to_owned(), new);
    }
    value
}

fn read(value: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_json(value.to_string().as_bytes()).map_err(|error| error.to_string())
}

fn read_image(value: &Value) -> Result<ImageConfig, String> {
    let model = read(&model())?;
    ImageConfig::from_json(value.to_string().as_bytes(), &model).map_err(|error| error.to_string())
}

#[test]
fn a_configuration_is_read_number_by_number() {
    let config = read(&model()).unwrap();
    assert_eq!(config.architecture, "qwen3_vl");
    assert_eq!((config.vision.depth, config.vision.hidden_size, config.vision.num_heads), (6, 48, 4));
    assert_eq!((config.vision.intermediate_size, config.vision.num_position_embeddings), (112, 64));
    assert_eq!((config.vision.patch_size, config.vision.temporal_patch_size), (16, 2));
    assert_eq!((config.vision.spatial_merge_size, config.vision.in_channels), (2, 3));
    assert_eq!(config.vision.deepstack_visual_indexes, [1, 2, 4]);
    assert_eq!((config.text.vocab_size, config.text.hidden_size, config.text.head_dim), (512, 64, 32));
    assert_eq!((config.text.num_attention_heads, config.text.num_key_value_heads), (4, 2));
    assert_eq!((config.text.num_hidden_layers, config.text.intermediate_size), (5, 160));
    assert_eq!((config.text.rms_norm_eps, config.text.rope_theta), (1e-6, 5e6));
    assert_eq!((config.text.mrope_section, config.text.max_position_embeddings), ([6, 5, 5], 4096));
    assert!(config.text.tie_word_embeddings);
    assert_eq!((config.tokens.image, config.tokens.video), (500, Some(501)));
    assert_eq!((config.tokens.start, config.tokens.end), (Some(502), Some(503)));
}

#[test]
fn the_new_form_with_rope_parameters_says_the_same() {
    let new =
        with(with(model(), "/text_config/rope_theta", Value::Null), "/text_config/rope_scaling", Value::Null);
    let rope = json!({"rope_type": "default", "rope_theta": 5_000_000.0, "mrope_section": [6, 5, 5]});
    let new = with(new, "/text_config/rope_parameters", rope);
    let new =
        with(new, "/vision_config/rope_parameters", json!({"rope_type": "axial", "rope_theta": 10000.0}));
    let new = with(new, "/vision_config/model_type", json!("qwen3_vl_vision"));
    assert_eq!(read(&new), read(&model()));
}

#[test]
fn the_tie_flag_is_found_at_the_top_and_in_the_text_part() {
    let top = |flag: Value| with(model(), "/tie_word_embeddings", flag);
    let tied = |value: &Value| read(value).unwrap().text.tie_word_embeddings;
    assert!(!tied(&top(Value::Null)));
    assert!(!tied(&top(json!(false))));
    assert!(tied(&with(top(Value::Null), "/text_config/tie_word_embeddings", json!(true))));
    assert!(!tied(&with(top(json!(false)), "/text_config/tie_word_embeddings", json!(true))));
}

#[test]
fn any_number_of_deepstack_levels_is_read() {
    for taps in [vec![], vec![0], vec![0, 1, 2, 3, 4, 5]] {
        let config = read(&with(model(), "/vision_config/deepstack_visual_indexes", json!(taps))).unwrap();
        assert_eq!(config.vision.deepstack_visual_indexes, taps);
    }
}

#[test]
fn null_heads_and_listed_sides_are_read() {
    let all_heads = with(model(), "/text_config/num_key_value_heads", Value::Null);
    assert_eq!(read(&all_heads).unwrap().text.num_key_value_heads, 4);
    assert_eq!(read(&with(model(), "/vision_config/patch_size", json!([16, 16]))), read(&model()));
}

#[test]
fn what_a_model_writes_it_reads_back() {
    for value in [model(), with(model(), "/vision_config/deepstack_visual_indexes", json!([]))] {
        let config = read(&value).unwrap();
        assert_eq!(read(&config.to_json()), Ok(config));
    }
    let image = read_image(&preprocessor()).unwrap();
    assert_eq!(read_image(&image.to_json()), Ok(image));
}

#[test]
fn a_decoder_that_contradicts_itself_is_refused_by_name() {
    let cases: &[(&str, Value, &str)] = &[
        ("/architectures", json!(["LimeQwen3VLForConditionalGeneration"]), "architectures"),
        ("/model_type", Value::Null, "model_type is missing"),
        (
            "/model_type",
            json!("qwen2_5_vl"),
            "model_type is \"qwen2_5_vl\", only qwen3_vl or internvl or internvl_chat is supported",
        ),
        ("/text_config/model_type", json!("qwen3"), "text_config.model_type"),
        ("/vision_config/model_type", json!("siglip"), "vision_config.model_type"),
        ("/text_config", Value::Null, "text_config is missing"),
        ("/vision_config", json!([]), "vision_config is [], expected an object"),
        ("/quantization_config", json!({"quant_method": "awq"}), "quantization_config"),
        ("/image_token_id", json!(512), "image_token_id is 512, past text_config.vocab_size, which is 512"),
        ("/image_token_id", json!(-1), "image_token_id"),
        ("/vision_start_token_id", json!(500), "not distinct"),
        ("/text_config/head_dim", json!(33), "text_config.head_dim is 33, expected an even number"),
        ("/text_config/head_dim", json!(64), "mrope_section"),
        ("/text_config/head_dim", json!(1u64 << 63), "text_config.head_dim"),
        ("/text_config/num_key_value_heads", json!(3), "num_key_value_heads, which is 3"),
        ("/text_config/num_key_value_heads", json!(0), "num_key_value_heads is 0"),
        ("/text_config/num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("/text_config/num_hidden_layers", json!(1_000_000), "num_hidden_layers is 1000000"),
        ("/text_config/hidden_size", json!(0), "text_config.hidden_size is 0"),
        (
            "/text_config/hidden_size",
            json!(96),
            "vision_config.out_hidden_size is 64, but text_config.hidden_size",
        ),
        (
            "/text_config/hidden_size",
            json!("64"),
            "text_config.hidden_size is \"64\", expected a whole number",
        ),
        ("/text_config/hidden_size", json!(64.5), "text_config.hidden_size is 64.5"),
        (
            "/text_config/hidden_act",
            json!("gelu"),
            "text_config.hidden_act is \"gelu\", only silu is supported",
        ),
        ("/text_config/attention_bias", json!(true), "text_config.attention_bias is true"),
        ("/text_config/rms_norm_eps", json!(0), "text_config.rms_norm_eps is 0"),
        ("/text_config/rms_norm_eps", json!(-1e-6), "text_config.rms_norm_eps"),
        ("/text_config/rope_theta", Value::Null, "text_config.rope_theta is missing"),
        ("/text_config/rope_theta", json!(0), "text_config.rope_theta is 0"),
        ("/text_config/rope_parameters", json!({"rope_theta": 1e6}), "contradicts another rope_theta"),
        ("/text_config/rope_scaling/rope_type", json!("yarn"), "rope_scaling.rope_type is \"yarn\""),
        ("/text_config/rope_scaling/mrope_interleaved", json!(false), "mrope_interleaved is false"),
        ("/text_config/rope_scaling/mrope_section", json!([6, 5, 4]), "sum to half of head_dim, which is 32"),
        ("/text_config/rope_scaling/mrope_section", json!([8, 8]), "expected three whole numbers"),
        ("/text_config/rope_scaling/mrope_section", Value::Null, "mrope_section is [24, 20, 20]"),
        ("/text_config/partial_rotary_factor", json!(0.25), "partial_rotary_factor is 0.25"),
        ("/text_config/max_position_embeddings", json!(0), "max_position_embeddings is 0"),
        ("/text_config/vocab_size", json!(u64::MAX), "vocab_size is 18446744073709551615"),
    ];
    refused(cases);
}

#[test]
fn a_vision_tower_that_contradicts_itself_is_refused_by_name() {
    let cases: &[(&str, Value, &str)] = &[
        ("/vision_config/depth", json!(0), "vision_config.depth is 0"),
        ("/vision_config/depth", json!(4), "names block 4, but vision_config.depth is 4"),
        ("/vision_config/num_heads", json!(5), "num_heads, which is 5"),
        ("/vision_config/num_heads", json!(24), "num_heads, which is 24"),
        ("/vision_config/hidden_act", json!("gelu"), "vision_config.hidden_act"),
        ("/vision_config/in_channels", json!(1), "vision_config.in_channels is 1"),
        ("/vision_config/patch_size", json!([16, 14]), "vision_config.patch_size"),
        ("/vision_config/patch_size", json!(0), "vision_config.patch_size is 0"),
        ("/vision_config/spatial_merge_size", json!(0), "spatial_merge_size is 0"),
        ("/vision_config/num_position_embeddings", json!(63), "is 63, expected a square number"),
        ("/vision_config/deepstack_visual_indexes", json!([1, 6]), "names block 6"),
        ("/vision_config/deepstack_visual_indexes", json!([2, 1]), "expected increasing block numbers"),
        ("/vision_config/deepstack_visual_indexes", Value::Null, "deepstack_visual_indexes is missing"),
        (
            "/vision_config/rope_parameters",
            json!({"rope_theta": 1e6}),
            "vision_config.rope_parameters.rope_theta",
        ),
    ];
    refused(cases);
}

/// Each change of the small configuration must end in a sentence that holds the given words.
fn refused(cases: &[(&str, Value, &str)]) {
    for (pointer, new, expected) in cases {
        let error = read(&with(model(), pointer, new.clone())).expect_err(pointer);
        assert!(error.contains(expected), "{pointer} = {new}: {error}");
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
    }
}

#[test]
fn the_sections_default_only_where_they_fit() {
    let wide = with(model(), "/text_config/head_dim", json!(128));
    let wide = with(wide, "/text_config/rope_scaling", Value::Null);
    assert_eq!(read(&wide).unwrap().text.mrope_section, [24, 20, 20]);
}

#[test]
fn bytes_that_are_no_configuration_end_in_an_error() {
    let deep = "[".repeat(100_000);
    for bytes in ["", "null", "[]", "{", "\"x\"", "{\"model_type\": 3}", "{\"a\": 1e999}", deep.as_str()] {
        assert!(ModelConfig::from_json(bytes.as_bytes()).is_err(), "{}", &bytes[..bytes.len().min(20)]);
    }
    assert!(ModelConfig::from_json(&[0xff, 0xfe, 0x00]).is_err());
    assert!(ModelConfig::from_json(&vec![b' '; 5 << 20]).unwrap_err().to_string().contains("at most"));
}

#[test]
fn a_preprocessor_is_read_in_each_form() {
    let image = read_image(&preprocessor()).unwrap();
    let published = Geometry::Scaled { min_pixels: 65536, max_pixels: 16_777_216 };
    assert_eq!(image.geometry, published);
    assert_eq!((image.mean, image.std), ([0.5; 3], [0.5; 3]));
    assert_eq!((image.patch_size, image.temporal_patch_size, image.merge_size), (16, 2, 2));
    assert_eq!((image.resample, image.rescale_factor), (3, 1.0 / 255.0));

    let flat = with(preprocessor(), "/size", Value::Null);
    let flat = with(with(flat, "/min_pixels", json!(65536)), "/max_pixels", json!(16_777_216));
    assert_eq!(read_image(&flat), Ok(image.clone()));
    let both = with(with(preprocessor(), "/min_pixels", json!(1024)), "/max_pixels", json!(4096));
    let both = read_image(&both).unwrap();
    assert_eq!(both.geometry, Geometry::Scaled { min_pixels: 1024, max_pixels: 4096 });
    let inside = json!({"min_pixels": 65536, "max_pixels": 16_777_216});
    assert_eq!(read_image(&with(preprocessor(), "/size", inside)), Ok(image.clone()));
    assert_eq!(read_image(&json!({"image_processor": preprocessor()})), Ok(image.clone()));
    let bare = with(with(preprocessor(), "/patch_size", Value::Null), "/merge_size", Value::Null);
    assert_eq!(read_image(&bare), Ok(image));

    let stated = with(with(preprocessor(), "/resample", json!(1)), "/rescale_factor", json!(0.5));
    let stated = read_image(&with(stated, "/image_mean", json!(0.25))).unwrap();
    assert_eq!((stated.resample, stated.rescale_factor, stated.mean), (1, 0.5, [0.25; 3]));
}

#[test]
fn a_preprocessor_that_contradicts_the_model_is_refused_by_name() {
    let cases: &[(&str, Value, &str)] = &[
        ("/patch_size", json!(14), "patch_size is 14, but the model's vision_config.patch_size is 16"),
        ("/merge_size", json!(4), "merge_size is 4, but the model's vision_config.spatial_merge_size is 2"),
        ("/temporal_patch_size", json!(1), "temporal_patch_size is 1"),
        (
            "/image_processor_type",
            json!("CLIPImageProcessor"),
            "image_processor_type is \"CLIPImageProcessor\"",
        ),
        ("/do_resize", json!(false), "do_resize is false, only true is supported"),
        ("/do_normalize", json!("yes"), "do_normalize"),
        ("/size", Value::Null, "neither size.shortest_edge nor min_pixels is there"),
        (
            "/size",
            json!({"shortest_edge": 2, "longest_edge": 1}),
            "size.shortest_edge (min_pixels) is 2, above",
        ),
        ("/size", json!({"shortest_edge": 0, "longest_edge": 1}), "size.shortest_edge is 0"),
        ("/size", json!({"height": 448, "width": 448}), "neither size.shortest_edge"),
        ("/max_pixels", json!(1u64 << 40), "max_pixels is 1099511627776"),
        ("/image_mean", Value::Null, "image_mean is missing"),
        ("/image_mean", json!([0.5, 0.5]), "image_mean is [0.5,0.5], expected three numbers"),
        ("/image_std", json!([0.5, 0.0, 0.5]), "image_std"),
        ("/rescale_factor", json!(0), "rescale_factor is 0"),
        ("/resample", json!(0), "resample is 0, only 1 (Lanczos)"),
        ("/resample", json!("bicubic"), "resample is \"bicubic\""),
    ];
    for (pointer, new, expected) in cases {
        let error = read_image(&with(preprocessor(), pointer, new.clone())).expect_err(pointer);
        assert!(error.contains(expected), "{pointer} = {new}: {error}");
    }
}
