//! What can be said to `imatch train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::input::DeviceKind;
use crate::data::evalmuse::LabelRules;
use crate::error::{Error, Result};
use crate::train::{Base, Recipe, Schedule, Selection, Strategy};

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    #[command(flatten)]
    pub(super) start: StartFlags,
    /// Run folder: new or empty, except with --resume
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Continue the run in the folder with the options it was started with
    #[arg(long)]
    pub(super) resume: bool,
    #[arg(long, value_name = "N", help = or("Seed of weights, order and strategies", super::SEED))]
    pub(super) seed: Option<u64>,
    /// Where to compute: cpu, or gpu in builds with --features gpu or cuda
    #[arg(long, value_enum, default_value = "cpu")]
    pub(super) device: DeviceKind,
    #[command(flatten)]
    pub(super) rules: RuleFlags,
    #[command(flatten)]
    pub(super) adapter: AdapterFlags,
    #[command(flatten)]
    pub(super) schedule: ScheduleFlags,
    #[command(flatten)]
    pub(super) lessons: LessonFlags,
    #[command(flatten)]
    pub(super) strategies: StrategyFlags,
    #[command(flatten)]
    pub(super) validation: ValidationFlags,
}

/// Where the run starts and what it learns from.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Run")]
pub(super) struct StartFlags {
    /// Start from random weights on synthetic scenes
    #[arg(long, conflicts_with_all = ["model", "records", "images"])]
    pub(super) from_scratch: bool,
    /// Start from a model folder: Hugging Face or converted
    #[arg(long, value_name = "DIR")]
    pub(super) model: Option<PathBuf>,
    /// `EvalMuse` records to learn from; may be given again
    #[arg(long, value_name = "FILE")]
    pub(super) records: Vec<PathBuf>,
    /// Folder that `img_path` in the records is relative to
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
}

/// What is left out of the records.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Records")]
pub(super) struct RuleFlags {
    /// Leave out prompts that name no subject (`promt_meaningless`)
    #[arg(long)]
    skip_meaningless_prompts: bool,
    /// Leave out elements where their split may be wrong (`split_confidence`)
    #[arg(long)]
    skip_doubtful_splits: bool,
    /// Leave out elements where raters were not sure (`attribute_confidence`)
    #[arg(long)]
    skip_unsure_raters: bool,
}

impl From<&RuleFlags> for LabelRules {
    fn from(said: &RuleFlags) -> Self {
        Self {
            skip_meaningless_prompts: said.skip_meaningless_prompts,
            skip_doubtful_splits: said.skip_doubtful_splits,
            skip_unsure_raters: said.skip_unsure_raters,
        }
    }
}

/// What of the model learns.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Adapter (without: every weight learns)")]
pub(super) struct AdapterFlags {
    /// Learn a low-rank adapter (`LoRA`) of this rank instead of the weights
    #[arg(long, value_name = "RANK")]
    pub(super) lora: Option<usize>,
    /// Scale of the adapter, divided by its rank [default: twice the rank]
    #[arg(long, value_name = "X")]
    pub(super) lora_alpha: Option<f64>,
    /// Layers to adapt, as PEFT's `target_modules`: names with commas, a regular expression, or all-linear [default: the decoder's seven]
    #[arg(long, value_name = "NAMES")]
    pub(super) lora_targets: Option<String>,
    /// How frozen weights lie in memory; less than f32 is `QLoRA` [default: f32]
    #[arg(long, value_enum, value_name = "f32|q8_0|q4_0")]
    pub(super) lora_base: Option<BaseKind>,
}

/// How frozen weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BaseKind {
    #[value(name = "f32")]
    F32,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

impl From<BaseKind> for Base {
    fn from(kind: BaseKind) -> Self {
        match kind {
            BaseKind::F32 => Self::F32,
            BaseKind::Q8 => Self::Q8,
            BaseKind::Q4 => Self::Q4,
        }
    }
}

