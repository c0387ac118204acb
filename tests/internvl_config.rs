//! `InternVL`'s configurations in both forms, and what is refused in them.

use std::fs;

use imatch::Result;
use imatch::config::{Family, Geometry, ImageConfig, ModelConfig, Tiles};
use imatch::weights::{ModelFacts, layout};
use pollster::block_on;
use serde_json::{Value, json};

use crate::common::golden;

pub(crate) fn json_of(path: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(path)).unwrap()).unwrap()
}

/// `value` with `pointer` set, or removed where `new` is null.
pub(crate) fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let object = value.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
    if new.is_null() {
        object.shift_remove(key)
    } else {
        object.insert(key.to_owned(), new)
    };
    value
}

/// The configuration where the tokenizer knows `<IMG_CONTEXT>` as 496.
pub(crate) fn read(value: &Value) -> Result<ModelConfig> {
    ModelConfig::with_added_tokens(value.to_string().as_bytes(), |token| {
        Ok((token == "<IMG_CONTEXT>").then_some(496))
    })
}

pub(crate) fn read_image(value: &Value, model: &ModelConfig) -> Result<ImageConfig> {
    ImageConfig::from_json(value.to_string().as_bytes(), model)
}

fn facts(folder: &str) -> ModelFacts {
    block_on(ModelFacts::open(&golden(folder))).unwrap()
}

#[test]
fn configurations_are_read_number_by_number() {
    let config = read(&json_of("internvl_qwen2/config.json")).unwrap();
    assert_eq!((config.family, config.architecture.as_str()), (Family::InternVl, "internvl"));
    let vision = &config.vision;
    assert_eq!((vision.depth, vision.hidden_size, vision.num_heads), (3, 32, 2));
    assert_eq!((vision.intermediate_size, vision.patch_size, vision.temporal_patch_size), (72, 4, 1));
    assert_eq!((vision.spatial_merge_size, vision.num_position_embeddings), (2, 37));
    assert_eq!((vision.out_hidden_size, vision.attention_bias, vision.layer_norm_eps), (48, true, 1e-6));
    let text = &config.text;
    assert_eq!((text.vocab_size, text.hidden_size, text.head_dim), (512, 48, 8));
    assert_eq!((text.attention_bias, text.qk_norm), (true, false));
    assert_eq!((text.rope_theta, text.mrope_section, text.max_position_embeddings), (1e6, [4, 0, 0], 4096));
    assert_eq!((config.tokens.image, config.tokens.start), (496, None));

    let config = read(&json_of("internvl_qwen3/config.json")).unwrap();
    assert_eq!((config.vision.attention_bias, config.vision.layer_norm_eps), (false, 1e-4));
    let text = &config.text;
    assert_eq!((text.attention_bias, text.qk_norm, text.head_dim), (false, true, 16));
    assert_eq!((text.rope_theta, text.mrope_section), (1e4, [8, 0, 0]));
    assert!(text.tie_word_embeddings);
}

/// `config.json` of `InternVL3-1B` as its original repository has it, without what is read by nobody.
fn published() -> Value {
    json!({
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
        "dynamic_image_size": true, "force_image_size": 448, "hidden_size": 896, "max_dynamic_patch": 12,
        "min_dynamic_patch": 1, "pad2square": false, "ps_version": "v2", "select_layer": -1,
        "template": "internvl2_5", "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": true,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 896,
            "intermediate_size": 4864, "layer_types": vec!["full_attention"; 24],
            "max_position_embeddings": 32768, "max_window_layers": 70, "model_type": "qwen2",
            "moe_config": null, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6, "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1_000_000.0, "sliding_window": null, "use_sliding_window": false,
            "vocab_size": 151_674,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"], "attention_dropout": 0.0, "drop_path_rate": 0.1,
            "hidden_act": "gelu", "hidden_size": 1024, "image_size": 448, "intermediate_size": 4096,
            "layer_norm_eps": 1e-6, "model_type": "intern_vit_6b", "norm_type": "layer_norm",
            "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14,
            "qk_normalization": false, "qkv_bias": true, "use_flash_attn": false,
        },
    })
}

