//! Lists of JSON objects, as one array or one after the other, with errors that name item and field.

use std::collections::HashSet;
use std::fmt;
use std::io::BufRead;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::scan::Scanner;
use crate::error::Context as _;
use crate::{Error, Result};

/// The items of an array, or of objects that follow each other (JSON lines), as they are read.
///
/// Holds one item at a time. Errors say `{what} {index}`, counted from 0; behind one there is nothing to rely on.
#[derive(Debug)]
pub(super) struct Items<R, T> {
    scanner: Scanner<R>,
    bytes: Vec<u8>,
    what: &'static str,
    index: usize,
    item: PhantomData<fn() -> T>,
}

impl<R: BufRead, T: DeserializeOwned> Items<R, T> {
    pub(super) fn new(reader: R, what: &'static str) -> Self {
        Self { scanner: Scanner::new(reader), bytes: Vec::new(), what, index: 0, item: PhantomData }
    }
}

impl<R: BufRead, T: DeserializeOwned> Iterator for Items<R, T> {
    /// The item and the offset of its first byte.
    type Item = Result<(u64, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { scanner, bytes, what, index, .. } = self;
        let offset = scanner.next(bytes).transpose()?;
        let item = offset.and_then(|offset| Ok((offset, parse(bytes, offset)?)));
        *index += 1;
        Some(item.context(|| format!("{what} {}", *index - 1)))
    }
}

/// All [`Items`] of a text.
pub(super) fn items<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<Vec<T>> {
    Items::new(text.as_bytes(), what).map(|item| Ok(item?.1)).collect()
}

/// One value; errors say at which byte, counted from the value's own `offset`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], offset: u64) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        let above: usize =
            bytes.split_inclusive(|byte| *byte == b'\n').take(line.max(1) - 1).map(<[u8]>::len).sum();
        Error::input(format!("{text} (byte {})", offset + (above + column.saturating_sub(1)) as u64))
    })
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

/// An object's entries in their order, repeated keys too; `null` is no entries.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Entries<T> {
    /// The entries, unless a key is there twice.
    pub(super) fn once(self) -> Result<Vec<(String, T)>> {
        let mut seen = HashSet::new();
        match self.0.iter().find(|(key, _)| !seen.insert(key)) {
            Some((key, _)) => Err(Error::input(format!("{} is given twice", quoted(key)))),
            None => Ok(self.0),
        }
    }
}

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
                while let Some(key) = map.next_key::<String>()? {
                    let mut value = None;
                    field(&mut map, &mut value, &quoted(&key))?;
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
