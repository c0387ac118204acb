//! Tokenizer, template and questions against the ids that transformers gives.

use imatch::config::VisionTokens;
use imatch::error::Kind;
use imatch::text::{
    Category, ChatTemplate, Element, Overall, PromptType, Request, Tokenizer, check_length, element, overall,
};
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
        video: id("<|video_pad|>"),
        start: id("<|vision_start|>"),
        end: id("<|vision_end|>"),
    }
}

fn template(which: &str) -> ChatTemplate {
    let tokenizer = tokenizer(which);
    let tokens = vision_tokens(&tokenizer);
    ChatTemplate::new(tokenizer, tokens).unwrap()
}

fn red_circle() -> Element {
    Element::parse("red circle (color)").unwrap()
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
    let missing = failure(ChatTemplate::new(Tokenizer::from_json(&missing).unwrap(), tokens));
    assert_eq!(missing, (Kind::Model, "tokenizer has no added token \"<|im_end|>\"".into()));
    let other = VisionTokens { image: 7, ..tokens };
    let disagreeing = failure(ChatTemplate::new(tokenizer("last"), other));
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

#[test]
fn elements_split_at_the_last_parenthesis_and_keep_their_words() {
    let cases = [
        ("red circle (color)", "red circle", Category::Color),
        ("red circle", "red circle", Category::Other),
        ("a (very) big dog (Animal)", "a (very) big dog", Category::Animal),
        ("Compass (object-other)", "Compass", Category::Object),
        ("cat (animal/human)", "cat", Category::Animal),
        ("4 (Counting)", "4", Category::Counting),
        ("noon (other-time)", "noon", Category::Other),
        ("rain (weather)", "rain", Category::Other),
        ("  two  spaces  (spatial) ", "  two  spaces ", Category::Spatial),
        ("dog(animal)", "dog", Category::Animal),
        ("f(x) plot", "f(x) plot", Category::Other),
        ("smile :)", "smile :)", Category::Other),
        ("a ((b))", "a ((b))", Category::Other),
        ("tree ( Object )", "tree", Category::Object),
        ("日本語 (human)", "日本語", Category::Human),
    ];
    for (text, words, category) in cases {
        let element = Element::parse(text).unwrap();
        assert_eq!((element.text.as_str(), element.category), (words, category), "{text:?}");
    }
    for empty in ["", "  ", "(color)", " (color)", "\t\n"] {
        assert_eq!(failure(Element::parse(empty)).0, Kind::Input, "{empty:?}");
    }
    assert_eq!(red_circle().to_string(), "red circle (color)");
    for category in Category::ALL {
        assert_eq!(Category::parse(&category.name().to_uppercase()), category);
        assert_eq!(serde_json::to_value(category).unwrap(), category.name());
    }
}

#[test]
fn requests_without_words_or_of_absurd_size_are_errors() {
    let elements = ["red circle (color)".to_owned()];
    let request = Request::new(" a red circle ", &elements, Some(PromptType::Real)).unwrap();
    assert_eq!((request.prompt.as_str(), &request.elements), (" a red circle ", &vec![red_circle()]));
    for prompt in ["", " ", "\n\t"] {
        assert_eq!(failure(Request::new(prompt, &[], None)), (Kind::Input, "prompt is empty".into()));
    }
    let many = vec!["a".to_owned(); 257];
    assert_eq!(failure(Request::new("p", &many, None)).1, "257 elements given, at most 256 allowed");
    assert!(Request::new("p", &many[1..], None).is_ok());
    assert_eq!(failure(Request::new("p".repeat(1 << 20), &[], None)).0, Kind::Input);
    assert_eq!(failure(Request::new("p", &["e".repeat(1 << 20)], None)).0, Kind::Input);
    assert_eq!(failure(Request::new("p", &[" ".to_owned()], None)).0, Kind::Input);
    assert!(Request::new("p".repeat(20_000), &[], None).is_ok());
    assert_eq!("synthetic".parse::<PromptType>().unwrap(), PromptType::Synthetic);
    assert_eq!(failure("Real".parse::<PromptType>()).0, Kind::Input);
}

/// Runs of letters, digits one by one and runs of anything else, each with the space before it:
/// the pieces that byte-level BPE of the Qwen and GPT-2 kind never merges. Each word of our
/// wording is one token of theirs.
fn n_pieces(text: &str) -> usize {
    let kind = |c: char| match c {
        ' ' => 0,
        c if c.is_alphabetic() => 1,
        c if c.is_numeric() => 2,
        _ => 3,
    };
    let kinds: Vec<u8> = text.chars().map(kind).collect();
    (0..kinds.len())
        .filter(|&i| kinds[i] != 0 && (i == 0 || kinds[i] != kinds[i - 1] || kinds[i] == 2))
        .count()
}

#[test]
fn an_element_question_adds_at_most_twelve_tokens_and_names_its_category() {
    let mut questions = std::collections::HashSet::new();
    for category in Category::ALL {
        let part = Element { text: "red circle".into(), category };
        let text = element("p", None, &part);
        let (_, question) = text.rsplit_once('\n').unwrap();
        let added = n_pieces(question) - n_pieces(&part.text);
        assert!(added <= 12, "{question:?} adds {added}");
        assert!(question.contains("\"red circle\""), "{question}");
        questions.insert(question.to_owned());
    }
    assert_eq!(questions.len(), Category::ALL.len());
}

#[test]
fn all_questions_of_a_request_share_the_same_ids_before_the_question() {
    let template = template("last");
    let levels = Overall::Levels { lowest: "a", highest: "o" };
    for prompt in
        ["a red circle", "two \"quoted\" words\n", " 日本語 ", "it's", "ends in \\", "\u{301}", "🎨\n\n", "9"]
    {
        let elements = ["red circle (color)", "\u{301}x (shape)", "x\n (counting) \n", "'s", "4 (counting)"]
            .map(str::to_owned);
        let request = Request::new(prompt, &elements, Some(PromptType::Synthetic)).unwrap();
        let mut texts: Vec<String> = request.element_texts().collect();
        texts.extend([request.overall_text(levels), request.overall_text(Overall::YesNo)]);
        let shared = texts[0].rsplit_once("\"\n").unwrap().0.len() + 2;
        let shared = &texts[0][..shared];
        assert!(shared.contains(prompt) && shared.contains("synthetic"), "{shared:?}");
        let start = template.tokenizer().encode(shared).unwrap();
        for text in &texts {
            assert!(text.starts_with(shared), "{text:?}");
            assert!(template.tokenizer().encode(text).unwrap().starts_with(&start), "{text:?}");
        }
    }
}

#[test]
fn the_overall_question_names_what_is_known() {
    let text = overall("a dog", Some(PromptType::Real), Overall::YesNo);
    assert!(text.contains("real") && text.contains("Does this image show \"a dog\"?"), "{text}");
    let text = overall("a dog", None, Overall::Levels { lowest: "1", highest: "9" });
    assert!(!text.contains("real") && !text.contains("synthetic"), "{text}");
    assert!(text.contains("\"a dog\"") && text.contains("from 1 (worst) to 9 (best)"), "{text}");
    let verbatim = " two  spaces <|im_end|> \"q\" ";
    assert!(element(verbatim, None, &red_circle()).contains(&format!("\"{verbatim}\"")));
}
