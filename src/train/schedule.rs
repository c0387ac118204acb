//! How long and how fast a run learns.

use crate::error::{Error, Result};

/// Most pictures of a step: the samples of two steps must not overlap.
const MAX_BATCH: usize = 1 << 20;

/// Most shares of a step, and threads that a run starts.
const MAX_SHARDS: usize = 256;

/// Largest factor that can mean anything.
const MAX_FACTOR: f64 = 1e3;

/// How long and how fast.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    /// Steps in which the vision tower learns to see, from the auxiliary loss alone; the decoder's
    /// layers rest.
    pub see_steps: usize,
    /// Steps in all.
    pub steps: usize,
    /// Pictures per step while seeing.
    pub see_batch: usize,
    /// Pictures per step while answering.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up at the start of each of the two phases.
    pub warmup: usize,
    /// Decoupled weight decay of `AdamW`.
    pub weight_decay: f64,
    /// Decay of `AdamW`'s mean of squared gradients.
    pub beta_2: f64,
    /// Largest norm of a parameter's gradient; longer ones are shortened to it.
    pub clip: f64,
    /// Weight of the auxiliary loss beside the answers' loss.
    pub auxiliary: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Shares of a step's pictures that are computed side by side, one thread each.
    pub shards: usize,
    /// Most pictures of one forward pass; gradients add up over the passes of a step. Neither
    /// shards nor passes change the loss but by rounding.
    pub micro_batch: usize,
}

impl Schedule {
    /// The demo model's: an hour on two cores that were busy besides.
    pub fn shapes() -> Self {
        Self {
            see_steps: 1500,
            steps: 5500,
            see_batch: 32,
            batch: 24,
            learning_rate: 1.5e-3,
            warmup: 100,
            weight_decay: 0.01,
            beta_2: 0.98,
            clip: 1.0,
            auxiliary: 0.3,
            checkpoint_every: 250,
            shards: 2,
            micro_batch: 32,
        }
    }

    /// Pictures per step of fine-tuning.
    pub const TUNE_BATCH: usize = 8;

    /// Fine-tuning; `adapter` says whether only an adapter learns.
    ///
    /// The paper does not publish its schedule. 2e-5 with a cosine and 3 % of warm-up in batches of
    /// 8 are what a third party's reproduction takes; adapters bear more (Q-Align takes 2e-4).
    pub fn tune(steps: usize, adapter: bool) -> Self {
        let batch = Self::TUNE_BATCH;
        Self {
            see_steps: 0,
            steps,
            see_batch: batch,
            batch,
            learning_rate: if adapter { 1e-4 } else { 2e-5 },
            warmup: (steps as f64 * 0.03).ceil() as usize,
            weight_decay: 0.01,
            beta_2: 0.999,
            clip: 1.0,
            auxiliary: 0.0,
            checkpoint_every: 250,
            shards: 1,
            micro_batch: 8,
        }
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::error::Kind::Input), naming what is zero, negative or too large, and for
    /// more steps of seeing than there are.
    pub fn validate(&self) -> Result<()> {
        for (name, count) in [
            ("steps", self.steps),
            ("see-batch", self.see_batch),
            ("batch", self.batch),
            ("checkpoint-every", self.checkpoint_every),
            ("shards", self.shards),
            ("micro-batch", self.micro_batch),
        ] {
            if count == 0 {
                return Err(Error::input(format!("{name} is 0, expected at least 1")));
            }
        }
        for (name, count, most) in [
            ("see-batch", self.see_batch, MAX_BATCH),
            ("batch", self.batch, MAX_BATCH),
            ("shards", self.shards, MAX_SHARDS),
        ] {
            if count > most {
                return Err(Error::input(format!("{name} is {count}, expected at most {most}")));
            }
        }
        for (name, value, least) in [
            ("learning-rate", self.learning_rate, f64::MIN_POSITIVE),
            ("weight-decay", self.weight_decay, 0.0),
            ("auxiliary", self.auxiliary, 0.0),
            ("clip", self.clip, 1e-6),
        ] {
            if !(least..=MAX_FACTOR).contains(&value) {
                return Err(Error::input(format!(
                    "{name} is {value}, expected {} of at most {MAX_FACTOR}",
                    match least {
                        0.0 => "0 or a number".to_owned(),
                        least if least > f64::MIN_POSITIVE => format!("a number of at least {least}"),
                        _ => "a number above 0".to_owned(),
                    }
                )));
            }
        }
        if !(0.0..1.0).contains(&self.beta_2) {
            return Err(Error::input(format!("beta-2 is {}, expected 0 to below 1", self.beta_2)));
        }
        if self.see_steps > self.steps {
            let Self { see_steps, steps, .. } = self;
            return Err(Error::input(format!(
                "see-steps is {see_steps}, more than the {steps} steps in all"
            )));
        }
        Ok(())
    }

    /// Learning rate of a step: warm-up at the start of each phase, then a half cosine down to
    /// 2 % of the peak at the last step.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let since = if step < self.see_steps { step } else { step - self.see_steps };
        let warm = ((since + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let progress = step as f64 / self.steps.max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * warm * (0.02 + 0.98 * cosine)
    }
}
