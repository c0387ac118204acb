//! Watching a forward pass: named stages for parity tests, and a pause between layers.

use std::fmt;

use burn::tensor::Tensor;

use crate::error::Result;

/// A place in the model whose output a parity test compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Patches after the patch embedding, `[B, N, Dv]`.
    PatchEmbed,
    /// The same with positions added, behind the class token where there is one.
    PosEmbed,
    /// After vision block `n`.
    VisionBlock(usize),
    /// `DeepStack` feature set `k`, `[B, N / merge², D]`.
    DeepStack(usize),
    /// The patches of each token side by side, `[B, N / merge², merge² * Dv]`, where that is a step of its own.
    PixelShuffle,
    /// Merged picture tokens, `[B, N / merge², D]`.
    Merger,
    /// Decoder input, `[B, T, D]`.
    InputsEmbeds,
    /// After decoder layer `n`, its `DeepStack` addition included.
    Layer(usize),
    /// After the final norm, answer rows only.
    Norm,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PatchEmbed => f.write_str("patch_embed"),
            Self::PosEmbed => f.write_str("pos_embed"),
            Self::VisionBlock(n) => write!(f, "vision_block.{n}"),
            Self::DeepStack(k) => write!(f, "deepstack.{k}"),
            Self::PixelShuffle => f.write_str("pixel_shuffle"),
            Self::Merger => f.write_str("merger"),
            Self::InputsEmbeds => f.write_str("inputs_embeds"),
            Self::Layer(n) => write!(f, "layer.{n}"),
            Self::Norm => f.write_str("norm"),
        }
    }
}

/// A part of answering a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The vision tower reads the picture.
    Picture,
    /// The decoder reads the questions, and what they share unless it has read that before.
    Questions,
}

/// Watches a forward pass. `()` watches nothing and costs nothing.
#[allow(async_fn_in_trait)]
pub trait Observer {
    /// Called with the output of every stage.
    fn stage(&self, stage: Stage, output: &Tensor<3>) {
        let _ = (stage, output);
    }

    /// Called when a part begins.
    fn phase(&self, phase: Phase) {
        let _ = phase;
    }

    /// Called between layers; an error stops the pass. In a browser this is where
    /// the event loop gets its turn and an abort is noticed.
    async fn between_layers(&self) -> Result<()> {
        Ok(())
    }
}

impl Observer for () {}
