//! Picture and request to the exact model input, without running the model.

use crate::config::{ImageConfig, ModelConfig};
use crate::error::Result;
use crate::image::Picture;
use crate::image::patches::{Patches, grid, preprocess};
use crate::model::token_positions;
use crate::score::{AnswerTokens, ScoringOptions};
use crate::text::{ChatTemplate, Element, Request, Tokenizer, check_length};
use crate::weights::ModelFacts;

/// One question as the model reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The element asked about; none for the overall question.
    pub element: Option<Element>,
    /// The wording without the template.
    pub text: String,
    /// The complete sequence of this question asked alone.
    pub token_ids: Vec<u32>,
    /// The closed set of answers, in the order of the logits.
    pub answer_token_ids: Vec<u32>,
}

/// Everything that stands before the model.
pub struct Processor {
    config: ModelConfig,
    image: ImageConfig,
    template: ChatTemplate,
    scoring: ScoringOptions,
    answers: AnswerTokens,
}

impl Processor {
    /// Resolves every token that template and answers need.
    ///
    /// # Errors
    /// Where tokenizer, configuration and scoring options contradict each other.
    pub fn new(facts: ModelFacts) -> Result<Self> {
        let ModelFacts { config, image, tokenizer, scoring } = facts;
        let tokenizer = Tokenizer::from_json(&tokenizer)?;
        let answers = AnswerTokens::resolve(&tokenizer, &scoring)?;
        let template = ChatTemplate::new(tokenizer, config.family, config.tokens)?;
        Ok(Self { config, image, template, scoring, answers })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The scoring options.
    pub fn scoring(&self) -> &ScoringOptions {
        &self.scoring
    }

    /// The answer tokens.
    pub fn answers(&self) -> &AnswerTokens {
        &self.answers
    }

    /// A picture's patches.
    ///
    /// # Errors
    /// Where the picture's shape cannot be used.
    pub fn patches(&self, picture: &Picture) -> Result<Patches> {
        preprocess(picture, &self.image)
    }

    /// Tiles of a picture, and rows and columns of patches in each.
    ///
    /// # Errors
    /// Where the picture's shape cannot be used.
    pub fn grid_thw(&self, picture: &Picture) -> Result<[usize; 3]> {
        grid(picture, &self.image)
    }

    /// Tokens that a picture of such a grid takes in a sequence.
    pub fn n_image_tokens(&self, [tiles, h, w]: [usize; 3]) -> usize {
        tiles * (h / self.image.merge_size) * (w / self.image.merge_size)
    }

    /// Positions of a sequence with a picture of such a grid on all three axes, and the position after
    /// the last.
    pub fn positions(&self, ids: &[u32], grid_thw: [usize; 3]) -> (Vec<[usize; 3]>, usize) {
        token_positions(ids, &self.config, grid_thw)
    }

    /// The questions of a request about a picture of `n_image_tokens` tokens: the overall one
    /// first, then the elements in their order.
    ///
    /// # Errors
    /// Where a text cannot be encoded or a sequence is longer than the model's positions.
    pub fn questions(&self, request: &Request, n_image_tokens: usize) -> Result<Vec<Question>> {
        let overall = request.overall_text(self.scoring.overall.question());
        let mut questions = vec![self.question(request, None, overall, n_image_tokens)?];
        for (element, text) in request.elements.iter().zip(request.element_texts()) {
            questions.push(self.question(request, Some(element.clone()), text, n_image_tokens)?);
        }
        Ok(questions)
    }

    /// The complete input of one text about a picture of `n_image_tokens` tokens.
    ///
    /// # Errors
    /// Where the text cannot be encoded or the sequence is longer than the model's positions;
    /// the latter names `prompt`.
    pub(super) fn sequence(&self, prompt: &str, text: &str, n_image_tokens: usize) -> Result<Vec<u32>> {
        let token_ids = self.template.sequence(text, n_image_tokens)?;
        check_length(prompt, token_ids.len(), self.config.text.max_position_embeddings)?;
        Ok(token_ids)
    }

    fn question(
        &self,
        request: &Request,
        element: Option<Element>,
        text: String,
        n_image_tokens: usize,
    ) -> Result<Question> {
        let token_ids = self.sequence(&request.prompt, &text, n_image_tokens)?;
        let answer_token_ids =
            if element.is_some() { self.answers.element().to_vec() } else { self.answers.overall() };
        Ok(Question { element, text, token_ids, answer_token_ids })
    }
}
