//! Reading a JSON object key by key, with sentences that name the key.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Longest configuration file that is parsed, in bytes; published ones have a few thousand.
const MAX_BYTES: usize = 4 << 20;

/// An object and the path that leads to it, empty for the file itself.
#[derive(Clone)]
pub(super) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

/// Parses a whole file that must hold one object.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::model(format!(
            "a configuration of {} bytes, expected at most {MAX_BYTES}",
            bytes.len()
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| Error::model("not valid JSON").with_source(error))
}

impl<'a> Object<'a> {
    /// The file's own object.
    pub(super) fn root(value: &'a Value) -> Result<Self> {
        let map = value
            .as_object()
            .ok_or_else(|| Error::model(format!("expected a JSON object, got {}", kind(value))))?;
        Ok(Self { path: String::new(), map })
    }

    /// The object under `key`.
    pub(super) fn object(&self, key: &str) -> Result<Self> {
        self.optional_object(key)?.ok_or_else(|| self.missing(key))
    }

    /// Like [`Object::object`], `None` where the key is absent or null.
    pub(super) fn optional_object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: self.name(key), map })),
            Some(other) => Err(self.wrong(key, "an object", other)),
        }
    }

    /// The value under `key`, `None` where absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A whole number from `range`.
    pub(super) fn count(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize> {
        self.optional_count(key, range)?.ok_or_else(|| self.missing(key))
    }

    /// Like [`Object::count`], `None` where the key is absent or null.
    pub(super) fn optional_count(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) if range.contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(key, &expected(), value)),
        }
    }

    /// A list of whole numbers from `range`, at most `max_len` of them.
    pub(super) fn counts(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<usize>,
        max_len: usize,
    ) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let expected =
            || format!("a list of at most {max_len} whole numbers from {} to {}", range.start(), range.end());
        let list = value.as_array().filter(|list| list.len() <= max_len);
        let counts = list.and_then(|list| {
            list.iter()
                .map(|item| item.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)))
                .collect::<Option<Vec<_>>>()
        });
        counts.map(Some).ok_or_else(|| self.wrong(key, &expected(), value))
    }

    /// A whole number, or a list that repeats one (`16` or `[16, 16]`).
    pub(super) fn side(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(Value::Array(list)) = self.get(key) else { return self.optional_count(key, range) };
        let sides = self.counts(key, range, 3)?.unwrap_or_default();
        match sides.first() {
            Some(first) if sides.iter().all(|side| side == first) => Ok(Some(*first)),
            _ => Err(self.wrong(key, "equal sides", &Value::Array(list.clone()))),
        }
    }

    /// A finite number above `low` and at most `high`.
    pub(super) fn number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > low && number <= high => Ok(Some(number)),
            _ => Err(self.wrong(key, &format!("a number above {low} and at most {high}"), value)),
        }
    }

    /// A flag, `None` where the key is absent or null.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// A string, `None` where the key is absent or null.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", value))
    }

    /// Refuses a string other than those listed; absent is fine.
    pub(super) fn only_text(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(text) if !allowed.contains(&text) => Err(self.unsupported(key, allowed, &Value::from(text))),
            _ => Ok(()),
        }
    }

    /// Refuses a flag other than `expected`; absent is fine.
    pub(super) fn only_flag(&self, key: &str, expected: bool) -> Result<()> {
        match self.flag(key)? {
            Some(flag) if flag != expected => {
                Err(self.unsupported(key, &[if expected { "true" } else { "false" }], &Value::Bool(flag)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a number other than `expected`; absent is fine.
    pub(super) fn only_integer(&self, key: &str, expected: i64) -> Result<()> {
        match self.get(key) {
            Some(value) if value.as_i64() != Some(expected) => {
                Err(self.unsupported(key, &[&expected.to_string()], value))
            }
            _ => Ok(()),
        }
    }

    /// The key with its path: `text_config.head_dim`.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A key that must be there is not.
    pub(super) fn missing(&self, key: &str) -> Error {
        Error::model(format!("{} is missing", self.name(key)))
    }

    /// A key holds something else than it must.
    pub(super) fn wrong(&self, key: &str, expected: &str, got: &Value) -> Error {
        Error::model(format!("{} is {}, expected {expected}", self.name(key), excerpt(got)))
    }

    /// A key holds something sensible that this build cannot do.
    pub(super) fn unsupported(&self, key: &str, allowed: &[&str], got: &Value) -> Error {
        let allowed = allowed.join(" or ");
        Error::unsupported(format!("{} is {}, only {allowed} is supported", self.name(key), excerpt(got)))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value as JSON, cut after 60 characters.
fn excerpt(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(list) if list.len() > 16 => format!("a list of {} items", list.len()),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}
