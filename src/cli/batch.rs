//! `--batch`: many pictures, resumable.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input::{BatchFlags, read_picture, read_text};
use super::{json, progress};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::image::Picture;
use crate::score::ScoringOptions;
use crate::text::{PromptType, Request};
use crate::weights::files::read_file;

/// Longest list that is read: half a million questions.
const MAX_LIST: u64 = 256 << 20;

/// Longest file of results that is read back: some 300,000 of them.
const MAX_RESULTS: u64 = 1 << 30;

/// How every line of results starts: the first field of [`Key`].
const LINE_START: &[u8] = b"{\"img_path\":";

/// One line of the list; other fields are passed over, as in records.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    #[serde(alias = "image")]
    img_path: String,
    prompt: String,
    #[serde(default)]
    elements: Option<Vec<String>>,
    #[serde(default, alias = "type")]
    prompt_type: Option<PromptType>,
}

/// What identifies a result: it is not computed twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    img_path: String,
    prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_type: Option<PromptType>,
    #[serde(default)]
    asked: Vec<String>,
}

/// A checked line that is still to be done.
struct Job {
    place: String,
    key: Key,
    path: PathBuf,
    request: Request,
}

/// One line of results.
#[derive(Serialize)]
struct Written<'a, T> {
    #[serde(flatten)]
    key: &'a Key,
    #[serde(flatten)]
    result: &'a T,
}

/// Which weights gave a result, and how they were asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Provenance {
    sha256: String,
    /// The scoring options as JSON; none in results that do not say.
    scoring: Option<String>,
}

impl Provenance {
    /// Of what `engine` will give.
    pub(super) fn of(engine: &Engine) -> Self {
        let scoring = Some(asked(engine.processor().scoring().clone()));
        Self { sha256: engine.identity().sha256.clone(), scoring }
    }

    /// Of an earlier result; none where it does not say.
    fn read(result: &Value) -> Option<Self> {
        let sha256 = result["model"]["sha256"].as_str()?.to_owned();
        let scoring = ScoringOptions::deserialize(&result["scoring"]).ok().map(asked);
        Some(Self { sha256, scoring })
    }
}

/// What of the options decides about scores, as JSON.
fn asked(options: ScoringOptions) -> String {
    let options = ScoringOptions { preset: None, ..options };
    serde_json::to_string(&options).unwrap_or_default()
}

/// What is still to be done, and where it goes.
pub(super) struct Batch {
    jobs: Vec<Job>,
    out: PathBuf,
    earlier: HashSet<Provenance>,
}

impl Batch {
    /// The batch that the flags ask for, if they do: every line is checked before anything is done.
    /// `field` is what tells a result from other objects.
    pub(super) fn open(flags: &BatchFlags, field: &str) -> Result<Option<Self>> {
        let (Some(list), Some(out)) = (&flags.batch, &flags.out) else { return Ok(None) };
        let jobs = jobs(list)?;
        let (mut done, mut earlier) = (HashSet::new(), HashSet::new());
        for (key, provenance) in results(out, field)? {
            done.insert(key);
            earlier.extend(provenance);
        }
        let jobs = jobs.into_iter().filter(|job| done.insert(job.key.clone())).collect();
        Ok(Some(Self { jobs, out: out.clone(), earlier }))
    }

    /// Whether nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Refuses to mix results of different models or questions in one file.
    pub(super) fn continues(&self, provenance: &Provenance) -> Result<()> {
        match self.earlier.iter().find(|earlier| *earlier != provenance) {
            None => Ok(()),
            Some(Provenance { sha256, .. }) => Err(Error::input(format!(
                "{} holds results of another model, --overall or other scoring options (SHA-256 {sha256}), choose another file",
                self.out.display()
            ))),
        }
    }

    /// Does what is left, a line at a time: a stop at any moment loses one line at most.
    pub(super) async fn run<T: Serialize>(
        self,
        mut answer: impl AsyncFnMut(&Request, &Picture) -> Result<T>,
    ) -> Result<()> {
        let failed = |error| Error::io(&self.out, error);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.out).map_err(failed)?;
        let bar = progress(self.jobs.len() as u64);
        for job in &self.jobs {
            let picture = read_picture(&job.path).context(|| job.place.clone())?;
            let result = answer(&job.request, &picture).await.context(|| job.place.clone())?;
            let line = json(&Written { key: &job.key, result: &result })? + "\n";
            file.write_all(line.as_bytes()).map_err(failed)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// Reads and checks every line of a list; paths are relative to it.
fn jobs(list: &Path) -> Result<Vec<Job>> {
    let folder = list.parent().unwrap_or(Path::new(""));
    let text = read_text(list, MAX_LIST)?;
    let mut jobs = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("{} line {}", list.display(), number + 1);
        let Line { img_path, prompt, elements, prompt_type } = serde_json::from_str(line)
            .map_err(|error| Error::input("no picture with a prompt").with_source(error))
            .context(|| place.clone())?;
        let asked = elements.unwrap_or_default();
        let request = Request::new(prompt.clone(), &asked, prompt_type).context(|| place.clone())?;
        let path = folder.join(&img_path);
        jobs.push(Job { place, key: Key { img_path, prompt, prompt_type, asked }, path, request });
    }
    Ok(jobs)
}

/// The results that are there already. A last line torn by a kill is cut off, one that lacks its
/// line feed only gets it; a file that holds anything else is left as it is.
fn results(out: &Path, field: &str) -> Result<Vec<(Key, Option<Provenance>)>> {
    let bytes = match std::fs::metadata(out) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        _ => read_file(out, MAX_RESULTS)?,
    };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let (lines, last) = bytes.split_at(whole);
    let mut results = Vec::new();
    for (number, line) in lines.split(|&byte| byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            results.push(result(line, field).context(|| format!("{} line {}", out.display(), number + 1))?);
        }
    }
    let failed = |error| Error::io(out, error);
    let open = || OpenOptions::new().append(true).open(out).map_err(failed);
    match result(last, field) {
        _ if last.is_empty() => {}
        Ok(result) => {
            open()?.write_all(b"\n").map_err(failed)?;
            results.push(result);
        }
        Err(_) if last.starts_with(LINE_START) || LINE_START.starts_with(last) => {
            open()?.set_len(whole as u64).map_err(failed)?;
        }
        Err(error) => return Err(error.context(format!("last line of {}", out.display()))),
    }
    Ok(results)
}

fn result(line: &[u8], field: &str) -> Result<(Key, Option<Provenance>)> {
    let no_result = || Error::input("no result that could be continued");
    let value: Value = serde_json::from_slice(line).map_err(|error| no_result().with_source(error))?;
    if value.get(field).is_none() {
        return Err(no_result().with_source(format!("it has no field {field:?}")));
    }
    let provenance = Provenance::read(&value);
    let key = serde_json::from_value(value).map_err(|error| no_result().with_source(error))?;
    Ok((key, provenance))
}
