//! Bytes to named tensors and back: formats, names, manifest, integrity.
//!
//! ```text
//! ModelFiles (a folder, dropped files, a browser's store)
//!     |  form                      converted, GGUF pair, Hugging Face folder
//! ByteSource (memory, file, ranges of a blob)
//!     |  safetensors, gguf         headers only: name, type, shape, place
//!     |  names                     checkpoint name -> canonical name
//! Checkpoint                       tensors in stored bytes, rows of tables in f32
//!     |  bundle                    with configuration, tokenizer, options, digest
//!     |  report                    applied, missing, unused, mismatched
//!     |  adapter, peft             low-rank changes of some matrices
//!     |  convert                   another checkpoint, llama.cpp's names, manifest
//! ```
//!
//! A tensor's bytes stay as stored until a device wants them; nothing holds a whole file.
//! Shapes are in `PyTorch`'s order throughout, also where GGUF writes them innermost first.
//! Whatever the bytes are, readers end in an error or a finite number, and hold no more
//! memory than the file's own size calls for.

pub mod adapter;
pub mod bundle;
pub mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
pub mod convert;
pub mod device;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
#[cfg(not(target_arch = "wasm32"))]
mod folder;
pub mod form;
pub mod gguf;
mod gguf_value;
pub mod gguf_write;
pub mod hugging_face;
pub mod layout;
pub mod llama_cpp;
pub mod load;
pub mod manifest;
pub mod names;
pub mod peft;
pub mod report;
pub mod safetensors;
pub mod source;
pub mod table;

pub use crate::format::tensor::{DType, TensorInfo};
pub use adapter::{Adapter, Factors};
pub use bundle::{Bundle, Headers, ModelFacts};
pub use checkpoint::Checkpoint;
#[cfg(not(target_arch = "wasm32"))]
pub use convert::{ConvertJob, ConvertReport, convert};
#[cfg(not(target_arch = "wasm32"))]
pub use folder::Folder;
pub use form::{Form, ModelFiles};
pub use load::{Loaded, Precision, load, stored};
pub use manifest::{FileEntry, Manifest, Role};
pub use peft::{PeftConfig, Targets};
pub use report::LoadReport;
#[cfg(not(target_arch = "wasm32"))]
pub use source::FileSource;
pub use source::{ByteSource, MemorySource};
pub use table::Table;
