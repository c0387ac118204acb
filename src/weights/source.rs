//! Where a file's bytes come from: memory, a file, or (in the browser) ranges of a download.

use crate::{Error, Result};

/// A file that can be read in ranges.
///
/// Futures are not `Send`: in the browser they hold JavaScript values, and natively one
/// thread reads.
#[allow(async_fn_in_trait)]
pub trait ByteSource {
    /// Length of the file in bytes.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly `len` bytes from `offset` on.
    ///
    /// # Errors
    /// When the range leaves the file or cannot be read.
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>>;
}

/// A whole file in memory.
#[derive(Debug, Clone)]
pub struct MemorySource(pub Vec<u8>);

impl ByteSource for MemorySource {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(self.len(), offset, len)?;
        let start = offset as usize;
        Ok(self.0[start..start + len].to_vec())
    }
}

/// `offset..offset + len` must lie inside a file of `size` bytes.
///
/// # Errors
/// [`crate::error::Kind::Model`]: the file is shorter than what refers to it.
pub fn check_range(size: u64, offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::model(format!("{len} bytes at offset {offset} asked from a file of {size} bytes"))),
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::FileSource;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    use super::{ByteSource, check_range};
    use crate::{Error, Result};

    /// A file on disk, opened once.
    #[derive(Debug)]
    pub struct FileSource {
        path: PathBuf,
        len: u64,
        file: Mutex<File>,
    }

    impl FileSource {
        /// Opens `path` for reading.
        ///
        /// # Errors
        /// When it does not exist, is a folder or cannot be read.
        pub fn open(path: impl AsRef<Path>) -> Result<Self> {
            let path = path.as_ref().to_owned();
            let file = File::open(&path).map_err(|error| Error::io(&path, error))?;
            let metadata = file.metadata().map_err(|error| Error::io(&path, error))?;
            if !metadata.is_file() {
                return Err(Error::input(format!("{} is not a file", path.display())));
            }
            Ok(Self { len: metadata.len(), file: Mutex::new(file), path })
        }
    }

    impl ByteSource for FileSource {
        fn len(&self) -> u64 {
            self.len
        }

        async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
            check_range(self.len, offset, len)?;
            let mut bytes = vec![0; len];
            // A panic elsewhere leaves only the position behind, and that is set here.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|error| Error::io(&self.path, error))?;
            Ok(bytes)
        }
    }
}
