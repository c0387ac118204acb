//! The answers of `imatch eval` for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::{Table, figure};
use crate::data::evaluation::{Calibration, CategoryRow, EvalReport, Intervals, Leaderboard, TypeRow};
use crate::metrics::Reliability;

/// The names of the figures, in the order of [`Figures::values`](crate::data::evaluation::Figures::values).
const NAMES: [&str; 6] = ["SRCC", "PLCC", "KRCC", "RMSE", "accuracy", "final"];

/// Everything that was asked for; without more flags it is the report alone.
#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    pub(super) report: EvalReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) intervals: Option<Intervals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by_category: Option<Vec<CategoryRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by_type: Option<Vec<TypeRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by_generator: Option<Leaderboard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reliability: Option<Reliability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calibration: Option<Calibration>,
}

/// Everything that was asked for, part by part.
pub(super) fn text(answer: &Answer) -> String {
    let Answer { report, intervals, by_category, by_type, by_generator, reliability, calibration } = answer;
    let parts = [
        Some(figures(report, intervals.as_ref())),
        by_category.as_deref().map(categories),
        by_type.as_deref().map(types),
        by_generator.as_ref().map(generators),
        reliability.as_ref().map(bins),
        calibration.as_ref().map(temperatures),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn figures(report: &EvalReport, intervals: Option<&Intervals>) -> String {
    let mut text = format!("{} images, {} elements", report.n_images, report.n_elements);
    for (index, (name, value)) in NAMES.iter().zip(report.figures.values()).enumerate() {
        let value = value.map_or_else(|| "undefined".to_owned(), |value| format!("{value:.4}"));
        let _ = write!(text, "\n{name:9}{value}");
        let Some(interval) = intervals.map(|intervals| intervals.figures[index]) else { continue };
        if let (Some(low), Some(high)) = (interval.low, interval.high) {
            let _ = write!(text, "   {low:.4} to {high:.4}");
        }
        if interval.undefined > 0 {
            let _ = write!(text, "   undefined in {} resamples", interval.undefined);
        }
    }
    if let Some(Intervals { resamples, seed, .. }) = intervals {
        let _ =
            write!(text, "\nintervals: middle 95 % of {resamples} resamples of the pictures, seed {seed}");
    }
    text
}

fn categories(rows: &[CategoryRow]) -> String {
    let mut table = Table::new(&["category", "elements", "accuracy", "majority"]);
    for CategoryRow { category, n_elements, accuracy, majority } in rows {
        let figures = [*accuracy, *majority].map(|value| figure(Some(value)));
        table.row([category.to_string(), n_elements.to_string()].into_iter().chain(figures));
    }
    table.to_string()
}

fn types(rows: &[TypeRow]) -> String {
    let heading = [&["prompts", "images", "elements"][..], &NAMES[..]].concat();
    let mut table = Table::new(&heading);
    for TypeRow { prompt_type, report } in rows {
        let name = prompt_type.map_or("unknown", |prompt_type| prompt_type.name());
        let cells = [name.to_owned(), report.n_images.to_string(), report.n_elements.to_string()];
        table.row(cells.into_iter().chain(report.figures.values().map(figure)));
    }
    table.to_string()
}

fn generators(board: &Leaderboard) -> String {
    let mut table =
        Table::new(&["generator", "place", "predicted", "label", "prediction", "images", "SRCC", "accuracy"]);
    for row in &board.generators {
        let name = row.generator.clone().unwrap_or_else(|| "(no folder)".to_owned());
        let place = |rank: f64| format!("{rank}");
        let figures = row.report.figures;
        table.row([
            name,
            place(row.label_rank),
            place(row.prediction_rank),
            figure(Some(row.label)),
            figure(Some(row.prediction)),
            row.report.n_images.to_string(),
            figure(figures.srcc),
            figure(figures.accuracy),
        ]);
    }
    format!("{table}\norder of the generators: SRCC {}, KRCC {}", figure(board.srcc), figure(board.krcc))
}

fn bins(reliability: &Reliability) -> String {
    let mut table = Table::new(&["element scores", "elements", "predicted", "observed"]);
    for bin in &reliability.bins {
        let range = format!("{:.1} to {:.1}", bin.from, bin.to);
        table.row([range, bin.n.to_string(), figure(bin.predicted), figure(bin.observed)]);
    }
    format!("{table}\nexpected calibration error {:.4}", reliability.ece)
}

fn temperatures(calibration: &Calibration) -> String {
    let Calibration { overall, element, scoring, .. } = calibration;
    let mut table = Table::new(&["question", "temperature", "questions", "nats before", "nats after"]);
    for (name, fit, temperature) in
        [("overall", overall, scoring.overall.temperature), ("element", element, scoring.element.temperature)]
    {
        table.row([
            name.to_owned(),
            figure(Some(temperature)),
            fit.map_or(0, |fit| fit.n).to_string(),
            figure(fit.map(|fit| fit.nll_before)),
            figure(fit.map(|fit| fit.nll_after)),
        ]);
    }
    table.to_string()
}