#[test]
fn published_configurations_have_the_published_number_of_parameters() {
    let count = |config: &ModelConfig| -> usize {
        layout::expected(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    let config = read(&with(published(), "/image_token_id", json!(151_667))).unwrap();
    // InternVL3-1B and InternVL3.5-1B as transformers builds them.
    assert_eq!(count(&config), 938_193_024);
    assert_eq!(config.tiles, Some(Tiles { side: 448, min_tiles: 1, max_tiles: 12, thumbnail: true }));
    assert_eq!((config.text.head_dim, config.vision.num_position_embeddings), (64, 1025));
    let hf = config.to_json();
    assert_eq!(
        (&hf["image_seq_length"], &hf["vision_config"]["image_size"]),
        (&json!(256), &json!([448, 448]))
    );
    let text = json!({
        "model_type": "qwen3", "attention_bias": false, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
        "rope_scaling": null, "rope_theta": 1_000_000, "tie_word_embeddings": false,
        "use_sliding_window": false, "vocab_size": 151_936,
    });
    let newer = with(with(hf, "/text_config", text), "/image_token_id", json!(151_671));
    assert_eq!(count(&read(&newer).unwrap()), 1_060_897_792);
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused_by_name() {
    let cases: &[(&str, Value, &str)] = &[
        (
            "/text_config/model_type",
            json!("llama"),
            "text_config.model_type is \"llama\", only qwen2 or qwen3",
        ),
        ("/text_config/model_type", Value::Null, "text_config.model_type is missing"),
        ("/text_config", Value::Null, "text_config is missing"),
        ("/text_config/use_sliding_window", json!(true), "text_config.use_sliding_window is true"),
        (
            "/text_config/layer_types",
            json!(["full_attention", "sliding_attention"]),
            "text_config.layer_types",
        ),
        (
            "/text_config/num_attention_heads",
            json!(5),
            "hidden_size is 48, expected a multiple of num_attention_heads",
        ),
        (
            "/text_config/rope_scaling/rope_type",
            json!("yarn"),
            "text_config.rope_scaling.rope_type is \"yarn\"",
        ),
        ("/text_config/rope_theta", Value::Null, "text_config.rope_theta is missing"),
        ("/text_config/hidden_act", json!("gelu"), "text_config.hidden_act is \"gelu\""),
        ("/text_config/vocab_size", json!(490), "image_token_id is 496, past text_config.vocab_size"),
        (
            "/vision_config/norm_type",
            json!("rms_norm"),
            "vision_config.norm_type is \"rms_norm\", only layer_norm",
        ),
        ("/vision_config/use_qk_norm", json!(true), "vision_config.use_qk_norm is true"),
        ("/vision_config/use_mean_pooling", json!(false), "vision_config.use_mean_pooling is false"),
        (
            "/vision_config/use_absolute_position_embeddings",
            json!(false),
            "vision_config.use_absolute_position_embeddings is false",
        ),
        ("/vision_config/hidden_act", json!("gelu_pytorch_tanh"), "vision_config.hidden_act"),
        (
            "/vision_config/num_attention_heads",
            json!(3),
            "vision_config.hidden_size is 32, expected a multiple",
        ),
        (
            "/vision_config/image_size",
            json!([24, 28]),
            "vision_config.image_size is [24,28], expected equal sides",
        ),
        (
            "/vision_config/image_size",
            json!([28, 28]),
            "vision_config.image_size is 28, expected a multiple of patch_size",
        ),
        ("/vision_config/image_size", json!([32, 32]), "image_seq_length is 9, but a tile"),
        ("/vision_config/patch_size", json!([0, 0]), "vision_config.patch_size is [0,0]"),
        ("/vision_config/num_channels", json!(1), "vision_config.num_channels is 1"),
        ("/downsample_ratio", json!(0.4), "downsample_ratio is 0.4"),
        ("/image_seq_length", json!(256), "image_seq_length is 256"),
        ("/projector_hidden_act", json!("silu"), "projector_hidden_act is \"silu\""),
        ("/vision_feature_layer", json!(-2), "vision_feature_layer is -2, only -1 is supported"),
        ("/vision_feature_select_strategy", json!("full"), "vision_feature_select_strategy is \"full\""),
        ("/quantization_config", json!({"bits": 4}), "quantization_config"),
        ("/model_type", json!("internvl_flash"), "only qwen3_vl or internvl or internvl_chat is supported"),
    ];
    refused("internvl_qwen2/config.json", cases);
    let qwen3: &[(&str, Value, &str)] = &[
        ("/text_config/attention_bias", json!(true), "text_config.attention_bias is true"),
        ("/text_config/head_dim", json!(15), "text_config.head_dim is 15, expected an even number"),
    ];
    refused("internvl_qwen3/config.json", qwen3);
    let original: &[(&str, Value, &str)] = &[
        ("/llm_config", Value::Null, "llm_config is missing"),
        ("/llm_config/model_type", json!("internlm2"), "llm_config.model_type is \"internlm2\""),
        ("/llm_config/num_key_value_heads", json!(4), "llm_config.num_attention_heads is 6"),
        ("/ps_version", json!("v1"), "ps_version is \"v1\", only v2 is supported"),
        ("/ps_version", Value::Null, "ps_version is missing"),
        ("/select_layer", json!(-4), "select_layer is -4"),
        ("/pad2square", json!(true), "pad2square is true"),
        ("/force_image_size", json!(48), "force_image_size is 48, but vision_config.image_size is 24"),
        ("/min_dynamic_patch", json!(7), "min_dynamic_patch is 7, above max_dynamic_patch, which is 6"),
        ("/vision_config/qk_normalization", json!(true), "vision_config.qk_normalization is true"),
        ("/vision_config/qk_normalization", Value::Null, "vision_config.qk_normalization is missing"),
        ("/vision_config/norm_type", Value::Null, "vision_config.norm_type is missing"),
    ];
    refused("internvl_qwen2_original/config.json", original);
}

/// Each change of a configuration must end in a sentence that holds the given words.
#[track_caller]
fn refused(file: &str, cases: &[(&str, Value, &str)]) {
    read(&json_of(file)).unwrap();
    for (pointer, new, expected) in cases {
        let error =
            read(&with(json_of(file), pointer, new.clone())).map(|_| ()).expect_err(pointer).to_string();
        assert!(error.contains(expected), "{pointer} = {new}: {error}");
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
    }
}

#[test]
fn the_placeholder_comes_from_the_tokenizer_where_the_file_has_none() {
    let original = json_of("internvl_qwen2_original/config.json");
    let error = ModelConfig::from_json(original.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("image_token_id is missing"), "{error}");
    assert_eq!(facts("internvl_qwen2_original").config.tokens.image, 496);
}

#[test]
fn tiles_are_read_in_both_forms() {
    let tiles = Tiles { side: 24, min_tiles: 1, max_tiles: 6, thumbnail: true };
    for folder in ["internvl_qwen2", "internvl_qwen2_original"] {
        let image = facts(folder).image;
        assert_eq!(image.geometry, Geometry::Tiled(tiles), "{folder}");
        assert_eq!((image.mean, image.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    }
    let original = json_of("internvl_qwen2_original/config.json");
    let fixed = read(&with(original.clone(), "/dynamic_image_size", json!(false))).unwrap().tiles.unwrap();
    assert_eq!((fixed.min_tiles, fixed.max_tiles), (1, 1));
    let bare = with(with(original, "/use_thumbnail", Value::Null), "/max_dynamic_patch", Value::Null);
    let bare = read(&bare).unwrap().tiles.unwrap();
    assert_eq!((bare.thumbnail, bare.max_tiles), (false, 6));

    let model = read(&json_of("internvl_qwen2/config.json")).unwrap();
    let preprocessor = json_of("internvl_qwen2/preprocessor_config.json");
    let absent = with(with(preprocessor.clone(), "/min_patches", Value::Null), "/max_patches", Value::Null);
    let absent = read_image(&absent, &model).unwrap().geometry;
    assert_eq!(absent, Geometry::Tiled(Tiles { max_tiles: 12, ..tiles }));
    let cases: &[(&str, Value, &str)] = &[
        (
            "/size",
            json!({"height": 448, "width": 448}),
            "size is 448, but the model's vision_config.image_size is 24",
        ),
        ("/size", json!({"height": 24, "width": 32}), "size is 32, but"),
        ("/size", Value::Null, "size is missing"),
        ("/min_patches", json!(9), "min_patches is 9, above max_patches, which is 6"),
        ("/max_patches", json!(100_000), "max_patches is 100000"),
        ("/image_processor_type", json!("Qwen2VLImageProcessor"), "image_processor_type"),
        ("/image_processor_type", json!("CLIPImageProcessor"), "image_processor_type"),
        ("/do_resize", json!(false), "do_resize is false"),
        ("/image_mean", Value::Null, "image_mean is missing"),
    ];
    for (pointer, new, expected) in cases {
        let value = with(preprocessor.clone(), pointer, new.clone());
        let error = read_image(&value, &model).map(|_| ()).expect_err(pointer).to_string();
        assert!(error.contains(expected), "{pointer} = {new}: {error}");
    }
}
