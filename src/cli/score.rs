//! `imatch score`: one picture, or many from a list.

use std::fmt::Write as _;
use std::sync::Arc;

use super::batch::{Batch, Provenance};
use super::input::{DeviceKind, Flags, ModelFlags};
use super::{json, print, prompt};
use crate::engine::{Engine, Place, selftest};
use crate::error::Result;
use crate::score::ScoreResult;
use crate::weights::Bundle;

pub(super) async fn run(flags: &Flags) -> Result<()> {
    let place = flags.model.device.place()?;
    if let Some(batch) = Batch::open(&flags.batch, "overall")? {
        if batch.is_done() {
            return Ok(());
        }
        let engine = load(&flags.model, place).await?;
        batch.continues(&Provenance::of(&engine))?;
        return batch
            .run(async |request, picture| engine.open(picture, &()).await?.score(request, &()).await)
            .await;
    }
    let (request, picture) = flags.question.read()?;
    // What is wrong with the question is said before gigabytes of weights are read.
    prompt::input(&flags.model.processor().await?, &request, &picture)?;
    let engine = load(&flags.model, place).await?;
    let result = engine.open(&picture, &()).await?.score(&request, &()).await?;
    print(&if flags.json { json(&result)? } else { table(&result) })
}

/// Opens a model on a device.
async fn load(flags: &ModelFlags, place: Place) -> Result<Arc<Engine>> {
    let mut bundle = Bundle::open(&flags.model).await?;
    if let Some(kind) = flags.overall {
        bundle.facts.scoring = bundle.facts.scoring.with_overall(kind);
    }
    let golden = bundle.golden.clone();
    let engine = Engine::load(bundle, place, async |_, _| Ok(())).await?;
    if flags.device == DeviceKind::Gpu {
        // The golden answers were recorded with the model's own options.
        let golden = if flags.overall.is_none() { golden.as_slice() } else { &[] };
        selftest::run(&engine, golden, &()).await?;
    }
    Ok(engine)
}

/// A result for people.
fn table(result: &ScoreResult) -> String {
    let [low, high] = result.overall.scale;
    let mut text = format!("overall  {:.2}  of {low} to {high}", result.overall.score);
    let _ = match result.overall.probability {
        Some(probability) => write!(text, "  (yes {:.1} %)", 100.0 * probability),
        None => write!(text, "  (confidence {:.2})", result.overall.confidence),
    };
    let width = result.elements.iter().map(|element| element.element.chars().count()).max().unwrap_or(0);
    for element in &result.elements {
        let filled = (element.score * 20.0).round() as usize;
        let bar = format!("{}{}", "█".repeat(filled), "·".repeat(20 - filled.min(20)));
        let verdict = if element.present { "present" } else { "absent" };
        let _ = write!(
            text,
            "\n{:width$}  {bar} {:5.1} %  {verdict}  {}",
            element.element,
            100.0 * element.score,
            element.category
        );
    }
    let _ = write!(text, "\n{} {} on {}", result.model.name, result.model.quantization, result.device);
    text
}
