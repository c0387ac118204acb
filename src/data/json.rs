//! Lists of JSON objects, as one array or one after the other, with errors that name item and field.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Error, Result};

/// The items of an array, or of objects that follow each other (JSON lines).
///
/// Errors say `{what} {index}`, counted from 0.
pub(super) fn items<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<Vec<T>> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('[') {
        let mut json = serde_json::Deserializer::from_str(text);
        let list = List { what, item: PhantomData::<T> };
        return list
            .deserialize(&mut json)
            .and_then(|items| json.end().map(|()| items))
            .map_err(|error| Error::input(error.to_string()));
    }
    let mut items = Vec::new();
    for item in serde_json::Deserializer::from_str(text).into_iter::<T>() {
        items.push(item.map_err(|error| Error::input(format!("{what} {}: {error}", items.len())))?);
    }
    Ok(items)
}

/// An array whose errors carry the index.
struct List<T> {
    what: &'static str,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for List<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}s", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        loop {
            let named = |error| A::Error::custom(format!("{} {}: {error}", self.what, items.len()));
            match seq.next_element().map_err(named)? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
    }
}

/// Reads the next value of a map into `slot`; a second value for the same name is an error.
pub(super) fn field<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    slot: &mut Option<T>,
    name: &str,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format!("{name} is given twice")));
    }
    *slot = Some(map.next_value().map_err(|error| A::Error::custom(format!("{name}: {error}")))?);
    Ok(())
}

/// An object's entries in their order; the same key twice is an error, `null` is no entries.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of elements")
            }

            fn visit_unit<E>(self) -> Result<Entries<T>, E> {
                Ok(Entries(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut pairs = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    let mut value = None;
                    field(&mut map, &mut value, &quoted(&key))?;
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("{} is given twice", quoted(&key))));
                    }
                    pairs.extend(value.map(|value| (key, value)));
                }
                Ok(Entries(pairs))
            }
        }
        deserializer.deserialize_any(Pairs(PhantomData))
    }
}

/// At most 80 characters of a text in quotes, escaped, for errors.
pub(super) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(80).collect();
    if start.len() < text.len() { format!("{start:?}...") } else { format!("{start:?}") }
}
