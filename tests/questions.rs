//! Elements, requests and the wording of the questions.

use imatch::error::Kind;
use imatch::text::{Category, Element, Overall, PromptType, Request, Tokenizer, element, overall};

fn red_circle() -> Element {
    Element::parse("red circle (color)").unwrap()
}

fn failure<T>(result: imatch::Result<T>) -> (Kind, String) {
    let error = result.err().unwrap();
    (error.kind(), error.to_string())
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
    let tokenizer = Tokenizer::from_json(include_bytes!("golden/text/tokenizer.json")).unwrap();
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
        let start = tokenizer.encode(shared).unwrap();
        for text in &texts {
            assert!(text.starts_with(shared), "{text:?}");
            assert!(tokenizer.encode(text).unwrap().starts_with(&start), "{text:?}");
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
