//! The training loop: the same items, in the same order, to the same losses, however often it is
//! interrupted.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::batch::{Batch, Item, Source};
use super::checkpoint::Checkpoints;
use super::objective::Learner;
use super::schedule::Schedule;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// What one step measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepLog {
    /// The step, from 0.
    pub step: usize,
    /// Cross-entropy of the answers; absent while only seeing.
    pub answer_loss: Option<f32>,
    /// Share of this step's elements answered rightly, before the step learns from them.
    pub element_accuracy: Option<f32>,
    /// Auxiliary loss.
    pub auxiliary_loss: Option<f32>,
    /// Learning rate.
    pub learning_rate: f64,
}

/// What some of a step's pictures gave, weighed by their part of the step.
#[derive(Debug, Default)]
struct Tally {
    answer: Option<f32>,
    auxiliary: Option<f32>,
    right: usize,
    elements: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        let sum = |a: Option<f32>, b: Option<f32>| a.map_or(b, |a| Some(a + b.unwrap_or(0.0)));
        self.answer = sum(self.answer, other.answer);
        self.auxiliary = sum(self.auxiliary, other.auxiliary);
        self.right += other.right;
        self.elements += other.elements;
    }

    fn log(&self, step: usize, learning_rate: f64) -> StepLog {
        let accuracy = self.right as f32 / self.elements as f32;
        StepLog {
            step,
            answer_loss: self.answer,
            element_accuracy: (self.elements > 0).then_some(accuracy),
            auxiliary_loss: self.auxiliary,
            learning_rate,
        }
    }
}

/// A run folder with its learner.
pub struct Run<'a> {
    /// Where checkpoints and logs go.
    pub dir: PathBuf,
    /// The model's configuration.
    pub config: &'a ModelConfig,
    /// How long and how fast.
    pub schedule: Schedule,
    /// Where to compute, with automatic differentiation.
    pub device: Device,
}

