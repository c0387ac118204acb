//! Ranges of a file that JavaScript holds or fetches.

use js_sys::{Function, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::error::{Error, Kind, Result};
use crate::weights::ByteSource;

/// A file behind `read(path, offset, length) -> Promise<Uint8Array>`.
pub(super) struct JsSource {
    path: String,
    len: u64,
    read: Function,
}

impl JsSource {
    pub(super) fn new(path: String, len: u64, read: Function) -> Self {
        Self { path, len, read }
    }
}

impl ByteSource for JsSource {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let promise = self
            .read
            .call3(&JsValue::NULL, &self.path.as_str().into(), &(offset as f64).into(), &(len as f64).into())
            .map_err(|error| failed(&self.path, &error))?;
        let bytes =
            JsFuture::from(Promise::resolve(&promise)).await.map_err(|error| failed(&self.path, &error))?;
        let bytes: Uint8Array =
            bytes.dyn_into().map_err(|_| Error::internal("read() did not return a Uint8Array"))?;
        if bytes.length() as usize != len {
            return Err(Error::integrity(format!(
                "{}: {} bytes arrived at offset {offset}, expected {len}",
                self.path,
                bytes.length()
            )));
        }
        Ok(bytes.to_vec())
    }
}

fn failed(path: &str, error: &JsValue) -> Error {
    let text = js_sys::Error::from(error.clone()).message();
    Error::new(Kind::Network, format!("{path} could not be read")).with_source(String::from(text))
}
