//! Whole files, with limits where they are read and without halves where they are written.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::form::MAX_WHOLE;
use crate::{Error, Result};

/// A whole file of at most `max_bytes`.
///
/// # Errors
/// For anything longer, and for pipes and devices: they may never end.
pub fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if !metadata.is_file() {
        return Err(Error::input(format!("{} is not a file", path.display())));
    }
    let too_long = |size| {
        Error::input(format!("{} has {size} bytes or more, at most {max_bytes} are read", path.display()))
    };
    if metadata.len() > max_bytes {
        return Err(too_long(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // Files under /proc say that they are empty and are not.
    let read = File::open(path).and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes));
    let size = read.map_err(|error| Error::io(path, error))? as u64;
    if size > max_bytes { Err(too_long(size)) } else { Ok(bytes) }
}

/// Writes a file as a whole: whatever happens, `path` holds what it held before or all of `bytes`.
///
/// # Errors
/// When it cannot be written or renamed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io(path, error);
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(|error| {
        // What is left of the failed attempt is of no use; the error that counts is the first.
        let _ = fs::remove_file(&part);
        failed(error)
    })
}

/// A part of a model that is no weights, by its name in the model's folder.
///
/// # Errors
/// As [`read_file`].
pub(super) fn read_part(folder: &Path, name: &str) -> Result<Vec<u8>> {
    read_file(&folder.join(name), MAX_WHOLE)
}

/// The folder's own name, also for `.` and `..`.
pub(super) fn folder_name(folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    real.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
