//! Batches: what is in the list, what may lie in the file of results, and what may not.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{fail, keys, lines, object, score_args, succeed, tied, wide};
use super::common::golden;

/// A folder with a picture, a list and a place for results.
struct Desk(TempDir);

impl Desk {
    fn new(lines: &[Value]) -> Self {
        let desk = Self(TempDir::new().unwrap());
        fs::copy(wide(), desk.path("wide.png")).unwrap();
        desk.list(lines);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn list(&self, lines: &[Value]) {
        let text = lines.iter().flat_map(|line| [line.to_string(), "\n".into()]).collect::<String>();
        fs::write(self.path("list.jsonl"), text).unwrap();
    }

    fn with<T>(&self, verb: &str, model: &str, call: impl FnOnce(&[&str]) -> T) -> T {
        let (list, out) = (self.path("list.jsonl"), self.path("out.jsonl"));
        call(&[verb, "--model", model, "--batch", list.to_str().unwrap(), "--out", out.to_str().unwrap()])
    }

    fn score(&self) -> Vec<Value> {
        self.with("score", &tied(), succeed);
        lines(&self.path("out.jsonl"))
    }

    #[track_caller]
    fn refuse(&self, part: &str) {
        let out = self.path("out.jsonl");
        let before = fs::read(&out).ok();
        self.with("score", &tied(), |args| fail(args, 2, part));
        assert_eq!(fs::read(&out).ok(), before, "the file of results was touched");
    }
}

fn cube() -> Value {
    json!({"img_path": "wide.png", "prompt": "a red cube", "elements": ["red cube (color)"]})
}

#[test]
fn a_line_gives_what_a_single_call_gives() {
    let desk = Desk::new(&[cube()]);
    let result = &desk.score()[0];
    let own = ["img_path", "prompt", "asked"];
    let (model, image) = (tied(), wide());
    let args = [score_args(&model, &image, "a red cube"), vec!["--element", "red cube (color)", "--json"]];
    let single = object(&args.concat());
    assert_eq!(keys(result), [own.as_slice(), &keys(&single)].concat());
    for field in ["model", "overall", "elements", "scoring"] {
        assert_eq!(result[field], single[field], "{field}");
    }
}

#[test]
fn lists_are_read_as_people_write_them() {
    let desk = Desk::new(&[]);
    let image = json!({"image": "wide.png", "prompt": "a", "elements": null, "prompt_type": null, "id": 7});
    let text = format!("\u{feff}{image}\r\n\n{}\n{}", cube(), cube());
    fs::write(desk.path("list.jsonl"), text).unwrap();
    let results = desk.score();
    let prompts: Vec<_> = results.iter().map(|result| result["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["a", "a red cube"], "the same line twice is one result");
}

#[test]
fn another_question_about_the_same_picture_is_another_result() {
    let desk = Desk::new(&[cube()]);
    let mut others = vec![cube(), cube(), cube()];
    others[1]["prompt_type"] = "real".into();
    others[2]["elements"] = json!([]);
    desk.score();
    desk.list(&others);
    assert_eq!(desk.score().len(), 3);
}

#[test]
fn a_line_that_cannot_be_scored_is_named_and_what_is_done_stays() {
    let mut lost = cube();
    lost["img_path"] = "lost.png".into();
    let desk = Desk::new(&[cube(), lost, cube()]);
    desk.with("score", &tied(), |args| fail(args, 2, "line 2"));
    assert_eq!(lines(&desk.path("out.jsonl")).len(), 1);
    fs::copy(wide(), desk.path("lost.png")).unwrap();
    assert_eq!(desk.score().len(), 2);
    for (line, part) in [
        ("{\"prompt\": \"a\"}", "img_path"),
        ("{\"img_path\": \"wide.png\", \"prompt\": \" \"}", "prompt is empty"),
        ("{\"img_path\": \"wide.png\", \"prompt\": \"a\", \"elements\": [\"\"]}", "element"),
        ("{\"img_path\": \"wi\\u0000de.png\", \"prompt\": \"a\"}", "wi"),
        ("nonsense", "line 1"),
        ("[]", "line 1"),
    ] {
        fs::write(desk.path("list.jsonl"), line).unwrap();
        desk.refuse(part);
        desk.refuse("line 1");
    }
}

#[test]
fn a_file_that_holds_something_else_is_left_alone() {
    let desk = Desk::new(&[cube()]);
    for foreign in [
        "precious words",
        "precious words\n",
        "{\"img_path\": \"wide.png\", \"prompt\": \"a\"}\n",
        "[1]",
        "{",
    ] {
        fs::write(desk.path("out.jsonl"), foreign).unwrap();
        // An opening brace alone may be a torn line of results.
        if foreign == "{" {
            assert_eq!(desk.score().len(), 1);
        } else {
            desk.refuse("out.jsonl");
        }
    }
    fs::remove_file(desk.path("out.jsonl")).unwrap();
    fs::create_dir(desk.path("out.jsonl")).unwrap();
    desk.with("score", &tied(), |args| fail(args, 2, "out.jsonl"));
}

#[test]
fn a_result_without_its_line_feed_is_kept() {
    let desk = Desk::new(&[cube()]);
    let first = desk.score();
    let out = desk.path("out.jsonl");
    let text = fs::read_to_string(&out).unwrap();
    fs::write(&out, text.trim_end()).unwrap();
    let mut other = cube();
    other["prompt"] = "a blue ball".into();
    desk.list(&[cube(), other]);
    let both = desk.score();
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
}

#[test]
fn results_of_different_models_do_not_mix() {
    let desk = Desk::new(&[cube()]);
    desk.score();
    let mut other = cube();
    other["prompt"] = "a blue ball".into();
    desk.list(&[cube(), other]);
    let untied = golden("qwen3_vl_untied").display().to_string();
    desk.with("score", &untied, |args| fail(args, 2, "another model"));
    desk.with("score", &tied(), |args| fail(&[args, &["--overall", "yes_no"]].concat(), 2, "--overall"));
    assert_eq!(desk.score().len(), 2);
}

#[test]
fn prompt_takes_a_list_too() {
    let desk = Desk::new(&[cube()]);
    desk.with("prompt", &tied(), succeed);
    let line = &lines(&desk.path("out.jsonl"))[0];
    assert_eq!(keys(line), ["img_path", "prompt", "asked", "image", "questions"]);
    let (model, image) = (tied(), wide());
    let mut args = score_args(&model, &image, "a red cube");
    args[0] = "prompt";
    args.extend(["--element", "red cube (color)", "--json"]);
    assert_eq!(line["questions"], object(&args)["questions"]);
    desk.refuse("overall");
}

#[test]
fn a_list_needs_a_place_for_results_and_no_question_beside_it() {
    let desk = Desk::new(&[cube()]);
    desk.with("score", &tied(), |args| {
        fail(&args[..5], 2, "--out");
        fail(&[args, &["--prompt", "a"]].concat(), 2, "--prompt");
        fail(&[args, &["--element", "a"]].concat(), 2, "--element");
    });
    let list = desk.path("list.jsonl");
    fs::remove_file(&list).unwrap();
    desk.refuse(Path::new(&list).file_name().unwrap().to_str().unwrap());
}
