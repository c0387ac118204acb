//! The ids of the answers.

use std::collections::HashMap;

use super::options::ScoringOptions;
use crate::text::{OverallKind, Tokenizer};
use crate::{Error, Result};

/// The ids whose logits are read: one each, all distinct within a question.
///
/// They are the forms without a leading space, since the answer follows `assistant\n` directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerTokens {
    /// Levels from the lowest to the highest; empty when the overall question is of kind `yes_no`.
    pub levels: Vec<u32>,
    /// Yes.
    pub yes: u32,
    /// No.
    pub no: u32,
}

impl AnswerTokens {
    /// Looks the tokens of the options up.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model), naming the token, where it is not exactly one id
    /// of this tokenizer or shares its id with another, and for invalid options.
    pub fn resolve(tokenizer: &Tokenizer, options: &ScoringOptions) -> Result<Self> {
        options.validate()?;
        let levels = match options.overall.kind {
            OverallKind::Levels => distinct(tokenizer, &options.overall.tokens)?,
            OverallKind::YesNo => Vec::new(),
        };
        let [yes, no] = distinct(tokenizer, &options.element.tokens)?[..] else {
            return Err(Error::internal("two element tokens did not give two ids"));
        };
        Ok(Self { levels, yes, no })
    }

    /// The closed set of the overall question, in the order of its logits.
    pub fn overall(&self) -> Vec<u32> {
        if self.levels.is_empty() { self.element().to_vec() } else { self.levels.clone() }
    }

    /// The closed set of an element's question: yes, no.
    pub fn element(&self) -> [u32; 2] {
        [self.yes, self.no]
    }
}

fn distinct(tokenizer: &Tokenizer, tokens: &[String]) -> Result<Vec<u32>> {
    let mut owners = HashMap::new();
    tokens
        .iter()
        .map(|token| {
            let id = tokenizer.single(token)?;
            match owners.insert(id, token) {
                None => Ok(id),
                Some(other) => {
                    Err(Error::model(format!("answers {other:?} and {token:?} share the id {id}")))
                }
            }
        })
        .collect()
}
