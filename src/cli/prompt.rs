//! `imatch prompt`: the exact model input.

use std::fmt::Write as _;

use serde::Serialize;

use super::batch::Batch;
use super::input::Flags;
use super::{json, print};
use crate::engine::Processor;
use crate::error::Result;
use crate::image::Picture;
use crate::text::Request;

/// The object of `prompt --json`; field order is part of the contract.
#[derive(Serialize)]
pub(super) struct Input {
    image: ImageInput,
    questions: Vec<QuestionInput>,
}

#[derive(Serialize)]
struct ImageInput {
    grid_thw: [usize; 3],
    n_tokens: usize,
}

#[derive(Serialize)]
struct QuestionInput {
    kind: &'static str,
    element: Option<String>,
    text: String,
    token_ids: Vec<u32>,
    answer_token_ids: Vec<u32>,
}

pub(super) async fn run(flags: &Flags) -> Result<()> {
    if let Some(batch) = Batch::open(&flags.batch, "questions")? {
        let processor = flags.model.processor().await?;
        return batch.run(async |request, picture| input(&processor, request, picture)).await;
    }
    let (request, picture) = flags.question.read()?;
    let input = input(&flags.model.processor().await?, &request, &picture)?;
    print(&if flags.json { json(&input)? } else { readable(&input) })
}

/// What the model would read.
pub(super) fn input(processor: &Processor, request: &Request, picture: &Picture) -> Result<Input> {
    let grid_thw = processor.grid_thw(picture)?;
    let n_tokens = processor.n_image_tokens(grid_thw);
    let questions = processor
        .questions(request, n_tokens)?
        .into_iter()
        .map(|question| QuestionInput {
            kind: if question.element.is_some() { "element" } else { "overall" },
            element: question.element.map(|element| element.to_string()),
            text: question.text,
            token_ids: question.token_ids,
            answer_token_ids: question.answer_token_ids,
        })
        .collect();
    Ok(Input { image: ImageInput { grid_thw, n_tokens }, questions })
}

fn readable(input: &Input) -> String {
    let [t, h, w] = input.image.grid_thw;
    let mut text = format!("picture: {t} x {h} x {w} patches, {} tokens", input.image.n_tokens);
    for question in &input.questions {
        let about = question.element.as_deref().unwrap_or("overall");
        let _ = write!(text, "\n\n{about}: {} tokens\n{}", question.token_ids.len(), question.text);
    }
    text
}
