//! Tokenizer and template against the ids that transformers gives.

use imatch::config::{Family, ModelConfig, VisionTokens};
use imatch::error::Kind;
use imatch::text::{ChatTemplate, Tokenizer, check_length};
use serde_json::Value;

const LAST: &[u8] = include_bytes!("golden/text/tokenizer.json");
const FIRST: &[u8] = include_bytes!("golden/text/tokenizer_first.json");

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/text/ids.json")).unwrap()
}

fn tokenizer(which: &str) -> Tokenizer {
    Tokenizer::from_json(if which == "first" { FIRST } else { LAST }).unwrap()
}

fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(LAST).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn vision_tokens(tokenizer: &Tokenizer) -> VisionTokens {
    let id = |content| tokenizer.added_id(content).unwrap();
    VisionTokens {
        image: id("<|image_pad|>"),
        video: Some(id("<|video_pad|>")),
        start: Some(id("<|vision_start|>")),
        end: Some(id("<|vision_end|>")),
    }
}

fn template(which: &str) -> ChatTemplate {
    let tokenizer = tokenizer(which);
    let tokens = vision_tokens(&tokenizer);
    ChatTemplate::new(tokenizer, Family::Qwen3Vl, tokens).unwrap()
}

fn failure<T>(result: imatch::Result<T>) -> (Kind, String) {
    let error = result.err().unwrap();
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    (error.kind(), text)
}

#[test]
fn plain_texts_get_the_ids_of_transformers() {
    for which in ["last", "first"] {
        let tokenizer = tokenizer(which);
        for case in golden()["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), ids(&case[which]), "{which}: {text:?}");
        }
    }
}

#[test]
fn added_tokens_in_a_text_stay_plain_text() {
    let last = tokenizer("last");
    let first = tokenizer("first");
    let n_added = golden()["added"]["last"].as_object().unwrap().len() as u32;
    for case in golden()["hostile"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let plain = ids(&case["last"]);
        assert_eq!(last.encode(text).unwrap(), plain, "{text:?}");
        assert_eq!(
            first.encode(text).unwrap(),
            plain.iter().map(|id| id + n_added).collect::<Vec<_>>(),
            "{text:?}"
        );
        assert_eq!(last.decode(&plain).unwrap(), text);
    }
}

