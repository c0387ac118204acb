//! `imatch eval`: predictions against labels.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::input::read_text;
use super::report::{Answer, text};
use super::{json, print, say};
use crate::data::evalmuse::read_labels;
use crate::data::evaluation::{
    Calibration, Targets, bootstrap, by_category, by_generator, by_type, calibrate, report,
};
use crate::data::pairing::{Pair, pair};
use crate::data::submission::read_predictions;
use crate::error::{Context as _, Error, Result};
use crate::metrics::{PlccVariant, Reliability, reliability};
use crate::score::ScoringOptions;
use crate::text::PromptType;
use crate::weights::files::{read_file, write_whole};

/// Largest file that is read: the whole of EvalMuse-40K has some 60 MB of records.
const MAX_BYTES: u64 = 256 << 20;

/// Longest scoring options that are read.
const MAX_OPTIONS: u64 = 1 << 20;

/// Bins of the reliability table, as in most of the literature.
const BINS: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// `EvalMuse` records with scores
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Predictions: the challenge's form, or what `score --batch` wrote
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// How PLCC is fitted: as the official script does, as it is documented, or not at all
    #[arg(long, value_name = "official|documented|raw", default_value = "official", value_parser = parse_plcc)]
    plcc: PlccVariant,
    /// Also show the figures by category of element, type of prompt, generator (first folder of `img_path`)
    #[arg(long, value_name = "category,type,generator", value_delimiter = ',')]
    by: Vec<Group>,
    /// Also show 95 % intervals from N resamples of the pictures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    bootstrap: Option<u32>,
    /// Seed of the resamples
    #[arg(long, default_value_t = 0, requires = "bootstrap")]
    seed: u64,
    /// Also show how often elements are there for each tenth of their scores
    #[arg(long)]
    reliability: bool,
    /// Fit the temperatures of the questions and write scoring options that have them
    #[arg(long, value_name = "OUT.json")]
    calibrate: Option<PathBuf>,
    /// The scoring options of the predictions, where those do not say
    #[arg(long, value_name = "imatch.json", requires = "calibrate")]
    scoring: Option<PathBuf>,
    /// Fit the levels to the scores of all raters instead of their mean
    #[arg(long, requires = "calibrate")]
    soft_labels: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    Category,
    Type,
    Generator,
}

fn parse_plcc(text: &str) -> std::result::Result<PlccVariant, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let Flags { labels, predictions, .. } = flags;
    let records = read_labels(&read_text(labels, MAX_BYTES)?).context(|| labels.display())?;
    let predictions =
        read_predictions(&read_text(predictions, MAX_BYTES)?).context(|| predictions.display())?;
    let answer = flags.answer(&pair(&records, &predictions)?)?;
    let calibration = answer.calibration.as_ref();
    let warnings = calibration.map_or(&[][..], |calibration| &calibration.warnings);
    for warning in answer.report.warnings.iter().chain(warnings) {
        say(&format!("warning: {warning}"));
    }
    for row in answer.by_type.iter().flatten() {
        let name = row.prompt_type.map_or("no type", PromptType::name);
        row.report.warnings.iter().for_each(|warning| say(&format!("warning: {name}: {warning}")));
    }
    if let (Some(path), Some(Calibration { scoring, .. })) = (&flags.calibrate, calibration) {
        write_whole(path, format!("{}\n", json(scoring)?).as_bytes())?;
    }
    print(&if flags.json { json(&answer)? } else { text(&answer) })
}

impl Flags {
    fn answer(&self, pairs: &[Pair<'_>]) -> Result<Answer> {
        let asked = |group| self.by.contains(&group);
        let plcc = self.plcc;
        Ok(Answer {
            report: report(pairs, plcc),
            intervals: self.bootstrap.map(|count| bootstrap(pairs, plcc, count as usize, self.seed)),
            by_category: asked(Group::Category).then(|| by_category(pairs)),
            by_type: asked(Group::Type).then(|| by_type(pairs, plcc)),
            by_generator: asked(Group::Generator).then(|| by_generator(pairs, plcc)),
            reliability: if self.reliability { Some(of_elements(pairs)?) } else { None },
            calibration: match self.calibrate {
                Some(_) => Some(self.calibration(pairs)?),
                None => None,
            },
        })
    }

    fn calibration(&self, pairs: &[Pair<'_>]) -> Result<Calibration> {
        let options = |path: &PathBuf| {
            ScoringOptions::from_json(&read_file(path, MAX_OPTIONS)?).context(|| path.display())
        };
        let given = self.scoring.as_ref().map(options).transpose()?;
        let targets = if self.soft_labels { Targets::Raters } else { Targets::Mean };
        calibrate(pairs, given, targets).context(|| "--calibrate")
    }
}

fn of_elements(pairs: &[Pair<'_>]) -> Result<Reliability> {
    let elements = pairs.iter().flat_map(|pair| &pair.elements);
    let elements: Vec<(f64, f64)> = elements.map(|element| (element.label, element.score)).collect();
    reliability(&elements, BINS)
        .ok_or_else(|| Error::input("--reliability: expected elements with scores from 0 to 1"))
}
