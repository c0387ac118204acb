//! Training from scratch on synthetic scenes: a small model in the exact layout of the large ones.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as RawTokenizer};

use super::batch::{Item, Words};
use super::fit::Source;
use crate::config::{ImageConfig, ModelConfig, TextConfig, VisionConfig, VisionTokens};
use crate::data::draw::{CELL_CLASSES, cells, centers, places};
use crate::data::rng::Rng;
use crate::data::scene::{Color, Shape, Size, Texture, Thing, Tone};
use crate::data::synth::{Sample, Sampler};
use crate::error::{Error, Result};
use crate::image::patches::preprocess;
use crate::score::{AnswerTokens, ScoringOptions};
use crate::text::{Category, ChatTemplate, Element, PromptType, Request, Tokenizer, element, overall};

/// Side of the pictures in pixels.
pub const SIDE: usize = 96;

/// Picture tokens of a training picture.
pub const CELLS: usize = (SIDE / 32) * (SIDE / 32);

/// Classes of the dense truth: what covers each cell, and what has its centre there.
pub const CLASSES: usize = CELL_CLASSES + Thing::COUNT;

/// Most questions asked about one picture in one step; which ones changes from step to step.
const QUESTIONS: usize = 8;

/// Share of prompts whose type is not named in training.
const UNTYPED: f32 = 0.33;

/// Share of elements whose category is not named in training.
const UNCATEGORISED: f32 = 0.15;

/// Tokens from an element's closing quote to the end of its question: `" shown? Yes or No?`, one
/// token of this tokenizer, and the template's tail.
const REHEARSED: usize = 6;

/// Weight of the overall question's loss beside an element's.
const OVERALL_WEIGHT: f32 = 1.0;

/// Split pattern of Qwen's tokenizers (`tokenizer.json` of Qwen3-VL, `pre_tokenizer`).
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Special tokens in the order of their ids, which follow the vocabulary's.
const SPECIAL: [&str; 7] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Everything beside the weights that a model from scratch consists of.
pub struct Blueprint {
    /// The model.
    pub config: ModelConfig,
    /// Its pictures.
    pub image: ImageConfig,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Scoring options: 15 levels.
    pub scoring: ScoringOptions,
}

impl Blueprint {
    /// A model of about 3 M parameters whose tokenizer knows the words of the scenes.
    pub fn shapes(seed: u64) -> Result<Self> {
        Self::with_tokenizer(train_tokenizer(seed)?)
    }

    /// The same model around a tokenizer that is there already.
    pub fn with_tokenizer(tokenizer: Vec<u8>) -> Result<Self> {
        let parsed = Tokenizer::from_json(&tokenizer)?;
        let id = |token: &str| {
            parsed.added_id(token).ok_or_else(|| Error::internal(format!("the new tokenizer lacks {token}")))
        };
        let tokens = VisionTokens {
            image: id("<|image_pad|>")?,
            video: id("<|video_pad|>")?,
            start: id("<|vision_start|>")?,
            end: id("<|vision_end|>")?,
        };
        let config = ModelConfig {
            architecture: "qwen3_vl".into(),
            vision: VisionConfig {
                depth: 3,
                hidden_size: 128,
                intermediate_size: 512,
                num_heads: 4,
                in_channels: 3,
                patch_size: 16,
                temporal_patch_size: 2,
                spatial_merge_size: 2,
                num_position_embeddings: 36,
                deepstack_visual_indexes: vec![0, 1],
                out_hidden_size: 128,
            },
            text: TextConfig {
                vocab_size: parsed.vocab_size().next_multiple_of(32),
                hidden_size: 128,
                intermediate_size: 384,
                num_hidden_layers: 4,
                num_attention_heads: 4,
                num_key_value_heads: 2,
                head_dim: 32,
                rms_norm_eps: 1e-6,
                rope_theta: 10_000.0,
                mrope_section: [6, 5, 5],
                max_position_embeddings: 4096,
                tie_word_embeddings: true,
            },
            tokens,
        };
        let image = ImageConfig {
            patch_size: 16,
            temporal_patch_size: 2,
            merge_size: 2,
            min_pixels: SIDE * SIDE,
            max_pixels: SIDE * SIDE,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale_factor: 1.0 / 255.0,
            resample: 3,
        };
        Ok(Self { config, image, tokenizer, scoring: ScoringOptions::default() })
    }
}

