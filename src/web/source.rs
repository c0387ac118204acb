//! Files that JavaScript holds: blobs of a store, of a drop or of memory, read in ranges.

use js_sys::{Function, Promise, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::{field, function, string};
use crate::error::{Error, Kind, Result};
use crate::weights::source::check_range;
use crate::weights::{ByteSource, ModelFiles};

/// Bytes asked for at a time, so that neither side ever holds a large file twice.
const MAX_READ: usize = 1 << 20;

/// A model's files, `{name, files: [{name, bytes, sha256}], read}`.
pub(super) struct JsFiles {
    name: String,
    names: Vec<String>,
    files: Vec<JsFile>,
    read: Function,
}

#[derive(Deserialize)]
struct JsFile {
    name: String,
    bytes: f64,
    #[serde(default)]
    sha256: Option<String>,
}

impl JsFiles {
    /// The files that a call's options list.
    pub(super) fn new(options: &JsValue) -> Result<Self> {
        let files: Vec<JsFile> =
            serde_wasm_bindgen::from_value(field(options, "files")).map_err(|error| {
                Error::input("options.files is no list of files").with_source(error.to_string())
            })?;
        let read = function(options, "read").ok_or_else(|| Error::input("options.read is missing"))?;
        let name = string(options, "name")?.unwrap_or_else(|| "model".into());
        Ok(Self { name, names: files.iter().map(|file| file.name.clone()).collect(), files, read })
    }

    fn file(&self, name: &str) -> Option<&JsFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl ModelFiles for JsFiles {
    type Source = JsSource;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    async fn open(&self, name: &str) -> Result<JsSource> {
        let file =
            self.file(name).ok_or_else(|| Error::input(format!("the model's file {name} is missing")))?;
        Ok(JsSource { path: name.to_owned(), len: file.bytes as u64, read: self.read.clone() })
    }

    fn sha256(&self, name: &str) -> Option<&str> {
        self.file(name)?.sha256.as_deref()
    }
}

/// A file behind `read(path, offset, length) -> Promise<Uint8Array>`.
pub(super) struct JsSource {
    path: String,
    len: u64,
    read: Function,
}

impl JsSource {
    /// One range of at most [`MAX_READ`] bytes, appended to `bytes`.
    async fn append(&self, offset: u64, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let promise = self
            .read
            .call3(&JsValue::NULL, &self.path.as_str().into(), &(offset as f64).into(), &(len as f64).into())
            .map_err(|error| failed(&self.path, &error))?;
        let part =
            JsFuture::from(Promise::resolve(&promise)).await.map_err(|error| failed(&self.path, &error))?;
        let part: Uint8Array =
            part.dyn_into().map_err(|_| Error::internal("read() did not return a Uint8Array"))?;
        if part.length() as usize != len {
            return Err(Error::integrity(format!(
                "{}: {} bytes arrived at offset {offset}, expected {len}",
                self.path,
                part.length()
            )));
        }
        let start = bytes.len();
        bytes.resize(start + len, 0);
        part.copy_to(&mut bytes[start..]);
        Ok(())
    }
}

impl ByteSource for JsSource {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(self.len, offset, len)?;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            self.append(at, (len - bytes.len()).min(MAX_READ), &mut bytes).await?;
        }
        Ok(bytes)
    }
}

/// What JavaScript threw, under its own code where it has one that is known here.
fn failed(path: &str, error: &JsValue) -> Error {
    let code = field(error, "code").as_string();
    let kind = Kind::ALL.into_iter().find(|kind| code.as_deref() == Some(kind.code()));
    let text = js_sys::Error::from(error.clone()).message();
    Error::new(kind.unwrap_or(Kind::Io), format!("{path} could not be read")).with_source(String::from(text))
}
