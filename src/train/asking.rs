//! What is asked about a scene, in the words of the product.

use crate::data::rng::Rng;
use crate::data::synth::{Sample, Sampler};
use crate::error::Result;
use crate::score::ScoringOptions;
use crate::text::Request;

/// Share of prompts whose type is not named in training.
const UNTYPED: f32 = 0.33;

/// Share of elements whose category is not named in training.
const UNCATEGORISED: f32 = 0.15;

/// What is asked about a sample; its type and the categories are now and then left out, as
/// people do.
pub(super) fn request(sample: &Sample, rng: &mut Rng) -> Result<Request> {
    let mut leave_out = |share| rng.chance(share);
    let prompt_type = (!leave_out(UNTYPED)).then_some(sample.prompt_type);
    let elements: Vec<String> = sample
        .elements
        .iter()
        .map(|(element, _)| match element.rsplit_once(" (") {
            Some((words, _)) if leave_out(UNCATEGORISED) => words.to_owned(),
            _ => element.clone(),
        })
        .collect();
    Request::new(sample.prompt.clone(), &elements, prompt_type)
}

/// Every question about the first `count` samples of a seed, the overall ones included.
pub(super) fn questions(seed: u64, count: u64, scoring: &ScoringOptions) -> Result<Vec<String>> {
    let sampler = Sampler::new(seed).with_size(1);
    let mut questions = Vec::new();
    for index in 0..count {
        let request = request(&sampler.sample(index), &mut Rng::stream(seed, index))?;
        questions.push(request.overall_text(scoring.overall.question()));
        questions.extend(request.element_texts());
    }
    Ok(questions)
}
