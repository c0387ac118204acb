//! Records as JSON.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::json::{Entries, field, quoted};
use super::{Rating, Record};
use crate::text::PromptType;

impl<'de> Deserialize<'de> for Rating {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scores;
        impl<'de> Visitor<'de> for Scores {
            type Value = Rating;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a list of numbers or null")
            }

            fn visit_unit<E>(self) -> Result<Rating, E> {
                Ok(Rating::Missing)
            }

            fn visit_f64<E>(self, value: f64) -> Result<Rating, E> {
                Ok(Rating::Mean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Rating, E> {
                Ok(Rating::Mean(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Rating, E> {
                Ok(Rating::Mean(value as f64))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rating, A::Error> {
                let mut each = Vec::new();
                while let Some(value) = seq.next_element::<f64>()? {
                    each.push(value);
                }
                let rating = Rating::Raters(each);
                match rating.mean() {
                    None => Err(A::Error::custom("expected at least one rater, got an empty list")),
                    Some(mean) if !mean.is_finite() => Err(A::Error::custom("the mean is not finite")),
                    Some(_) => Ok(rating),
                }
            }
        }
        deserializer.deserialize_any(Scores)
    }
}

impl Serialize for Rating {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing => serializer.serialize_unit(),
            Self::Mean(mean) => Number(*mean).serialize(serializer),
            Self::Raters(each) => {
                let mut seq = serializer.serialize_seq(Some(each.len()))?;
                each.iter().try_for_each(|value| seq.serialize_element(&Number(*value)))?;
                seq.end()
            }
        }
    }
}

/// A number that is written without a fraction where it has none, as the data set does.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 1e9 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

/// `prompt_id`, a string or a whole number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a whole number")]
enum Id {
    Text(String),
    Number(i64),
}

/// The fields of a record as they are found.
#[derive(Default)]
#[allow(clippy::option_option, reason = "a field may be absent or null")]
struct Fields {
    prompt_id: Option<Option<Id>>,
    prompt: Option<String>,
    prompt_type: Option<Option<String>>,
    img_path: Option<String>,
    total_score: Option<Rating>,
    element_score: Option<Entries<Rating>>,
    promt_meaningless: Option<Rating>,
    split_confidence: Option<Rating>,
    attribute_confidence: Option<Rating>,
    fidelity_label: Option<Option<serde_json::Value>>,
}

impl Fields {
    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A, name: &str) -> Result<(), A::Error> {
        match name {
            "prompt_id" => field(map, &mut self.prompt_id, name),
            "prompt" => field(map, &mut self.prompt, name),
            "type" => field(map, &mut self.prompt_type, name),
            "img_path" => field(map, &mut self.img_path, name),
            "total_score" => field(map, &mut self.total_score, name),
            "element_score" => field(map, &mut self.element_score, name),
            "promt_meaningless" => field(map, &mut self.promt_meaningless, name),
            "split_confidence" => field(map, &mut self.split_confidence, name),
            "attribute_confidence" => field(map, &mut self.attribute_confidence, name),
            "fidelity_label" => field(map, &mut self.fidelity_label, name),
            _ => field(map, &mut None::<serde::de::IgnoredAny>, &quoted(name)),
        }
    }

    fn record(self) -> Result<Record, String> {
        let prompt_type = match self.prompt_type.flatten() {
            Some(name) if name.starts_with("real") => Some(PromptType::Real),
            Some(name) if name.starts_with("synthetic") => Some(PromptType::Synthetic),
            Some(name) => return Err(format!("type: expected real or synthetic, got {}", quoted(&name))),
            None => None,
        };
        let img_path = self.img_path.filter(|path| !path.is_empty()).ok_or("img_path is missing or empty")?;
        Ok(Record {
            prompt_id: self.prompt_id.flatten().map(|id| match id {
                Id::Text(text) => text,
                Id::Number(number) => number.to_string(),
            }),
            prompt: self.prompt.ok_or("prompt is missing")?,
            prompt_type,
            img_path,
            total_score: self.total_score.unwrap_or_default(),
            element_score: self.element_score.map_or_else(Vec::new, |entries| entries.0),
            promt_meaningless: self.promt_meaningless.unwrap_or_default(),
            split_confidence: self.split_confidence.unwrap_or_default(),
            attribute_confidence: self.attribute_confidence.unwrap_or_default(),
            fidelity_label: self.fidelity_label.flatten(),
        })
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Record;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<String>()? {
                    fields.read(&mut map, &name)?;
                }
                fields.record().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Elements<'a>(&'a [(String, Rating)]);
        impl Serialize for Elements<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(key, rating)| (key, rating)))
            }
        }
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.prompt_id {
            map.serialize_entry("prompt_id", id)?;
        }
        map.serialize_entry("prompt", &self.prompt)?;
        if let Some(prompt_type) = &self.prompt_type {
            map.serialize_entry("type", prompt_type)?;
        }
        map.serialize_entry("img_path", &self.img_path)?;
        map.serialize_entry("total_score", &self.total_score)?;
        map.serialize_entry("element_score", &Elements(&self.element_score))?;
        for (name, rating) in [
            ("promt_meaningless", &self.promt_meaningless),
            ("split_confidence", &self.split_confidence),
            ("attribute_confidence", &self.attribute_confidence),
        ] {
            if *rating != Rating::Missing {
                map.serialize_entry(name, rating)?;
            }
        }
        if let Some(label) = &self.fidelity_label {
            map.serialize_entry("fidelity_label", label)?;
        }
        map.end()
    }
}
