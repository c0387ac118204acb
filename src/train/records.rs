//! `EvalMuse` records as training items: order and augmentations depend on seed and step alone.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::batch::{Item, Source};
use super::instructions::{Instructions, Recipe, Truth};
use crate::data::evalmuse::{Census, ElementLabel, LabelRules, Located, Record, RecordStream, record_at};
use crate::data::rng::Rng;
use crate::error::{Context as _, Error, Result};
use crate::image::Picture;
use crate::image::decode::{DecodeLimits, decode};
use crate::text::Request;
use crate::weights::files::read_file;

/// A file of records, and the folder that their `img_path` is relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordList {
    /// The records.
    pub file: PathBuf,
    /// Their pictures.
    pub images: PathBuf,
}

/// A record and its picture's path.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// Where its picture is.
    pub image: PathBuf,
}

/// Records with their pictures on disk. Twenty bytes a record are held in memory: its place,
/// and its turn.
#[derive(Debug)]
pub struct RecordSet {
    lists: Vec<RecordList>,
    rules: LabelRules,
    /// List and byte of each record that can be used.
    places: Vec<(u32, u64)>,
}

impl RecordSet {
    /// Reads lists through once, checks every label, and looks whether every picture is there:
    /// what cannot be used is in the census of its list, by name and with the reason.
    ///
    /// With a recipe records are for training, and those are left out about which it asks nothing;
    /// without one they are for prediction, and need no label.
    ///
    /// # Errors
    /// For anything malformed or out of its range, naming file, record and field; for files that
    /// cannot be read.
    pub fn open(
        lists: &[RecordList],
        rules: LabelRules,
        recipe: Option<&Recipe>,
    ) -> Result<(Self, Vec<Census>)> {
        let mut places = Vec::new();
        let mut censuses = Vec::with_capacity(lists.len());
        for (number, RecordList { file: path, images }) in lists.iter().enumerate() {
            let mut census = Census::default();
            for located in RecordStream::new(BufReader::new(open(path)?)) {
                let Located { record, offset, index } = located.context(|| path.display())?;
                if !images.join(&record.img_path).is_file() {
                    census.without_picture(&record);
                    continue;
                }
                let labels = census.take(&record, rules).context(|| path.display())?;
                let is_asked = recipe.is_none_or(|recipe| recipe.asks_about(&labels));
                if is_asked {
                    let keys = match recipe {
                        Some(_) => labels.elements.into_iter().map(|element| element.key).collect(),
                        None => record.element_score.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
                    };
                    Request::new(record.prompt, &keys, record.prompt_type)
                        .context(|| format!("{}: record {index}", path.display()))?;
                    places.push((number as u32, offset));
                }
            }
            censuses.push(census);
        }
        if places.is_empty() {
            let names: Vec<String> = lists.iter().map(|list| list.file.display().to_string()).collect();
            let why = censuses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(Error::input(format!("{}: no record can be used: {why}", names.join(", "))));
        }
        Ok((Self { lists: lists.to_vec(), rules, places }, censuses))
    }

    /// Number of records that can be used.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none, which [`Self::open`] refuses.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Which records can be used, as bytes: equal for equal sets.
    pub fn place_bytes(&self) -> Vec<u8> {
        let bytes = |(list, offset): &(u32, u64)| [&list.to_le_bytes()[..], &offset.to_le_bytes()].concat();
        self.places.iter().flat_map(bytes).collect()
    }

    /// One record, read again from its file.
    ///
    /// # Errors
    /// Where the file has changed or cannot be read.
    pub fn record(&self, index: usize) -> Result<Found> {
        let (list, offset) = self.places[index];
        let RecordList { file: path, images } = &self.lists[list as usize];
        let mut source = open(path)?;
        source.seek(SeekFrom::Start(offset)).map_err(|error| Error::io(path, error))?;
        let record = record_at(BufReader::new(source)).context(|| path.display())?;
        Ok(Found { image: images.join(&record.img_path), record })
    }

    /// What people said about a record, as lessons need it.
    fn truth(&self, record: &Record) -> Result<Truth> {
        let labels = record.labels(self.rules)?;
        let keys: Vec<String> = labels.elements.iter().map(|element| element.key.clone()).collect();
        Ok(Truth {
            request: Request::new(record.prompt.clone(), &keys, record.prompt_type)?,
            total: labels.total,
            elements: labels.elements.into_iter().map(|ElementLabel { label, .. }| label).collect(),
        })
    }
}

impl Found {
    /// The record's picture.
    ///
    /// # Errors
    /// Where it cannot be read or is no picture; the file is named.
    pub fn picture(&self) -> Result<Picture> {
        let limits = DecodeLimits::default();
        let bytes = read_file(&self.image, limits.max_bytes as u64)?;
        decode(&bytes, &limits).context(|| self.image.display())
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io(path, error))?;
    if metadata.is_file() { Ok(file) } else { Err(Error::input(format!("{} is not a file", path.display()))) }
}

/// A record set as a source of items: every record once in random order, then in another.
pub struct Records<'a> {
    set: RecordSet,
    instructions: Instructions<'a>,
    order: Mutex<(u64, Vec<u32>)>,
}

impl<'a> Records<'a> {
    /// Records with the instructions that make lessons of them.
    pub fn new(set: RecordSet, instructions: Instructions<'a>) -> Self {
        Self { set, instructions, order: Mutex::new((0, Vec::new())) }
    }

    /// The record of sample `n`, counted through all epochs.
    fn index(&self, n: u64) -> usize {
        let len = self.set.len() as u64;
        let epoch = n / len;
        let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if order.0 != epoch || order.1.is_empty() {
            let mut records: Vec<u32> = (0..len as u32).collect();
            Rng::stream(self.instructions.seed() ^ 0x0e0c, epoch).shuffle(&mut records);
            *order = (epoch, records);
        }
        order.1[(n % len) as usize] as usize
    }

    fn item(&self, n: u64) -> Result<Item> {
        let found = self.set.record(self.index(n))?;
        let picture = found.picture()?;
        let item = self.set.truth(&found.record).and_then(|truth| self.instructions.item(picture, &truth, n));
        item.context(|| found.image.display())
    }
}

impl Source for Records<'_> {
    fn items(&self, step: usize, count: usize, _answer: bool) -> Result<Vec<Item>> {
        (0..count).map(|offset| self.item(step as u64 * count as u64 + offset as u64)).collect()
    }
}
