//! What a small model consists of before it has learned anything: configuration and tokenizer in
//! the exact layout of the large ones.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as RawTokenizer};

use super::strategies::Strategies;
use crate::config::{Family, Geometry, ImageConfig, ModelConfig, TextConfig, VisionConfig, VisionTokens};
use crate::data::synth::Sampler;
use crate::error::{Error, Result};
use crate::score::ScoringOptions;
use crate::text::{Category, Element, PromptType, Request, Tokenizer, element, overall};
use crate::weights::ModelFacts;

/// Side of the pictures in pixels.
pub const SIDE: usize = 96;

/// Side of a patch in pixels.
const PATCH: usize = 16;

/// Patches per side of a picture token.
const MERGE: usize = 2;

/// Rows and columns of picture tokens.
pub(super) const GRID: usize = SIDE / PATCH / MERGE;

/// Picture tokens of a picture: one for each cell of the scenes' loose grid.
pub const CELLS: usize = GRID * GRID;

/// Texts that the tokenizer learns from are the questions about so many scenes.
const CORPUS: u64 = 3000;

/// Split pattern of Qwen's tokenizers (`tokenizer.json` of Qwen3-VL, `pre_tokenizer`).
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The part of [`PATTERN`] that takes several punctuation marks together.
const PUNCTUATION: &str = r"[^\s\p{L}\p{N}]+";

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

/// A model of about 3 M parameters whose tokenizer knows the words of the scenes, before it has
/// weights.
pub struct Blueprint;

impl Blueprint {
    /// With a tokenizer trained on the scenes of a seed.
    pub fn shapes(seed: u64) -> Result<ModelFacts> {
        Self::with_tokenizer(train_tokenizer(seed)?)
    }

    /// Around a tokenizer that is there already.
    pub fn with_tokenizer(tokenizer: Vec<u8>) -> Result<ModelFacts> {
        let parsed = Tokenizer::from_json(&tokenizer)?;
        let id = |token: &str| {
            parsed.added_id(token).ok_or_else(|| Error::internal(format!("the new tokenizer lacks {token}")))
        };
        let tokens = VisionTokens {
            image: id("<|image_pad|>")?,
            video: Some(id("<|video_pad|>")?),
            start: Some(id("<|vision_start|>")?),
            end: Some(id("<|vision_end|>")?),
        };
        let config = ModelConfig {
            family: Family::Qwen3Vl,
            architecture: Family::Qwen3Vl.model_type().into(),
            vision: VisionConfig {
                depth: 3,
                hidden_size: 128,
                intermediate_size: 512,
                num_heads: 4,
                in_channels: 3,
                patch_size: PATCH,
                temporal_patch_size: 2,
                spatial_merge_size: MERGE,
                num_position_embeddings: (SIDE / PATCH) * (SIDE / PATCH),
                attention_bias: true,
                layer_norm_eps: 1e-6,
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
                attention_bias: false,
                qk_norm: true,
                rms_norm_eps: 1e-6,
                rope_theta: 10_000.0,
                mrope_section: [6, 5, 5],
                max_position_embeddings: 4096,
                tie_word_embeddings: true,
            },
            tokens,
            tiles: None,
        };
        let image = ImageConfig {
            patch_size: PATCH,
            temporal_patch_size: 2,
            merge_size: MERGE,
            geometry: Geometry::Scaled { min_pixels: SIDE * SIDE, max_pixels: SIDE * SIDE },
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale_factor: 1.0 / 255.0,
            resample: 3,
        };
        Ok(ModelFacts { config, image, tokenizer, scoring: ScoringOptions::default() })
    }
}

/// What the questions say around the user's words, longest first.
///
/// Those that scenes use become one token each, which is what makes a model of this size quick to
/// train and to run: a question of 20 tokens then has 10 (superwords, arXiv:2503.13423).
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

/// The split pattern that keeps `superwords` whole, also behind words that end in punctuation.
fn pattern(superwords: &[String]) -> String {
    let literal = |text: &String| {
        let escape = |c: char| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
        text.chars().map(escape).collect::<String>()
    };
    let any = |texts: &mut dyn Iterator<Item = &String>| texts.map(literal).collect::<Vec<_>>().join("|");
    let closing = any(&mut superwords.iter().filter(|text| text.starts_with('"')));
    let rest = PATTERN.replace(PUNCTUATION, &format!("(?:(?!{closing})[^\\s\\p{{L}}\\p{{N}}])+"));
    format!("{}|{rest}", any(&mut superwords.iter()))
}

/// Every question about the first [`CORPUS`] samples of a seed, the overall ones included.
fn corpus(seed: u64, scoring: &ScoringOptions) -> Result<Vec<String>> {
    let sampler = Sampler::new(seed).with_size(1);
    let strategies = Strategies::new();
    let mut questions = Vec::new();
    for index in 0..CORPUS {
        let sample = sampler.sample(index);
        let elements: Vec<String> = sample.elements.iter().map(|(element, _)| element.clone()).collect();
        let request = Request::new(sample.prompt, &elements, Some(sample.prompt_type))?;
        let request = strategies.request(request, seed, index);
        questions.push(request.overall_text(scoring.overall.question()));
        questions.extend(request.element_texts());
    }
    Ok(questions)
}

/// A byte-level BPE over the questions that scenes give rise to.
fn train_tokenizer(seed: u64) -> Result<Vec<u8>> {
    let options = ScoringOptions::default();
    let mut corpus = corpus(seed, &options)?;
    for _ in 0..CORPUS {
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