/// How long and how fast.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Schedule")]
pub(super) struct ScheduleFlags {
    /// Times that each record is seen [default: 2; the paper does not publish this; our default]
    #[arg(long, value_name = "X", conflicts_with = "steps")]
    pub(super) epochs: Option<f64>,
    #[arg(long, value_name = "N", help = or("Steps in all; from scratch", Schedule::shapes().steps))]
    pub(super) steps: Option<usize>,
    #[arg(long, value_name = "N", help = both("Pictures per step", |s| s.batch))]
    pub(super) batch: Option<usize>,
    #[arg(long, value_name = "N", help = both("Most pictures of one forward pass; gradients add up over a step", |s| s.micro_batch))]
    pub(super) micro_batch: Option<usize>,
    /// Peak learning rate [default: 1.5e-3 from scratch, 1e-4 for an adapter, 2e-5 for all weights; the paper does not publish this; our default]
    #[arg(long, value_name = "X")]
    pub(super) learning_rate: Option<f64>,
    /// Steps of linear warm-up, a cosine follows [default: 100 of each phase from scratch, 3 % of the steps otherwise]
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<usize>,
    #[arg(long, value_name = "X", help = both("Decoupled weight decay", |s| s.weight_decay))]
    pub(super) weight_decay: Option<f64>,
    #[arg(long, value_name = "X", help = both("Decay of AdamW's second moment", |s| s.beta_2))]
    pub(super) beta_2: Option<f64>,
    #[arg(long, value_name = "X", help = both("Largest norm of a parameter's gradient", |s| s.clip))]
    pub(super) clip: Option<f64>,
    #[arg(long, value_name = "N", help = both("Steps between checkpoints", |s| s.checkpoint_every))]
    pub(super) checkpoint_every: Option<usize>,
    #[arg(long, value_name = "N", help = both("Shares of a step computed side by side, one thread each", |s| s.shards))]
    pub(super) shards: Option<usize>,
    #[arg(long, value_name = "N", help = or("From scratch: steps in which the vision tower learns to see, in proportion to --steps", Schedule::shapes().see_steps))]
    pub(super) see_steps: Option<usize>,
    #[arg(long, value_name = "N", help = or("From scratch: pictures per step while only seeing", Schedule::shapes().see_batch))]
    pub(super) see_batch: Option<usize>,
    #[arg(long, value_name = "X", help = or("From scratch: weight of the auxiliary losses", Schedule::shapes().auxiliary))]
    pub(super) auxiliary: Option<f64>,
}

/// What is asked about a picture.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Lessons")]
pub(super) struct LessonFlags {
    #[arg(long, value_name = "X", help = lesson("Part of a picture's loss that the overall question has, 0 to 1", |r| r.overall_share))]
    pub(super) overall_share: Option<f32>,
    #[arg(long, value_name = "N", help = lesson("Most elements asked about one picture in one step", |r| r.questions))]
    pub(super) questions: Option<usize>,
    /// Spread answers as the raters were, instead of one token for their mean
    #[arg(long)]
    pub(super) soft_labels: bool,
}

/// The strategies of the paper.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Strategies (on, off or on:SEED)")]
pub(super) struct StrategyFlags {
    #[arg(long, value_parser = strategy, value_name = "ON", help = lesson("Name the element's category in its question (wording ours)", |r| r.strategies.element_augmentation))]
    pub(super) element_augmentation: Option<Strategy>,
    #[arg(long, value_name = "X", help = ours("Share of elements whose category is left out all the same", |r| r.strategies.uncategorised))]
    pub(super) uncategorised: Option<f32>,
    #[arg(long, value_parser = strategy, value_name = "ON", help = lesson("Name the prompt's type, real or synthetic (wording ours)", |r| r.strategies.prompt_type_augmentation))]
    pub(super) prompt_type_augmentation: Option<Strategy>,
    #[arg(long, value_name = "X", help = ours("Share of prompts whose type is left out all the same", |r| r.strategies.untyped))]
    pub(super) untyped: Option<f32>,
    #[arg(long, value_parser = strategy, value_name = "ON", help = lesson("Light pictures anew: brightness, contrast, gamma", |r| r.strategies.image_augmentation))]
    pub(super) image_augmentation: Option<Strategy>,
    #[arg(long, value_name = "X", help = ours("Most that a light changes each of the three", |r| r.strategies.lighting))]
    pub(super) lighting: Option<f32>,
    #[arg(long, value_parser = strategy, value_name = "ON", help = ours("Move labels at random: half a level at most, elements a quarter", |r| r.strategies.score_perturbation))]
    pub(super) score_perturbation: Option<Strategy>,
    #[arg(long, value_parser = strategy, value_name = "ON", help = ours("Word instructions in several ways", |r| r.strategies.paraphrase))]
    pub(super) paraphrase: Option<Strategy>,
}

