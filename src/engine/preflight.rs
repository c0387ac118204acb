//! What a model needs, from its headers alone: said before anything large is read or fetched.

use burn::tensor::Device;
use serde::Serialize;

use super::processor::Processor;
use crate::config::{ModelConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::model::VisionLanguageModel;
use crate::text::OverallKind;
use crate::weights::device::{device_bytes, host_bytes};
use crate::weights::load::{QUEUED, Storage};
use crate::weights::{ByteSource, Checkpoint, Headers, ModelFiles, stored};

/// Side of the picture that work and memory are told for, in pixels.
const SIDE: usize = 512;
/// Text tokens of the first score: template, prompt and question.
const TEXT_TOKENS: u64 = 100;
/// Tokens of one more question.
const QUESTION_TOKENS: u64 = 40;

/// Largest activation of a picture: a tab's 4 GiB hold a few beside the weights, and many adapters bind no more.
pub(super) const LARGEST_ACTIVATION: u64 = if cfg!(target_arch = "wasm32") { 256 << 20 } else { 4 << 30 };

/// Most bytes of weights in a tab's own memory, which has to hold pictures and what is on its way besides.
pub(super) const LARGEST_ON_CPU: u64 = if cfg!(target_arch = "wasm32") { 3 << 30 } else { u64::MAX };

/// What scoring with a model takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preflight {
    /// The model's name.
    pub name: String,
    /// `model_type` of its configuration.
    pub architecture: String,
    /// What most weights are stored as.
    pub quantization: String,
    /// Licence of the weights where the files name one.
    pub license: Option<String>,
    /// [`crate::weights::Form::code`] of what it is made of.
    pub form: &'static str,
    /// Bytes of the files that hold weights.
    pub download_bytes: u64,
    /// Bytes of weights, features and cache on a device.
    pub device_bytes: DeviceBytes,
    /// Bytes of the largest weight, which a GPU has to bind as a whole.
    pub largest_binding_bytes: u64,
    /// Bytes of host memory while the largest tensor is loaded ([`host_bytes`]) and others are waiting for the device.
    pub host_bytes: u64,
    /// Work in GFLOP, a multiplication and an addition counted as two.
    pub gflop: Work,
    /// How the overall question is asked.
    pub overall: OverallKind,
}

/// Bytes on each kind of device; on the CPU 4-bit weights take 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DeviceBytes {
    /// On a GPU.
    pub gpu: u64,
    /// On the CPU.
    pub cpu: u64,
}

/// Work of scoring a picture of 512 x 512 pixels, in GFLOP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Picture, prefix and the first question, 100 tokens of text in all.
    pub first_score: f64,
    /// One more question, of 40 tokens.
    pub question: f64,
}

impl Preflight {
    /// Reads the headers of a model's files and adds up.
    ///
    /// # Errors
    /// As [`Headers::read`] and [`Processor::new`]: what is wrong with a model's facts shows here already.
    pub async fn of<S: ByteSource>(files: &impl ModelFiles<Source = S>) -> Result<Self> {
        Self::of_headers(&Headers::read(files).await?, files).await
    }

    /// The same of headers that were read.
    ///
    /// # Errors
    /// As [`Processor::new`].
    pub async fn of_headers<S: ByteSource>(
        headers: &Headers<S>,
        files: &impl ModelFiles<Source = S>,
    ) -> Result<Self> {
        let mut download_bytes = 0;
        for name in headers.form.weights() {
            download_bytes += files.open(&name).await?.len();
        }
        let Headers { form, name, license, facts, checkpoint } = headers;
        let processor = Processor::new(facts.clone())?;
        let picture = Picture::new(SIDE, SIDE, vec![0; 3 * SIDE * SIDE])?;
        let grid = processor.grid_thw(&picture)?;
        let [tiles, h, w] = grid.map(|size| size as u64);
        let rows = Rows { tiles, patches: h * w, tokens: processor.n_image_tokens(grid) as u64 };
        let sums = Sums::of(checkpoint, processor.config(), rows);
        Ok(Self {
            name: name.clone(),
            architecture: processor.config().architecture.clone(),
            quantization: headers.quantization(),
            license: license.clone(),
            form: form.code(),
            download_bytes,
            device_bytes: sums.device_bytes,
            largest_binding_bytes: sums.largest,
            host_bytes: sums.host,
            gflop: Work {
                first_score: (sums.picture + sums.text(rows.tokens + TEXT_TOKENS, 0)) / 1e9,
                question: sums.text(QUESTION_TOKENS, rows.tokens + TEXT_TOKENS) / 1e9,
            },
            overall: processor.scoring().overall.kind,
        })
    }
}

/// Rows of the activations that a picture makes.
#[derive(Clone, Copy)]
struct Rows {
    /// Pictures that the tower reads one by one.
    tiles: u64,
    /// Patches of each.
    patches: u64,
    /// Decoder tokens of all.
    tokens: u64,
}

/// What a model's parameters add up to.
#[derive(Default)]
struct Sums {
    device_bytes: DeviceBytes,
    largest: u64,
    host: u64,
    /// FLOP of reading a picture.
    picture: f64,
    /// FLOP of each decoder token in linear layers.
    per_token: f64,
    /// FLOP of each pair of a decoder token and a token that it sees.
    per_pair: f64,
}

