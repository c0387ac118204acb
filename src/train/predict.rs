//! What a learner says about pictures, without a conversion in between: for validation, and for
//! labels where people gave none.

use burn::tensor::Device;
use serde::Serialize;

use super::batch::Batch;
use super::instructions::Instructions;
use super::objective::Learner;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::score::{ElementScore, OverallScore, ScoringOptions, element, overall};
use crate::text::{PromptType, Request};

/// The scores of one picture, in the form of `score --batch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// The picture's name in its records.
    pub img_path: String,
    /// Its prompt.
    pub prompt: String,
    /// The prompt's type, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_type: Option<PromptType>,
    /// The whole.
    pub overall: OverallScore,
    /// Its elements in the order of the request.
    pub elements: Vec<ElementScore>,
    /// The options behind the numbers.
    pub scoring: ScoringOptions,
}

impl Instructions<'_> {
    /// Asks a learner without automatic differentiation ([`burn::module::Module::valid`]) on its
    /// `device`; categories and prompt type are named as they were while it learned.
    ///
    /// # Errors
    /// For pictures of a shape that cannot be used, sequences that are too long and logits that are
    /// not finite.
    pub fn predict(
        &self,
        learner: &Learner,
        device: &Device,
        img_path: &str,
        picture: &Picture,
        request: &Request,
    ) -> Result<Predicted> {
        let item = self.questions(picture, request)?;
        let batch = Batch::new(&[&item], self.config(), device)?;
        let logits = pollster::block_on(learner.answer(&batch))?.logits;
        let [rows, vocabulary] = logits.dims();
        let logits: Vec<f32> =
            logits.into_data().try_into_vec().map_err(|error| Error::internal(format!("{error:?}")))?;
        if rows != request.elements.len() + 1 {
            return Err(Error::internal(format!("{rows} answers to {} questions", item.asked.len())));
        }
        let closed = |row: usize, ids: &[u32]| -> Vec<f32> {
            ids.iter().map(|&id| logits[row * vocabulary + id as usize]).collect()
        };
        let (scoring, answers) = (self.scoring(), self.answers());
        let elements = request.elements.iter().enumerate().map(|(index, part)| {
            let [yes, no] = answers.element();
            let row = closed(index + 1, &[yes, no]);
            element(&scoring.element, part, [row[0], row[1]])
        });
        Ok(Predicted {
            img_path: img_path.to_owned(),
            prompt: request.prompt.clone(),
            prompt_type: request.prompt_type,
            overall: overall(scoring, &closed(0, &answers.overall()))?,
            elements: elements.collect::<Result<_>>()?,
            scoring: scoring.clone(),
        })
    }
}
