//! `preprocessor_config.json` to [`ImageConfig`] and back.

use serde_json::{Value, json};

use super::json::{Object, parse};
use super::{Geometry, ImageConfig, ModelConfig, Tiles};
use crate::{Error, Result};

/// Steps that can be switched off in the file and that every model here needs.
const STEPS: [&str; 4] = ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"];

/// Pillow's number of the bicubic filter, used where `resample` is absent.
const BICUBIC: usize = 3;

impl ImageConfig {
    /// Parses `preprocessor_config.json`, or the `image_processor` object of a
    /// `processor_config.json`, and compares it with the model it belongs to.
    ///
    /// Pixel limits are read from `min_pixels` and `max_pixels` where they are
    /// there, as transformers does, and else from `size`; the numbers of tiles from
    /// `min_patches` and `max_patches`, or what `config.json` says of them. Absent
    /// `resample` is bicubic, absent `rescale_factor` is 1/255, absent patch and merge
    /// sizes are the model's.
    ///
    /// # Errors
    /// [`crate::error::Kind::Model`] names the key that is missing, out of range or
    /// in contradiction to the model; [`crate::error::Kind::Unsupported`] names the
    /// one that asks for other preprocessing.
    pub fn from_json(preprocessor_config: &[u8], model: &ModelConfig) -> Result<Self> {
        let value = parse(preprocessor_config)?;
        let mut root = Object::root(&value)?;
        if let Some(nested) = root.optional_object("image_processor")? {
            root = nested;
        }
        let files = model.family.files();
        root.only_text("image_processor_type", files.processors)?;
        for step in STEPS {
            root.only_flag(step, true)?;
        }
        let config = Self {
            patch_size: root.side("patch_size", 1..=256)?.unwrap_or(model.vision.patch_size),
            temporal_patch_size: root
                .side("temporal_patch_size", 1..=16)?
                .unwrap_or(model.vision.temporal_patch_size),
            merge_size: root.side("merge_size", 1..=16)?.unwrap_or(model.vision.spatial_merge_size),
            geometry: (files.geometry)(&root, model)?,
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
        let mut json = json!({
            "do_convert_rgb": true,
            "do_resize": true,
            "do_rescale": true,
            "do_normalize": true,
            "image_mean": self.mean,
            "image_std": self.std,
            "rescale_factor": self.rescale_factor,
            "resample": self.resample,
        });
        let own = match self.geometry {
            Geometry::Scaled { min_pixels, max_pixels } => json!({
                "image_processor_type": "Qwen2VLImageProcessorFast",
                "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
                "patch_size": self.patch_size,
                "temporal_patch_size": self.temporal_patch_size,
                "merge_size": self.merge_size,
            }),
            Geometry::Tiled(Tiles { side, min_tiles, max_tiles, thumbnail }) => json!({
                "image_processor_type": "GotOcr2ImageProcessorFast",
                "size": {"height": side, "width": side},
                "crop_to_patches": true,
                "min_patches": min_tiles,
                "max_patches": max_tiles,
                "use_thumbnail": thumbnail,
            }),
        };
        if let (Value::Object(json), Value::Object(own)) = (&mut json, own) {
            json.extend(own);
        }
        json
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