impl Run<'_> {
    /// Trains from the last checkpoint in the run folder, or from `learner` where there is none,
    /// and calls `report` after every step.
    ///
    /// # Errors
    /// When items cannot be made, files cannot be written or the loss is not finite.
    pub fn train(
        &self,
        learner: Learner,
        source: &impl Source,
        mut report: impl FnMut(&StepLog) -> Result<()>,
    ) -> Result<Learner> {
        let schedule = &self.schedule;
        let checkpoints = self.checkpoints();
        let (mut learner, mut optimizer, first) = checkpoints.load(learner, self.optimizer(), schedule)?;
        let pools = self.pools()?;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(2);
            scope.spawn(move || {
                for step in first..schedule.steps {
                    let answer = step >= schedule.see_steps;
                    let count = if answer { schedule.batch } else { schedule.see_batch };
                    if sender.send(source.items(step, count, answer)).is_err() {
                        return;
                    }
                }
            });
            for step in first..schedule.steps {
                let items = receiver.recv().map_err(|_| Error::internal("the data thread ended early"))?;
                let items = match items {
                    Ok(items) => items,
                    Err(error) => {
                        // What was learned until here is not the data's fault.
                        checkpoints.save(&learner, &optimizer, schedule, step)?;
                        return Err(error);
                    }
                };
                let log;
                (learner, log) = self.step(step, learner, &mut optimizer, &items, &pools)?;
                report(&log)?;
                if (step + 1) % schedule.checkpoint_every == 0 || step + 1 == schedule.steps {
                    checkpoints.save(&learner, &optimizer, schedule, step + 1)?;
                }
            }
            Ok(learner)
        })
    }

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.dir)
    }

    /// One thread for each shard. What runs in such a pool does not share its work with other
    /// threads: small tensors gain more from whole shards side by side than from split products.
    fn pools(&self) -> Result<Vec<ThreadPool>> {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        (0..self.schedule.shards.min(self.schedule.batch.max(self.schedule.see_batch)))
            .map(pool)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::internal("cannot start a thread").with_source(error))
    }

    fn step(
        &self,
        step: usize,
        learner: Learner,
        optimizer: &mut ModuleOptimizer,
        items: &[Item],
        pools: &[ThreadPool],
    ) -> Result<(Learner, StepLog)> {
        let shards = items.chunks(items.len().div_ceil(pools.len()).max(1));
        let walked: Vec<Result<(GradientsParams, Tally)>> = std::thread::scope(|scope| {
            let walks: Vec<_> = shards
                .zip(pools)
                .map(|(shard, pool)| {
                    // Leaves of its own: graphs that share a node are walked one after the other.
                    let learner = learner.valid().train();
                    let all = items.len();
                    scope.spawn(move || pool.install(|| self.walk(step, &learner, shard, all)))
                })
                .collect();
            // A panic has been said when it happened; it goes on from here.
            walks.into_iter().map(|walk| walk.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let mut gradients = GradientsAccumulator::new();
        let mut tally = Tally::default();
        for shard in walked {
            let (shard, part) = shard?;
            gradients.accumulate(&learner, shard);
            tally.add(&part);
        }
        let log = tally.log(step, self.schedule.learning_rate_at(step));
        let learner = optimizer.step(log.learning_rate, learner, gradients.grads());
        Ok((learner, log))
    }

    /// Gradients and figures of a shard of a step's `all` pictures: one forward pass after the
    /// other, each over pictures of one grid.
    fn walk(
        &self,
        step: usize,
        learner: &Learner,
        shard: &[Item],
        all: usize,
    ) -> Result<(GradientsParams, Tally)> {
        let mut gradients = GradientsAccumulator::new();
        let mut tally = Tally::default();
        for pass in passes(shard, self.schedule.micro_batch) {
            let share = pass.len() as f32 / all as f32;
            let (loss, part) = self.objective(step, learner, &pass, share)?;
            gradients.accumulate(learner, GradientsParams::from_grads(loss.backward(), learner));
            tally.add(&part);
        }
        Ok((gradients.grads(), tally))
    }

    /// The loss of one forward pass, weighed by its `share` of the step, and its figures.
    fn objective(
        &self,
        step: usize,
        learner: &Learner,
        items: &[&Item],
        share: f32,
    ) -> Result<(Tensor<1>, Tally)> {
        let batch = Batch::new(items, self.config, &self.device)?;
        let mut tally = Tally::default();
        let (answer, auxiliary) = if step < self.schedule.see_steps {
            (None, Some(pollster::block_on(learner.see(&batch))?))
        } else {
            let objective = pollster::block_on(learner.answer(&batch))?;
            tally.right = objective.elements_right(&batch);
            tally.elements = batch.elements.len();
            (Some(objective.answer), objective.auxiliary)
        };
        let scalar = |loss: &Tensor<1>| -> Result<f32> {
            let value: f32 = loss.clone().into_scalar();
            if value.is_finite() {
                Ok(value * share)
            } else {
                Err(Error::input(format!(
                    "the loss of step {step} is {value}; start again with a lower learning rate"
                )))
            }
        };
        tally.answer = answer.as_ref().map(scalar).transpose()?;
        tally.auxiliary = auxiliary.as_ref().map(scalar).transpose()?;
        let weight = if answer.is_some() { self.schedule.auxiliary } else { 1.0 };
        let loss = match (answer, auxiliary) {
            (Some(answer), Some(auxiliary)) => answer + auxiliary * weight,
            (Some(loss), None) | (None, Some(loss)) => loss,
            (None, None) => return Err(Error::internal("a step needs a loss")),
        };
        Ok((loss * share, tally))
    }

    fn optimizer(&self) -> ModuleOptimizer {
        let Schedule { beta_2, weight_decay, clip, .. } = self.schedule;
        let optimizer =
            AdamWConfig::new().with_beta_2(beta_2 as f32).with_weight_decay(weight_decay as f32).init();
        optimizer.with_grad_clipping(GradientClippingConfig::Norm(clip as f32).init())
    }
}

/// Pictures that go through the model together: those of one grid, at most `most` at a time, in
/// the order in which their grids first appear.
fn passes(items: &[Item], most: usize) -> Vec<Vec<&Item>> {
    let mut passes: Vec<Vec<&Item>> = Vec::new();
    for item in items {
        let grid = item.patches.grid_thw;
        let open = |pass: &&mut Vec<&Item>| pass[0].patches.grid_thw == grid && pass.len() < most;
        match passes.iter_mut().find(open) {
            Some(pass) => pass.push(item),
            None => passes.push(vec![item]),
        }
    }
    passes
}
