//! The bytes of each item of a JSON list, or of JSON values that follow each other, one item at a time.
//!
//! Only brackets, strings and separators are looked at; what an item says is for the parser to judge. Memory is that
//! of the largest item, whatever the length of the whole.

use std::io::BufRead;

use crate::error::Kind;
use crate::{Error, Result};

/// Longest item that is read; the longest record of EvalMuse-40K has a few kilobytes.
const MAX_ITEM: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where the scanner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before everything.
    Start,
    /// In a list, before its first item.
    ListStart,
    /// In a list, behind an item.
    List,
    /// Between values that follow each other.
    Lines,
    /// Behind everything, or behind an error.
    End,
}

/// Splits what `reader` gives into items.
#[derive(Debug)]
pub(super) struct Scanner<R> {
    reader: R,
    offset: u64,
    place: Place,
}

impl<R: BufRead> Scanner<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, offset: 0, place: Place::Start }
    }

    /// Puts the next item's bytes into `item` and gives its offset; `None` behind the last, and behind an error.
    pub(super) fn next(&mut self, item: &mut Vec<u8>) -> Result<Option<u64>> {
        item.clear();
        let place = match std::mem::replace(&mut self.place, Place::End) {
            Place::End => return Ok(None),
            Place::Start => self.start()?,
            place => place,
        };
        let next = self.peek_word()?;
        match (place, next) {
            (Place::Lines, None) => return Ok(None),
            (Place::ListStart | Place::List, None) => {
                return Err(self.error("the list ends before its \"]\""));
            }
            (Place::ListStart | Place::List, Some(b']')) => {
                self.advance(1);
                return match self.peek_word()? {
                    None => Ok(None),
                    Some(_) => Err(self.error("there are trailing characters behind the list")),
                };
            }
            (Place::List, Some(b',')) => {
                self.advance(1);
                self.peek_word()?;
            }
            (Place::List, Some(_)) => return Err(self.error("expected \",\" or \"]\"")),
            _ => {}
        }
        let start = self.offset;
        self.value(item)?;
        self.place = if place == Place::Lines { Place::Lines } else { Place::List };
        Ok(Some(start))
    }

    /// Steps over the byte order mark and into the list, if it is one.
    fn start(&mut self) -> Result<Place> {
        if self.peek()? == Some(BYTE_ORDER_MARK[0]) {
            for expected in BYTE_ORDER_MARK {
                if self.peek()? != Some(*expected) {
                    return Err(self.error("there is no JSON"));
                }
                self.advance(1);
            }
        }
        if self.peek_word()? != Some(b'[') {
            return Ok(Place::Lines);
        }
        self.advance(1);
        Ok(Place::ListStart)
    }

    /// Moves one value's bytes to `item`; what is no value at all is at least one byte.
    fn value(&mut self, item: &mut Vec<u8>) -> Result<()> {
        let mut nesting = Nesting::default();
        loop {
            let buffer = fill(&mut self.reader)?;
            if buffer.is_empty() {
                let torn = || self.error("the text ends within an item (EOF)");
                return nesting.is_whole().then_some(()).ok_or_else(torn);
            }
            let end = buffer.iter().position(|&byte| !nesting.takes(byte));
            let taken = end.unwrap_or(buffer.len());
            item.extend_from_slice(&buffer[..taken]);
            self.advance(taken);
            if item.len() > MAX_ITEM {
                return Err(self.error(format!("an item has more than {MAX_ITEM} bytes")));
            }
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// The next byte behind white space, not taken.
    fn peek_word(&mut self) -> Result<Option<u8>> {
        loop {
            let buffer = fill(&mut self.reader)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blank = buffer.iter().position(|byte| !is_blank(*byte));
            let found = blank.map(|index| buffer[index]);
            let skipped = blank.unwrap_or(buffer.len());
            self.advance(skipped);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(fill(&mut self.reader)?.first().copied())
    }

    fn advance(&mut self, count: usize) {
        self.reader.consume(count);
        self.offset += count as u64;
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::input(format!("{what} (byte {})", self.offset))
    }
}

/// What the reader has, at least a byte unless it is at its end.
fn fill(reader: &mut impl BufRead) -> Result<&[u8]> {
    reader.fill_buf().map_err(|error| Error::new(Kind::Io, "cannot read on").with_source(error))
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What a byte of a value lies within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Within {
    #[default]
    Nothing,
    Value,
    String,
    Escape,
    End,
}

/// How deep in brackets a value is.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    within: Within,
}

impl Nesting {
    /// Whether the value may end here.
    fn is_whole(&self) -> bool {
        self.depth == 0 && matches!(self.within, Within::Value | Within::End)
    }

    /// Whether `byte` still belongs to the value.
    fn takes(&mut self, byte: u8) -> bool {
        match self.within {
            Within::End => return false,
            Within::Escape => self.within = Within::String,
            Within::String if byte == b'\\' => self.within = Within::Escape,
            Within::String if byte == b'"' => self.within = Within::Value,
            Within::String => {}
            Within::Nothing | Within::Value => return self.takes_outside_strings(byte),
        }
        true
    }

    fn takes_outside_strings(&mut self, byte: u8) -> bool {
        let first = std::mem::replace(&mut self.within, Within::Value) == Within::Nothing;
        match byte {
            b'"' => self.within = Within::String,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.within = Within::End;
                }
            }
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 && !first => return false,
            _ => {}
        }
        true
    }
}
