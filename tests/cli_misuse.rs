//! Calls that cannot work: one line each, soon, whatever is in it.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::cli::{PROMPT, fail, imatch, score_args, succeed, tied, wide};
use super::common::golden;

#[test]
fn help_and_version_are_no_errors() {
    for args in [["--help"].as_slice(), &["-h"], &["--version"], &["help"], &["score", "--help"]] {
        assert!(!succeed(args).trim().is_empty(), "{args:?}");
        assert!(imatch(args).stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn line_breaks_in_an_argument_stay_in_its_line() {
    let (model, image) = (tied(), wide());
    for torn in ["no\nwhere", "no\rwhere", "no\u{2028}where", "no\u{85}where", "no\u{b}where"] {
        for args in [
            score_args(&model, torn, PROMPT),
            score_args(torn, &image, PROMPT),
            [score_args(&model, &image, PROMPT), vec![torn]].concat(),
            [score_args(&model, &image, PROMPT), vec!["--overall", torn]].concat(),
            vec!["eval", "--labels", torn, "--predictions", torn],
        ] {
            let text = String::from_utf8(imatch(&args).stderr).unwrap();
            let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            assert_eq!(text.matches(breaks).count(), 1, "{args:?}: {text:?}");
            fail(&args, 2, "where");
        }
    }
}

#[test]
fn a_path_that_is_no_file_is_bad_input() {
    let (model, image) = (tied(), wide());
    let long = "a".repeat(300);
    fail(&score_args(&model, &long, PROMPT), 2, "aaa");
    for folder in [model.as_str(), "/dev/zero"] {
        fail(&score_args(&model, folder, PROMPT), 2, "not a file");
        fail(&["eval", "--labels", folder, "--predictions", folder], 2, "not a file");
        fail(&["score", "--model", &model, "--batch", folder, "--out", "out.jsonl"], 2, "not a file");
    }
    fail(&["synth", "--out", &image, "--count", "1"], 2, "wide.png");
    fail(&["synth", "--out", "new", "--count", "0"], 2, "--count");
    fail(&["synth", "--out", "new", "--raters", "0"], 2, "--raters");
    fail(&["synth", "--out", "new", "--raters", "65000"], 2, "--raters");
    fail(&["convert", "--model", &model, "--quant", "f16", "--out", &image], 2, "wide.png");
    fail(&["train", "--from-scratch", "--out", &image], 2, "wide.png");
}

#[test]
fn a_picture_of_more_bytes_than_are_read_is_not_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.png");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    fail(&score_args(&tied(), &path.display().to_string(), PROMPT), 2, "large.png");
    let text = path.display().to_string();
    fail(&["eval", "--labels", &text, "--predictions", &text], 2, "large.png");
}

#[test]
fn what_the_question_gets_wrong_is_said_before_weights_are_read() {
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "preprocessor_config.json", "tokenizer.json", "imatch.json"] {
        fs::copy(golden("qwen3_vl_tied").join(name), folder.path().join(name)).unwrap();
    }
    let (model, image) = (folder.path().display().to_string(), wide());
    fail(&score_args(&model, &image, &"word ".repeat(4000)), 2, "positions");
    fail(&score_args(&model, &image, PROMPT), 2, "safetensors");
    let args = ["prompt", "--model", &model, "--image", &image, "--prompt", PROMPT];
    assert!(succeed(&args).contains(PROMPT), "prompt needs no weights");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let (model, image) = (tied(), wide());
    let mut child = Command::new(env!("CARGO_BIN_EXE_imatch"))
        .args(score_args(&model, &image, PROMPT))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