/// Pictures that are not learnt from, or only once the model itself has labelled them.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Validation")]
pub(super) struct ValidationFlags {
    /// Records to score at the end, with or without labels
    #[arg(long, value_name = "FILE")]
    pub(super) validation: Option<PathBuf>,
    /// Folder that `img_path` in them is relative to [default: --images]
    #[arg(long, value_name = "DIR", requires = "validation")]
    pub(super) validation_images: Option<PathBuf>,
    /// Validation-set augmentation: label --validation with the trained model, add what it is sure of, train again
    #[arg(long, requires = "validation")]
    pub(super) pseudo_label: bool,
    #[arg(long, value_name = "X", requires = "pseudo_label", help = unpublished("Share of pictures, the surest, whose overall score becomes a label", Selection::default().keep))]
    pub(super) keep: Option<f64>,
    #[arg(long, value_name = "X", requires = "pseudo_label", help = unpublished("Least certainty |2p - 1| of an element that becomes a label", Selection::default().confidence))]
    pub(super) confidence: Option<f64>,
}

impl Flags {
    /// Whether nothing is said but which folder, which device and perhaps which kind of run.
    pub(super) fn say_nothing(&self) -> bool {
        let start = StartFlags { from_scratch: self.start.from_scratch, ..StartFlags::default() };
        let Self { schedule, lessons, strategies, .. } = self;
        self.seed.is_none()
            && self.start == start
            && self.says_nothing_of_records()
            && *schedule == ScheduleFlags::default()
            && *lessons == LessonFlags::default()
            && *strategies == StrategyFlags::default()
    }

    fn says_nothing_of_records(&self) -> bool {
        self.rules == RuleFlags::default()
            && self.adapter == AdapterFlags::default()
            && self.validation == ValidationFlags::default()
    }

    /// Refuses options of the other kind of run, which would do nothing.
    pub(super) fn check_kind(&self) -> Result<()> {
        let said = &self.schedule;
        let name = |given: bool, name: &'static str| given.then_some(name);
        let foreign = if self.start.from_scratch {
            let adapter = (self.adapter != AdapterFlags::default(), "--lora and what goes with it");
            let validation = (self.validation != ValidationFlags::default(), "--validation and its options");
            let rules = (self.rules != RuleFlags::default(), "--skip-...");
            let epochs = (said.epochs.is_some(), "--epochs");
            [adapter, validation, rules, epochs].into_iter().find_map(|(given, what)| name(given, what))
        } else {
            name(said.see_steps.is_some(), "--see-steps")
                .or(name(said.see_batch.is_some(), "--see-batch"))
                .or(name(said.auxiliary.is_some(), "--auxiliary"))
        };
        let kind = if self.start.from_scratch { "--model, not --from-scratch" } else { "--from-scratch" };
        match foreign {
            Some(name) => Err(Error::input(format!("{name}: expected with {kind} only"))),
            None => Ok(()),
        }
    }
}

fn strategy(text: &str) -> std::result::Result<Strategy, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// A help text with the default, in clap's own spelling.
fn or(text: &str, default: impl std::fmt::Display) -> String {
    format!("{text} [default: {default}]")
}

/// A help text with a default that the paper does not give.
fn unpublished(text: &str, default: impl std::fmt::Display) -> String {
    format!("{text} [default: {default}; the paper does not publish this; our default]")
}

/// With the defaults of both kinds of run.
fn both<T: std::fmt::Display + PartialEq>(text: &str, of: fn(&Schedule) -> T) -> String {
    let (scratch, tune) = (of(&Schedule::shapes()), of(&Schedule::tune(1, false)));
    if scratch == tune { or(text, tune) } else { format!("{text} [default: {tune}, {scratch} from scratch]") }
}

/// With the defaults of both kinds of run.
fn lesson<T: std::fmt::Display + PartialEq>(text: &str, of: fn(&Recipe) -> T) -> String {
    let (scratch, tune) = (of(&Recipe::shapes()), of(&Recipe::new()));
    if scratch == tune { or(text, tune) } else { format!("{text} [default: {tune}, {scratch} from scratch]") }
}

fn ours<T: std::fmt::Display>(text: &str, of: fn(&Recipe) -> T) -> String {
    unpublished(text, of(&Recipe::new()))
}
