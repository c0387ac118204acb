//! Records one at a time, so that a set may be longer than memory.

use std::io::BufRead;

use super::Record;
use crate::data::json::{Items, parse};
use crate::data::scan::Scanner;
use crate::error::Context as _;
use crate::{Error, Result};

/// A record and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Its number, from 0.
    pub index: usize,
    /// Bytes before its first one: [`record_at`] reads it again from there.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// The records of a JSON list or of JSON lines, holding one at a time.
///
/// A byte order mark is passed over. Errors are those of [`read_records`](super::read_records), a record of more
/// than 16 MiB, and [`Kind::Io`](crate::error::Kind::Io) where the reader fails; they name the record, counted from
/// 0, and the byte, but no file. The stream ends behind the first error.
///
/// ```
/// use imatch::data::evalmuse::{RecordStream, record_at};
///
/// let text = r#"[{"prompt": "p", "img_path": "a.png"}, {"prompt": "q", "img_path": "b.png"}]"#;
/// let offsets: Vec<u64> =
///     RecordStream::new(text.as_bytes()).map(|found| found.map(|found| found.offset)).collect::<Result<_, _>>()?;
/// let again = record_at(&text.as_bytes()[offsets[1] as usize..])?;
/// assert_eq!(again.img_path, "b.png");
/// # Ok::<(), imatch::Error>(())
/// ```
#[derive(Debug)]
pub struct RecordStream<R> {
    items: Items<R, Record>,
    index: usize,
    failed: bool,
}

impl<R: BufRead> RecordStream<R> {
    /// Reads from the start of a file.
    pub fn new(reader: R) -> Self {
        Self { items: Items::new(reader, "record"), index: 0, failed: false }
    }
}

impl<R: BufRead> Iterator for RecordStream<R> {
    type Item = Result<Located>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let index = self.index;
        self.index += 1;
        let found = self.items.next()?.and_then(|(offset, record)| {
            record.check_path().context(|| format!("record {index}"))?;
            Ok(Located { index, offset, record })
        });
        self.failed = found.is_err();
        Some(found)
    }
}

/// Reads the one record that `bytes` are.
///
/// # Errors
/// As [`read_records`](super::read_records); the field is named, the record is for the caller to name.
pub fn record_from(bytes: &[u8]) -> Result<Record> {
    let record: Record = parse(bytes, 0)?;
    record.check_path()?;
    Ok(record)
}

/// Reads the one record that begins where `reader` stands, at a [`Located::offset`], whatever follows it.
///
/// # Errors
/// As [`record_from`]; also where nothing is left to read.
pub fn record_at(reader: impl BufRead) -> Result<Record> {
    let mut bytes = Vec::new();
    match Scanner::new(reader).next(&mut bytes)? {
        Some(_) => record_from(&bytes),
        None => Err(Error::input("expected a record, got the end of the file")),
    }
}
