//! `preprocessor_config.json` to [`ImageConfig`] and back.

use serde_json::{Value, json};

use super::json::{Object, parse};
use super::{ImageConfig, ModelConfig};
use crate::{Error, Result};

/// Image processors that all do the same arithmetic (`image_processor_type`);
/// the suffix names the library they use.
const PROCESSORS: [&str; 6] = [
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen2VLImageProcessorPil",
    "Qwen3VLImageProcessor",
    "Qwen3VLImageProcessorFast",
    "Qwen3VLImageProcessorPil",
];

/// Most pixels that a configuration may ask for: 16384 x 16384.
const MAX_PIXELS: usize = 1 << 28;

/// Steps that can be switched off in the file and that every model here needs.
const STEPS: [&str; 4] = ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"];

/// Pillow's number of the bicubic filter, used where `resample` is absent.
const BICUBIC: usize = 3;

impl ImageConfig {
    /// Parses `preprocessor_config.json`, or the `image_processor` object of a
    /// `processor_config.json`, and compares it with the model it belongs to.
    ///
    /// Pixel limits are read from `min_pixels` and `max_pixels` where they are
    /// there, as transformers does, and else from `size`. Absent `resample` is
    /// bicubic, absent `rescale_factor` is 1/255, absent patch and merge sizes are
    /// the model's.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] names the key that is missing, out of range or
    /// in contradiction to the model; [`crate::error::Kind::Unsupported`] names the
    /// one that asks for other preprocessing.
    pub fn from_json(preprocessor_config: &[u8], model: &ModelConfig) -> Result<Self> {
        let value = parse(preprocessor_config)?;
        let mut root = Object::root(&value)?;
        if let Some(nested) = root.optional_object("image_processor", "image_processor")? {
            root = nested;
        }
        root.only_text("image_processor_type", &PROCESSORS)?;
        for step in STEPS {
            root.only_flag(step, true)?;
        }
        let (min_pixels, max_pixels) = pixels(&root)?;
        let config = Self {
            patch_size: root.side("patch_size", 1..=256)?.unwrap_or(model.vision.patch_size),
            temporal_patch_size: root
                .side("temporal_patch_size", 1..=16)?
                .unwrap_or(model.vision.temporal_patch_size),
            merge_size: root.side("merge_size", 1..=16)?.unwrap_or(model.vision.spatial_merge_size),
            min_pixels,
            max_pixels,
            mean: channels(&root, "image_mean", f64::NEG_INFINITY)?,
            std: channels(&root, "image_std", 0.0)?,
            rescale_factor: root.number("rescale_factor", 0.0, 1e3)?.unwrap_or(1.0 / 255.0),
            resample: resample(&root)?,
        };
        config.agree(model)?;
        Ok(config)
    }

    /// The configuration as `preprocessor_config.json` holds it.
    pub fn to_json(&self) -> Value {
        json!({
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "do_convert_rgb": true,
            "do_resize": true,
            "do_rescale": true,
            "do_normalize": true,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
            "image_mean": self.mean,
            "image_std": self.std,
            "rescale_factor": self.rescale_factor,
            "resample": self.resample,
        })
    }

    fn agree(&self, model: &ModelConfig) -> Result<()> {
        let vision = &model.vision;
        let pairs = [
            ("patch_size", self.patch_size, "patch_size", vision.patch_size),
            (
                "temporal_patch_size",
                self.temporal_patch_size,
                "temporal_patch_size",
                vision.temporal_patch_size,
            ),
            ("merge_size", self.merge_size, "spatial_merge_size", vision.spatial_merge_size),
        ];
        for (key, got, model_key, expected) in pairs {
            if got != expected {
                return Err(Error::model(format!(
                    "{key} is {got}, but the model's vision_config.{model_key} is {expected}"
                )));
            }
        }
        Ok(())
    }
}

/// `(min_pixels, max_pixels)` from whichever form the file uses.
fn pixels(root: &Object<'_>) -> Result<(usize, usize)> {
    let size = root.optional_object("size", "size")?;
    let limit = |key: &str, edge: &str| -> Result<usize> {
        if let Some(pixels) = root.optional_count(key, 1..=MAX_PIXELS)? {
            return Ok(pixels);
        }
        for size_key in [edge, key] {
            let pixels =
                size.map(|size| size.optional_count(size_key, 1..=MAX_PIXELS)).transpose()?.flatten();
            if let Some(pixels) = pixels {
                return Ok(pixels);
            }
        }
        Err(Error::model(format!("neither size.{edge} nor {key} is there")))
    };
    let (min, max) = (limit("min_pixels", "shortest_edge")?, limit("max_pixels", "longest_edge")?);
    if min > max {
        return Err(Error::model(format!(
            "size.shortest_edge (min_pixels) is {min}, above size.longest_edge (max_pixels), which is {max}"
        )));
    }
    Ok((min, max))
}

/// Three numbers above `low`, or one for all three channels.
fn channels(root: &Object<'_>, key: &str, low: f64) -> Result<[f64; 3]> {
    let value = root.get(key).ok_or_else(|| root.missing(key))?;
    let channel = |value: &Value| value.as_f64().filter(|number| *number > low && number.abs() <= 1e3);
    let numbers = match value {
        Value::Array(list) if list.len() == 3 => list
            .iter()
            .map(channel)
            .collect::<Option<Vec<_>>>()
            .and_then(|list| <[f64; 3]>::try_from(list).ok()),
        single => channel(single).map(|number| [number; 3]),
    };
    let expected = if low < 0.0 { "three numbers" } else { "three numbers above 0" };
    numbers.ok_or_else(|| root.wrong(key, expected, value))
}

fn resample(root: &Object<'_>) -> Result<u8> {
    let filter = root.optional_count("resample", 0..=5)?.unwrap_or(BICUBIC);
    match filter {
        1..=3 => Ok(filter as u8),
        other => Err(root.unsupported(
            "resample",
            &["1 (Lanczos)", "2 (bilinear)", "3 (bicubic)"],
            &Value::from(other),
        )),
    }
}