/// What the questions say around the user's words, longest first.
///
/// Each becomes one token, which is what makes a model of this size quick to train and to run:
/// a question of 20 tokens then has 10 (superwords, arXiv:2503.13423).
fn superwords(options: &ScoringOptions) -> Vec<String> {
    const WORDS: &str = "\0";
    let types = [None, Some(PromptType::Real), Some(PromptType::Synthetic)];
    let mut texts: Vec<String> =
        types.iter().map(|kind| overall(WORDS, *kind, options.overall.question())).collect();
    texts.extend(
        Category::ALL.map(|category| element(WORDS, None, &Element { text: WORDS.into(), category })),
    );
    let mut superwords: Vec<String> = texts
        .iter()
        .flat_map(|text| text.split(['\0', '\n']))
        .filter(|part| part.contains(' '))
        .map(str::to_owned)
        .collect();
    superwords.sort_by_key(|part| (std::cmp::Reverse(part.len()), part.clone()));
    superwords.dedup();
    superwords
}

/// The split pattern that keeps `superwords` whole.
fn pattern(superwords: &[String]) -> String {
    let literal = |text: &String| {
        let escape = |c: char| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
        text.chars().map(escape).collect::<String>() + "|"
    };
    superwords.iter().map(literal).collect::<String>() + PATTERN
}

/// A byte-level BPE over the questions that scenes give rise to.
fn train_tokenizer(seed: u64) -> Result<Vec<u8>> {
    let sampler = Sampler::new(seed).with_size(1);
    let options = ScoringOptions::default();
    let mut corpus = Vec::new();
    for index in 0..3000 {
        let sample = sampler.sample(index);
        let request = request(&sample, Some(&mut Rng::stream(seed, index)))?;
        corpus.push(request.overall_text(options.overall.question()));
        corpus.extend(request.element_texts());
        corpus.extend(["user\n", "assistant\n", "Yes", "No"].map(String::from));
    }
    let failed = |error: tokenizers::Error| {
        Error::internal("cannot make the tokenizer").with_source(error.to_string())
    };
    let mut raw = RawTokenizer::new(BPE::default());
    let split = Split::new(
        SplitPattern::Regex(pattern(&superwords(&options))),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(failed)?;
    raw.with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            split.into(),
            ByteLevel::new(false, false, false).into(),
        ]))))
        .with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(1024)
        .min_frequency(20)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer: TrainerWrapper = trainer.into();
    raw.train(&mut trainer, corpus.into_iter()).map_err(failed)?;
    raw.add_special_tokens(&SPECIAL.map(|token| AddedToken::from(token, true)));
    Ok(raw.to_string(true).map_err(failed)?.into_bytes())
}

/// What is asked about a sample: its type and every category named, or now and then left
/// out as people do when `rng` is given.
pub fn request(sample: &Sample, mut rng: Option<&mut Rng>) -> Result<Request> {
    let mut leave_out = |share| rng.as_mut().is_some_and(|rng| rng.chance(share));
    let prompt_type = (!leave_out(UNTYPED)).then_some(sample.prompt_type);
    let elements: Vec<String> = sample
        .elements
        .iter()
        .map(|(element, _)| match element.rsplit_once(" (") {
            Some((words, _)) if leave_out(UNCATEGORISED) => words.to_owned(),
            _ => element.clone(),
        })
        .collect();
    Request::new(sample.prompt.clone(), &elements, prompt_type)
}

/// Kinds of description, in this order: colours, shapes, sizes, textures, tones.
const DESCRIPTIONS: usize =
    Color::ALL.len() + Shape::ALL.len() + Size::ALL.len() + Texture::ALL.len() + Tone::ALL.len();

/// Tokens that describe something, with the index of what they describe: each word after a space,
/// at the start of a quotation and in the plural, where the tokenizer has it as one token.
fn words(tokenizer: &Tokenizer) -> Vec<(usize, u32)> {
    let words = Color::ALL.map(Color::word).into_iter().chain(Shape::ALL.map(Shape::word));
    let words = words.chain(Size::ALL.map(Size::word)).chain(Texture::ALL.map(Texture::word));
    let forms = |word: &str| [format!(" {word}"), word.to_owned(), format!(" {word}s")];
    words
        .chain(Tone::ALL.map(Tone::word))
        .enumerate()
        .flat_map(|(index, word)| {
            forms(word).into_iter().filter_map(move |form| Some((index, tokenizer.single(&form).ok()?)))
        })
        .collect()
}

