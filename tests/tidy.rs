//! Rules of the house that a program can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, low to high; an arrow may only point down (`src/lib.rs` draws it).
const LAYERS: [&[&str]; 7] = [
    &["error", "config"],
    &["format", "image", "text", "score", "metrics", "data"],
    &["ops", "weights"],
    &["model"],
    &["engine"],
    &["train"],
    &["cli", "web"],
];

/// Layers that hold plain data: no tensors, no asynchrony, no files.
const PLAIN: usize = 1;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module that a file belongs to.
fn module_of(file: &Path) -> String {
    let relative = file.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Top-level modules that a source text names as `crate::module`.
fn imports(text: &str) -> BTreeSet<String> {
    let code =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut modules = BTreeSet::new();
    for (index, _) in code.match_indices("crate::") {
        let rest = &code[index + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            modules.insert(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
        }
    }
    modules
}

#[test]
fn imports_point_down_the_layers_only() {
    let mut seen = 0;
    for file in rust_files(&root().join("src")) {
        let Some(layer) = layer_of(&module_of(&file)) else { continue };
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = layer_of(&import) else { continue };
            seen += 1;
            assert!(other <= layer, "{} of layer {layer} imports {import} of layer {other}", file.display());
        }
    }
    assert!(seen > 50, "only {seen} imports were found");
}

#[test]
fn plain_layers_know_no_tensors_no_asynchrony_and_no_files() {
    for file in rust_files(&root().join("src")) {
        if layer_of(&module_of(&file)).is_some_and(|layer| layer <= PLAIN) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            for word in ["burn::", "async ", "std::fs", "File::open"] {
                assert!(!code.contains(word), "{} contains {word:?}", file.display());
            }
        }
    }
}

#[test]
fn engine_and_above_name_no_family_and_no_file_format() {
    for folder in ["engine", "web"] {
        for file in rust_files(&root().join("src").join(folder)) {
            let text = fs::read_to_string(&file).unwrap().to_lowercase();
            for word in ["qwen", "internvl", "gguf", "safetensors"] {
                assert!(!text.contains(word), "{} names {word}", file.display());
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    for folder in ["src", "tests"] {
        for file in rust_files(&root().join(folder)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", file.display());
        }
    }
}

#[test]
fn the_lock_file_keeps_servers_and_c_regular_expressions_out() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"burn\""), "this is not the lock file");
    for name in ["onig_sys", "openssl-sys"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name} is among the dependencies");
    }
}