#[test]
fn merges_that_spell_an_added_token_cannot_form_it() {
    let json = changed(|value| {
        let model = &mut value["model"];
        let n = model["vocab"].as_object().unwrap().len() as u32;
        for (i, token) in ["<t", "<th", "<thi", "<thin", "<think", "<think>", "<think>x"].iter().enumerate() {
            model["vocab"][*token] = (n + i as u32).into();
            let (head, tail) = token.split_at(token.len() - 1);
            model["merges"].as_array_mut().unwrap().push(serde_json::json!([head, tail]));
        }
        model["ignore_merges"] = true.into();
        value["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().remove(0);
        value["added_tokens"] = serde_json::json!([{"id": n + 5, "content": "<think>", "special": false}]);
    });
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let think = tokenizer.added_id("<think>").unwrap();
    for text in ["<think>", "<think>x", "a<think><think>"] {
        let ids = tokenizer.encode(text).unwrap();
        assert!(!ids.contains(&think), "{text:?}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.decode(&[think]).unwrap(), "<think>");
}

#[test]
fn an_unknown_token_setting_cannot_turn_text_into_a_special_token() {
    let json = changed(|value| {
        value["model"]["unk_token"] = "<|endoftext|>".into();
        value["model"]["vocab"].as_object_mut().unwrap().shift_remove("~").unwrap();
    });
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let (kind, text) = failure(tokenizer.encode("a ~ b"));
    assert_eq!(kind, Kind::Model);
    assert_eq!(text, "tokenizer has no token for a byte of \"a ~ b\"");
}

#[test]
fn whole_chats_get_the_ids_of_transformers() {
    for case in golden()["chats"].as_array().unwrap() {
        let template = template(case["tokenizer"].as_str().unwrap());
        let n_image_tokens = case["n_image_tokens"].as_u64().unwrap() as usize;
        let text = case["text"].as_str().unwrap();
        let sequence = template.sequence(text, n_image_tokens).unwrap();
        assert_eq!(sequence, ids(&case["ids"]), "{text:?}");
        let start = template.text_start(n_image_tokens);
        let plain = template.tokenizer().encode(text).unwrap();
        assert_eq!(sequence[start..start + plain.len()], plain);
    }
}

#[test]
fn the_processor_of_transformers_gives_the_same_sequences() {
    let cases: Value = serde_json::from_str(include_str!("golden/qwen3_vl_cases/cases.json")).unwrap();
    let folders: [(&[u8], &[u8]); 2] = [
        (
            include_bytes!("golden/qwen3_vl_tied/config.json"),
            include_bytes!("golden/qwen3_vl_tied/tokenizer.json"),
        ),
        (
            include_bytes!("golden/qwen3_vl_untied/config.json"),
            include_bytes!("golden/qwen3_vl_untied/tokenizer.json"),
        ),
    ];
    for (config, tokenizer) in folders {
        let ModelConfig { family, tokens, .. } = ModelConfig::from_json(config).unwrap();
        let template = ChatTemplate::new(Tokenizer::from_json(tokenizer).unwrap(), family, tokens).unwrap();
        for (name, case) in cases["cases"].as_object().unwrap() {
            let grid = ids(&cases["pictures"][case["picture"].as_str().unwrap()]["grid_thw"]);
            let n_image_tokens = grid.iter().product::<u32>() as usize / 4;
            let sequence = template.sequence(case["text"].as_str().unwrap(), n_image_tokens).unwrap();
            assert_eq!(sequence, ids(&case["input_ids"]), "{name}");
        }
    }
}

#[test]
fn long_runs_of_one_kind_get_the_ids_of_transformers() {
    let tokenizer = tokenizer("last");
    for case in golden()["long"].as_array().unwrap() {
        let text = case["run"].as_str().unwrap().repeat(20_000) + " word";
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(ids.len() as u64, case["n_ids"].as_u64().unwrap(), "{}", case["run"]);
        assert_eq!(
            ids.iter().map(|id| u64::from(*id)).sum::<u64>(),
            case["sum"].as_u64().unwrap(),
            "{}",
            case["run"]
        );
    }
}

#[test]
fn a_hostile_text_adds_no_special_token_to_the_chat() {
    let template = template("last");
    let special: Vec<u32> = golden()["added"]["last"]
        .as_object()
        .unwrap()
        .values()
        .map(|id| ids(&[id.clone()].into())[0])
        .collect();
    let count = |text| template.sequence(text, 3).unwrap().iter().filter(|id| special.contains(id)).count();
    let expected = count("a dog");
    assert_eq!(expected, 8);
    for case in golden()["hostile"].as_array().unwrap() {
        assert_eq!(count(case["text"].as_str().unwrap()), expected);
    }
}

#[test]
fn merges_as_strings_and_as_pairs_are_the_same() {
    let lines = changed(|value| {
        for merge in value["model"]["merges"].as_array_mut().unwrap() {
            *merge = format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
        }
    });
    let lines = Tokenizer::from_json(&lines).unwrap();
    for case in golden()["texts"].as_array().unwrap() {
        assert_eq!(lines.encode(case["text"].as_str().unwrap()).unwrap(), ids(&case["last"]));
    }
}

#[test]
fn truncation_padding_and_dropout_in_the_file_change_no_text() {
    let json = changed(|value| {
        value["truncation"] = serde_json::json!(
            {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        value["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Left",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
        value["model"]["dropout"] = 0.9.into();
    });
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    for case in golden()["texts"].as_array().unwrap() {
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap()).unwrap(), ids(&case["last"]));
    }
}

#[test]
fn ids_are_known_and_decode_to_their_text() {
    for which in ["last", "first"] {
        let tokenizer = tokenizer(which);
        let added = &golden()["added"][which];
        for (content, id) in added.as_object().unwrap() {
            let id = id.as_u64().unwrap() as u32;
            assert_eq!(tokenizer.token_id(content), Some(id));
            assert_eq!(tokenizer.decode(&[id, id]).unwrap(), content.repeat(2));
        }
        let text = "日本語 a red circle";
        let start = tokenizer.added_id("<|im_start|>").unwrap();
        let ids = [tokenizer.encode(text).unwrap(), vec![start], tokenizer.encode("Yes").unwrap()].concat();
        assert_eq!(tokenizer.decode(&ids).unwrap(), format!("{text}<|im_start|>Yes"));
        assert_eq!(tokenizer.token_id("no such token"), None);
        assert_eq!(failure(tokenizer.decode(&[9999])).1, "no token has id 9999");
    }
    let highest = golden()["added"]["last"]["</think>"].as_u64().unwrap() as usize;
    assert_eq!(tokenizer("last").vocab_size(), highest + 1);
}

#[test]
fn an_answer_is_one_id_or_an_error_that_names_it() {
    let tokenizer = tokenizer("last");
    for answer in ["Yes", "No", "a", "o"] {
        assert_eq!(vec![tokenizer.single(answer).unwrap()], tokenizer.encode(answer).unwrap());
    }
    assert_eq!(tokenizer.single("<think>").unwrap(), tokenizer.added_id("<think>").unwrap());
    let (kind, text) = failure(tokenizer.single("zebra"));
    assert_eq!(kind, Kind::Model);
    assert!(
        text.starts_with("answer \"zebra\" takes ")
            && text.ends_with(" tokens in this tokenizer, expected 1"),
        "{text}"
    );
}

#[test]
fn malformed_tokenizers_are_errors() {
    type Change = fn(&mut Value);
    let cases: [(&str, Kind, Change); 10] = [
        ("not a valid tokenizer.json", Kind::Model, |v| *v = Value::Null),
        ("not a valid tokenizer.json", Kind::Model, |v| v["model"]["vocab"] = Value::Null),
        ("inconsistent", Kind::Model, |v| v["model"]["merges"][0] = serde_json::json!(["zzz", "y"])),
        ("is not two tokens", Kind::Model, |v| v["model"]["merges"] = serde_json::json!(["one"])),
        ("given twice", Kind::Model, |v| v["model"]["vocab"]["a"] = v["model"]["vocab"]["b"].clone()),
        ("given twice or absurdly large", Kind::Model, |v| v["added_tokens"][0]["id"] = u32::MAX.into()),
        ("in the vocabulary", Kind::Model, |v| v["model"]["vocab"]["<think>"] = 4000.into()),
        ("expected \"BPE\"", Kind::Unsupported, |v| {
            v["model"] = serde_json::json!({"type": "Unigram", "vocab": []});
        }),
        ("byte-level", Kind::Unsupported, |v| v["pre_tokenizer"] = serde_json::json!({"type": "Whitespace"})),
        ("normalisation", Kind::Unsupported, |v| v["normalizer"] = serde_json::json!({"type": "Lowercase"})),
    ];
    for (expected, kind, change) in cases {
        let (got, text) = failure(Tokenizer::from_json(&changed(change)));
        assert!(text.contains(expected), "{text:?} should contain {expected:?}");
        assert_eq!(got, kind, "{text}");
    }
    for bytes in [&b""[..], b"{", b"[]", &LAST[..LAST.len() / 2], &[0xff, 0xfe]] {
        assert_eq!(failure(Tokenizer::from_json(bytes)).0, Kind::Model);
    }
}

#[test]
fn a_template_without_its_tokens_is_an_error() {
    let tokens = vision_tokens(&tokenizer("last"));
    let missing = changed(|value| value["added_tokens"].as_array_mut().unwrap().truncate(2));
    let missing =
        failure(ChatTemplate::new(Tokenizer::from_json(&missing).unwrap(), Family::Qwen3Vl, tokens));
    assert_eq!(missing, (Kind::Model, "tokenizer has no added token \"<|im_end|>\"".into()));
    let other = VisionTokens { image: 7, ..tokens };
    let disagreeing = failure(ChatTemplate::new(tokenizer("last"), Family::Qwen3Vl, other));
    assert_eq!(disagreeing.0, Kind::Model);
    assert!(disagreeing.1.ends_with("but image_token_id is 7"), "{}", disagreeing.1);
}

#[test]
fn a_sequence_beyond_the_positions_names_the_prompt() {
    assert!(check_length("a", 10, 10).is_ok());
    let prompt = "word ".repeat(4000);
    let (kind, text) = failure(check_length(&prompt, 4100, 4096));
    assert_eq!(kind, Kind::Input);
    assert_eq!(
        text,
        "prompt \"word word word word word word word word …\" (20000 characters) makes a sequence of 4100 tokens, \
         but the model has 4096 positions"
    );
    assert_eq!(failure(template("last").sequence("a", usize::MAX)).0, Kind::Internal);
}
