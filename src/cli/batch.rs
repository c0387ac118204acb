//! `imatch score --batch`: many pictures, resumable.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::read_picture;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::score::ScoreResult;
use crate::text::{PromptType, Request};

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 4 << 20;

/// One line of the input.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(alias = "image")]
    img_path: String,
    prompt: String,
    #[serde(default)]
    elements: Vec<String>,
    #[serde(default, alias = "type")]
    prompt_type: Option<PromptType>,
}

/// What identifies a result: it is not computed twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    img_path: String,
    prompt: String,
    #[serde(default)]
    asked: Vec<String>,
}

/// A checked line.
pub(super) struct Job {
    place: String,
    key: Key,
    path: PathBuf,
    request: Request,
}

/// One line of the output.
#[derive(Serialize)]
struct Scored<'a> {
    #[serde(flatten)]
    key: &'a Key,
    #[serde(flatten)]
    result: &'a ScoreResult,
}

/// Reads and checks every line before anything is scored; paths are relative to the list.
pub(super) fn jobs(input: &Path) -> Result<Vec<Job>> {
    let folder = input.parent().unwrap_or(Path::new(""));
    let reader = BufReader::new(File::open(input).map_err(|error| Error::io(input, error))?);
    let mut jobs = Vec::new();
    for (number, line) in reader.lines().enumerate() {
        let place = format!("{} line {}", input.display(), number + 1);
        let text = line.map_err(|error| Error::input(format!("{place} is no text")).with_source(error))?;
        if text.trim().is_empty() {
            continue;
        }
        if text.len() > MAX_LINE {
            return Err(Error::input(format!(
                "{place} has {} bytes, at most {MAX_LINE} are read",
                text.len()
            )));
        }
        let line: Line = serde_json::from_str(&text)
            .map_err(|error| Error::input(format!("{place} is not an item to score")).with_source(error))?;
        let request =
            Request::new(&*line.prompt, &line.elements, line.prompt_type).context(|| place.clone())?;
        let path = folder.join(&line.img_path);
        let key = Key { img_path: line.img_path, prompt: line.prompt, asked: line.elements };
        jobs.push(Job { place, key, path, request });
    }
    Ok(jobs)
}

/// The results that are there already. A last line torn by a kill is cut off.
pub(super) fn done(out: &Path) -> Result<HashSet<Key>> {
    let bytes = match fs::read(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        read => read.map_err(|error| Error::io(out, error))?,
    };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        let file = OpenOptions::new().write(true).open(out).map_err(|error| Error::io(out, error))?;
        file.set_len(whole as u64).map_err(|error| Error::io(out, error))?;
    }
    let lines = bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|error| {
                Error::input(format!("{} line {} is no result", out.display(), number + 1)).with_source(error)
            })
        })
        .collect()
}

/// Scores what is not done, one line at a time; a stop at any moment loses one line at most.
pub(super) async fn run(engine: &Arc<Engine>, jobs: &[Job], done: &HashSet<Key>, out: &Path) -> Result<()> {
    let mut file =
        OpenOptions::new().create(true).append(true).open(out).map_err(|error| Error::io(out, error))?;
    let bar = progress(jobs.len() as u64);
    let mut done = done.clone();
    for job in jobs {
        bar.inc(1);
        if !done.insert(job.key.clone()) {
            continue;
        }
        let picture = read_picture(&job.path).context(|| job.place.clone())?;
        let mut session = engine.open(&picture, &()).await.context(|| job.place.clone())?;
        let result = session.score(&job.request, &()).await.context(|| job.place.clone())?;
        let mut line = serde_json::to_vec(&Scored { key: &job.key, result: &result })
            .map_err(|error| Error::internal("a result is no JSON").with_source(error))?;
        line.push(b'\n');
        file.write_all(&line).and_then(|()| file.flush()).map_err(|error| Error::io(out, error))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// A progress bar on standard error, hidden unless that is a terminal.
pub(super) fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
