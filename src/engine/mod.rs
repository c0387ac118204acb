//! Picture and questions to scores.

pub mod plan;
pub mod prefix;