/// Which of `words` describe each cell, from the truth of [`cells`].
fn describe(covered: &[u8], words: &[(usize, u32)]) -> Vec<u8> {
    let mut marks = Vec::with_capacity(covered.len() / CELL_CLASSES * words.len());
    for cell in covered.chunks_exact(CELL_CLASSES) {
        let mut true_here = [0u8; DESCRIPTIONS];
        let (things, rest) = cell.split_at(Thing::COUNT);
        for (thing, _) in things.iter().enumerate().filter(|(_, mark)| **mark > 0) {
            true_here[thing % Color::ALL.len()] = 1;
            true_here[Color::ALL.len() + thing / Color::ALL.len()] = 1;
        }
        true_here[DESCRIPTIONS - rest.len()..].copy_from_slice(rest);
        marks.extend(words.iter().map(|(index, _)| true_here[*index]));
    }
    marks
}

/// Samples as training items: batches of step `n` are the samples `n * 2^20 ..`.
pub struct Scenes<'a> {
    sampler: Sampler,
    config: &'a ModelConfig,
    image: &'a ImageConfig,
    scoring: &'a ScoringOptions,
    template: ChatTemplate,
    answers: AnswerTokens,
    words: Vec<(usize, u32)>,
    seed: u64,
}

impl<'a> Scenes<'a> {
    /// The stream of one seed.
    pub fn new(blueprint: &'a Blueprint, seed: u64) -> Result<Self> {
        let tokenizer = Tokenizer::from_json(&blueprint.tokenizer)?;
        let answers = AnswerTokens::resolve(&tokenizer, &blueprint.scoring)?;
        Ok(Self {
            sampler: Sampler::new(seed).with_size(SIDE),
            config: &blueprint.config,
            image: &blueprint.image,
            scoring: &blueprint.scoring,
            words: words(&tokenizer),
            template: ChatTemplate::new(tokenizer, blueprint.config.tokens)?,
            answers,
            seed,
        })
    }

    /// One sample as an item; without `answer` only the picture and its dense truth.
    fn item(&self, index: u64, answer: bool) -> Result<Item> {
        let sample = self.sampler.sample(index);
        let patches = preprocess(&sample.picture()?, self.image)?;
        let merge = self.config.vision.spatial_merge_size;
        let [_, h, w] = patches.grid_thw;
        let (h, w) = (h / merge, w / merge);
        let covered = cells(&sample.scene, h, w);
        let centered = centers(&sample.scene, h, w);
        let cells = covered
            .chunks_exact(CELL_CLASSES)
            .zip(centered.chunks_exact(Thing::COUNT))
            .flat_map(|(covered, centered)| covered.iter().chain(centered).map(|&mark| mark.min(1)))
            .collect();
        let mut rng = Rng::stream(self.seed ^ 0x5eed, index);
        let request = request(&sample, Some(&mut rng))?;
        let mut questions = vec![(
            vec![0; 2 * h * w],
            request.overall_text(self.scoring.overall.question()),
            self.answers.levels[self.scoring.overall.level_scale()?.encode(sample.score)? - 1],
            OVERALL_WEIGHT,
        )];
        if answer {
            let mut elements: Vec<_> = request
                .element_texts()
                .zip(&sample.elements)
                .zip(&sample.asked)
                .map(|((text, (_, present)), claim)| {
                    let answer = if *present { self.answers.yes } else { self.answers.no };
                    (places(&sample.scene, claim, h, w), text, answer, 1.0)
                })
                .collect();
            rng.shuffle(&mut elements);
            questions.extend(elements.into_iter().take(QUESTIONS - 1));
        }
        let sequences = questions
            .iter()
            .map(|(_, text, _, _)| self.template.sequence(text, h * w))
            .collect::<Result<_>>()?;
        Ok(Item {
            patches,
            sequences,
            targets: questions.iter().map(|question| question.2).collect(),
            weights: questions.iter().map(|question| question.3).collect(),
            rehearsed: REHEARSED,
            words: Words {
                ids: self.words.iter().map(|word| word.1).collect(),
                marks: describe(&covered, &self.words),
            },
            cells,
            places: questions.into_iter().map(|question| question.0).collect(),
        })
    }
}

impl Source for Scenes<'_> {
    fn items(&self, step: usize, count: usize, answer: bool) -> Result<Vec<Item>> {
        (0..count).map(|offset| self.item(((step as u64) << 20) + offset as u64, answer)).collect()
    }
}
