//! Every stage of one question on one device, for comparison with another implementation.

use std::cell::RefCell;
use std::sync::Arc;

use burn::tensor::Tensor;
use serde::Serialize;

use super::session::{Rows, read};
use super::{Engine, Question};
use crate::error::Result;
use crate::image::Picture;
use crate::model::{Observer, Stage};

/// What a question computes on its way to the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The complete input.
    pub token_ids: Vec<u32>,
    /// Tokens whose logits were read.
    pub answer_token_ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// Stages in the order in which they were first computed, rows of all tokens together.
    pub stages: Vec<TracedStage>,
}

/// The output of one [`Stage`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TracedStage {
    /// Name of the stage, `layer.0` for instance.
    pub stage: String,
    /// `[1, rows, width]`.
    pub shape: [usize; 3],
    /// Values row by row.
    pub values: Vec<f32>,
}

/// Keeps every output on the device until the pass is over.
#[derive(Default)]
struct Taps(RefCell<Vec<(Stage, Tensor<3>)>>);

impl Observer for Taps {
    fn stage(&self, stage: Stage, output: &Tensor<3>) {
        let mut taps = self.0.borrow_mut();
        match taps.iter_mut().find(|(known, _)| *known == stage) {
            // The question's own tokens behind those of the prefix.
            Some((_, rows)) => *rows = Tensor::cat(vec![rows.clone(), output.clone()], 1),
            None => taps.push((stage, output.clone())),
        }
    }
}

impl Engine {
    /// Asks `text`, the whole of a question without the template around it, through the same
    /// cached prefix and packed pass as a score, and reads back every stage.
    ///
    /// # Errors
    /// As [`Session::score`](super::Session::score).
    pub async fn trace(self: &Arc<Self>, picture: &Picture, text: &str) -> Result<Trace> {
        let taps = Taps::default();
        let mut session = self.open(picture, &taps).await?;
        let question = Question {
            element: None,
            text: text.to_owned(),
            token_ids: self.processor().sequence(text, text, session.n_image_tokens())?,
            answer_token_ids: self.answer_ids.clone(),
        };
        let (mut logits, _) = session.ask_for(std::slice::from_ref(&question), Rows::All, &taps).await?;
        let mut stages = Vec::new();
        for (stage, output) in taps.0.into_inner() {
            let (shape, values) = (output.dims(), read(output).await?);
            stages.push(TracedStage { stage: stage.to_string(), shape, values });
        }
        let Question { token_ids, answer_token_ids, .. } = question;
        Ok(Trace { token_ids, answer_token_ids, logits: logits.pop().unwrap_or_default(), stages })
    }
}