impl Sums {
    fn of<S: ByteSource>(checkpoint: &Checkpoint<S>, config: &ModelConfig, rows: Rows) -> Self {
        let mut sums = Self::default();
        // Its parameters come to life when they are first used, which they are not.
        let model = VisionLanguageModel::new(config, &Device::flex());
        for parameter in stored(&model, false) {
            let Some(info) = checkpoint.info(&parameter.name) else { continue };
            let [gpu, cpu] = device_bytes(info, parameter.storage);
            sums.device_bytes.gpu += gpu;
            sums.device_bytes.cpu += cpu;
            sums.largest = sums.largest.max(gpu);
            sums.host = sums.host.max(host_bytes(info, parameter.storage) + QUEUED);
            if parameter.storage != Storage::Linear {
                continue;
            }
            let flop = 2.0 * info.values() as f64;
            match parameter.name.strip_prefix("visual.") {
                None => sums.per_token += flop,
                // Mergers come after four patches have become one token.
                Some(name) if name.contains("merger") => sums.picture += flop * rows.tokens as f64,
                Some(_) => sums.picture += flop * (rows.tiles * rows.patches) as f64,
            }
        }
        let (vision, text) = (&config.vision, &config.text);
        let heads = (text.num_attention_heads * text.head_dim * text.num_hidden_layers) as f64;
        // Queries by keys and probabilities by values, two each.
        sums.per_pair = 4.0 * heads;
        let pairs = rows.tiles as f64 * (rows.patches as f64).powi(2);
        sums.picture += 4.0 * (vision.depth * vision.hidden_size) as f64 * pairs;
        let cache = 8 * (text.num_hidden_layers * text.num_key_value_heads * text.head_dim) as u64;
        let seen = rows.tokens + TEXT_TOKENS;
        let features = 4 * (1 + vision.deepstack_visual_indexes.len() as u64) * text.hidden_size as u64;
        // The widest activation lives a few times over: as input, output and in between.
        let activations = 4 * activation_bytes(vision, rows.patches);
        let working = cache * seen + features * rows.tokens + activations;
        sums.device_bytes.gpu += working;
        sums.device_bytes.cpu += working;
        sums
    }

    /// FLOP of `tokens` decoder tokens after `past` others; the whole square of scores is computed.
    fn text(&self, tokens: u64, past: u64) -> f64 {
        tokens as f64 * (self.per_token + self.per_pair * (past + tokens) as f64)
    }
}

/// Bytes of a tower's widest activation over so many patches: queries, keys and values together, or the
/// middle of the feed-forward part.
fn activation_bytes(vision: &VisionConfig, patches: u64) -> u64 {
    4 * patches * vision.intermediate_size.max(3 * vision.hidden_size) as u64
}

/// Refuses weights of so many bytes where the host's memory holds them and takes `most`.
pub(super) fn check_weights(bytes: u64, most: u64) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    Err(Error::unsupported(format!(
        "the model takes {:.1} GB on the CPU, and a tab can hold {:.1} GB; a GPU or a smaller model can do it",
        gigabytes(bytes),
        gigabytes(most)
    )))
}

/// Refuses a picture of `grid` patches whose activations take more than `largest` bytes at once, before the
/// device is asked for them.
pub(super) fn check_activations(vision: &VisionConfig, [_, h, w]: [usize; 3], largest: u64) -> Result<()> {
    let activation = activation_bytes(vision, (h * w) as u64);
    if activation <= largest {
        return Ok(());
    }
    let side = vision.patch_size;
    let most = (h * side * w * side) as f64 * largest as f64 / activation as f64;
    Err(Error::image(format!(
        "the picture is read at {}x{} pixels, which takes {} MB at once, more than can be held here; make it \
         smaller than {:.1} megapixels",
        w * side,
        h * side,
        activation / 1_000_000,
        most / 1e6
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_a_tab_cannot_hold_are_refused_with_both_sizes() {
        check_weights(3 << 30, 3 << 30).unwrap();
        let error = check_weights((3 << 30) + 1_500_000_000, 3 << 30).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains("takes 4.7 GB on the CPU, and a tab can hold 3.2 GB"), "{error}");
    }

    #[test]
    fn a_picture_that_cannot_be_held_is_refused_with_the_size_that_can() {
        let vision = VisionConfig {
            depth: 24,
            hidden_size: 1024,
            intermediate_size: 4096,
            num_heads: 16,
            in_channels: 3,
            patch_size: 16,
            temporal_patch_size: 2,
            spatial_merge_size: 2,
            num_position_embeddings: 2304,
            attention_bias: true,
            layer_norm_eps: 1e-6,
            deepstack_visual_indexes: vec![],
            out_hidden_size: 2048,
        };
        check_activations(&vision, [1, 128, 128], 256 << 20).unwrap();
        // A photograph of 4032 x 3024 pixels.
        let error = check_activations(&vision, [1, 188, 252], 256 << 20).unwrap_err().to_string();
        assert!(error.contains("4032x3008 pixels, which takes 776 MB"), "{error}");
        assert!(error.ends_with("smaller than 4.2 megapixels"), "{error}");
    }
}
