//! The figures by category of element, by type of prompt and by generator.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{EvalReport, report};
use crate::data::pairing::{Pair, PairedElement};
use crate::metrics::{self, PlccVariant};
use crate::text::{Category, PromptType};

/// The elements of one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryRow {
    /// The category.
    pub category: Category,
    /// Its elements.
    pub n_elements: usize,
    /// Share of them on the right side of a half.
    pub accuracy: f64,
    /// The accuracy of always giving the more frequent answer: what `accuracy` has to be seen against.
    pub majority: f64,
}

/// The accuracy of every category that occurs, in the order of [`Category::ALL`].
pub fn by_category(pairs: &[Pair<'_>]) -> Vec<CategoryRow> {
    let elements: Vec<&PairedElement> = pairs.iter().flat_map(|pair| &pair.elements).collect();
    let row = |category| {
        let of: Vec<(f64, f64)> = elements
            .iter()
            .filter(|element| element.category == category)
            .map(|element| (element.label, element.score))
            .collect();
        let shown = of.iter().filter(|(label, _)| *label >= 0.5).count();
        let majority = shown.max(of.len() - shown) as f64 / of.len() as f64;
        let accuracy = metrics::accuracy(&of)?;
        Some(CategoryRow { category, n_elements: of.len(), accuracy, majority })
    };
    Category::ALL.into_iter().filter_map(row).collect()
}

/// The pictures whose prompts are of one type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeRow {
    /// The type; `None` for the records that do not say.
    #[serde(rename = "type")]
    pub prompt_type: Option<PromptType>,
    /// Their figures.
    #[serde(flatten)]
    pub report: EvalReport,
}

/// The figures of every type of prompt that occurs.
pub fn by_type(pairs: &[Pair<'_>], variant: PlccVariant) -> Vec<TypeRow> {
    let types = [Some(PromptType::Real), Some(PromptType::Synthetic), None];
    let row = |prompt_type| {
        let report = report(pairs.iter().filter(|pair| pair.record.prompt_type == prompt_type), variant);
        TypeRow { prompt_type, report }
    };
    types.into_iter().map(row).filter(|row| row.report.n_images > 0).collect()
}

/// The pictures of one generator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GeneratorRow {
    /// The first folder of the pictures' paths; `None` for pictures that lie in no folder.
    pub generator: Option<String>,
    /// Mean overall label.
    pub label: f64,
    /// Mean overall prediction.
    pub prediction: f64,
    /// Place by the labels, 1 for the best; equals share the mean of their places.
    pub label_rank: f64,
    /// Place by the predictions.
    pub prediction_rank: f64,
    /// The figures.
    #[serde(flatten)]
    pub report: EvalReport,
}

/// Generators from the best to the worst by their labels, and how well the predictions order them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaderboard {
    /// Spearman's rank correlation of the generators' mean labels and mean predictions; `None` for fewer than two.
    pub srcc: Option<f64>,
    /// Kendall's tau-b of the same.
    pub krcc: Option<f64>,
    /// The generators.
    pub generators: Vec<GeneratorRow>,
}

/// The generators that occur.
pub fn by_generator(pairs: &[Pair<'_>], variant: PlccVariant) -> Leaderboard {
    let mut groups = BTreeMap::<Option<&str>, Vec<&Pair<'_>>>::new();
    for pair in pairs {
        groups.entry(generator(&pair.record.img_path)).or_default().push(pair);
    }
    let mean = |pairs: &[&Pair<'_>], of: fn(&Pair<'_>) -> f64| {
        pairs.iter().map(|pair| of(pair)).sum::<f64>() / pairs.len() as f64
    };
    let labels: Vec<f64> = groups.values().map(|pairs| mean(pairs, |pair| pair.label)).collect();
    let predictions: Vec<f64> = groups.values().map(|pairs| mean(pairs, |pair| pair.score)).collect();
    let places = |means: &[f64]| metrics::ranks(&means.iter().map(|mean| -mean).collect::<Vec<f64>>());
    let (label_ranks, prediction_ranks) = (places(&labels), places(&predictions));
    let mut generators: Vec<GeneratorRow> = groups
        .into_iter()
        .enumerate()
        .map(|(index, (generator, pairs))| GeneratorRow {
            generator: generator.map(str::to_owned),
            label: labels[index],
            prediction: predictions[index],
            label_rank: label_ranks[index],
            prediction_rank: prediction_ranks[index],
            report: report(pairs, variant),
        })
        .collect();
    generators.sort_by(|a, b| a.label_rank.total_cmp(&b.label_rank));
    let (srcc, krcc) = (metrics::srcc(&labels, &predictions), metrics::krcc(&labels, &predictions));
    Leaderboard { srcc, krcc, generators }
}

/// `SDXL-Turbo` of `SDXL-Turbo/00110.png`.
fn generator(img_path: &str) -> Option<&str> {
    let path = img_path.trim_start_matches("./");
    let (folder, _) = path.split_once(['/', '\\'])?;
    Some(folder).filter(|folder| !folder.is_empty())
}
