//! The browser surface: a thin `#[wasm_bindgen]` layer over the engine, one call a method.
//!
//! Everything here runs in a dedicated worker. Errors are JavaScript `Error`s with a `code`.

mod device;
mod observer;
mod source;

use std::cell::RefCell;
use std::sync::Arc;

use js_sys::{Function, Reflect};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::engine;
use crate::error::{Error, Result};
use crate::image::decode::{DecodeLimits, decode};
use crate::ops::check::Check;
use crate::text::{PromptType, Request};
use crate::weights::{Bundle, Headers};

pub(crate) use observer::AbortFlag;
use observer::WebObserver;
use source::JsFiles;

/// Runs the module's static constructors, and prints panics to the console instead of a bare `unreachable`.
#[wasm_bindgen(start)]
fn start() {
    constructors::run();
    console_error_panic_hook::set_once();
}

/// The module's static constructors: cubecl registers its types in hundreds of them.
mod constructors {
    #[allow(unsafe_code, reason = "the linker makes the function, so that only an extern block names it")]
    unsafe extern "C" {
        /// Made by wasm-ld. Where nothing refers to it, wasm-ld takes the module for a program that ends with each
        /// call, and puts a call of it before every export: all constructors then run for each JavaScript object.
        safe fn __wasm_call_ctors();
    }

    /// Runs them; to be called once, before anything else of the module.
    pub(super) fn run() {
        __wasm_call_ctors();
    }
}

/// A model on a device.
#[wasm_bindgen]
pub struct Engine {
    engine: Arc<engine::Engine>,
    selftest: engine::selftest::SelfTest,
}

/// A picture that the vision tower has read.
#[wasm_bindgen]
pub struct Picture {
    width: usize,
    height: usize,
    sha256: String,
    session: RefCell<engine::Session>,
}

#[wasm_bindgen]
impl Engine {
    /// Verifies, loads and tests a model: `{files, read, device, deviceName, onProgress}`, where `files` are
    /// `{name, bytes, sha256}` (the digest where the file was hashed as it arrived).
    pub async fn load(options: JsValue, flag: &AbortFlag) -> std::result::Result<Engine, JsValue> {
        let observer = WebObserver::new(flag, function(&options, "onProgress"));
        load(&options, &observer).await.map_err(thrown)
    }

    /// Model, device, scoring options, self-test and loading time.
    pub fn info(&self) -> std::result::Result<JsValue, JsValue> {
        #[derive(Serialize)]
        struct Info<'a> {
            model: &'a crate::score::ModelIdentity,
            device: &'a str,
            scoring: &'a crate::score::ScoringOptions,
            selftest: Passed,
            load_ms: f64,
            device_bytes: u64,
            /// The module's memory, which never shrinks: the most that was held so far.
            heap_bytes: usize,
        }
        #[derive(Serialize)]
        struct Passed {
            passed: bool,
            checked: usize,
            compared: usize,
            max_difference: f64,
        }
        let engine = &self.engine;
        let info = Info {
            model: engine.identity(),
            device: engine.device_name(),
            scoring: engine.processor().scoring(),
            selftest: Passed {
                passed: true,
                checked: self.selftest.checked,
                compared: self.selftest.compared,
                max_difference: self.selftest.max_difference,
            },
            load_ms: engine.load_ms(),
            device_bytes: engine.device_bytes(),
            heap_bytes: core::arch::wasm32::memory_size::<0>() << 16,
        };
        plain(&info).map_err(thrown)
    }

    /// Decodes and encodes a picture file.
    pub async fn open(&self, bytes: Vec<u8>, flag: &AbortFlag) -> std::result::Result<Picture, JsValue> {
        let observer = WebObserver::new(flag, None);
        let open = async {
            let picture = decode(&bytes, &DecodeLimits::default())?;
            let session = self.engine.open(&picture, &observer).await?;
            let sha256 = session.picture_sha256().to_owned();
            let (width, height) = (picture.width(), picture.height());
            Ok(Picture { width, height, sha256, session: RefCell::new(session) })
        };
        open.await.map_err(thrown)
    }

    /// Every stage of one question about a picture file, as [`engine::Trace`]: for comparisons of
    /// this device with another implementation.
    pub async fn trace(&self, bytes: Vec<u8>, text: String) -> std::result::Result<JsValue, JsValue> {
        let trace = async {
            let picture = decode(&bytes, &DecodeLimits::default())?;
            plain(&self.engine.trace(&picture, &text).await?)
        };
        trace.await.map_err(thrown)
    }
}

#[wasm_bindgen]
impl Picture {
    /// Pixels per row.
    #[wasm_bindgen(getter)]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[wasm_bindgen(getter)]
    pub fn height(&self) -> usize {
        self.height
    }

    /// SHA-256 of the decoded pixels.
    pub fn sha256(&self) -> String {
        self.sha256.clone()
    }

    /// Scores a request `{prompt, elements, promptType}`: the object of `score --json`.
    ///
    /// One request at a time: a second one while the first runs is refused.
    pub async fn score(
        &self,
        request: JsValue,
        flag: &AbortFlag,
        on_progress: Option<Function>,
    ) -> std::result::Result<JsValue, JsValue> {
        let observer = WebObserver::new(flag, on_progress);
        let score = async {
            let request = parse_request(&request)?;
            let mut session = self
                .session
                .try_borrow_mut()
                .map_err(|_| Error::input("this picture is being scored; wait for the first request"))?;
            let result = session.score(&request, &observer).await?;
            plain(&result)
        };
        score.await.map_err(thrown)
    }
}

async fn load(options: &JsValue, observer: &WebObserver) -> Result<Engine> {
    let bundle = Bundle::from_files(&JsFiles::new(options)?, async |done, total| {
        observer.progress("verify", done, total).await
    })
    .await?;
    let golden = bundle.golden.clone();
    let place = match string(options, "device")?.as_deref() {
        Some("gpu") => device::gpu(string(options, "deviceName")?).await?,
        Some("cpu") => engine::Place::cpu(),
        other => return Err(Error::input(format!("options.device is {other:?}, expected gpu or cpu"))),
    };
    let engine = engine::Engine::load(bundle, place, async |done, total| {
        observer.progress("upload", done, total).await
    })
    .await?;
    observer.progress("selftest", 0, 1).await?;
    let selftest = engine::selftest::run(&engine, &golden, &observer.quiet()).await?;
    observer.progress("selftest", 1, 1).await?;
    Ok(Engine { engine, selftest })
}

/// What a model needs, `{files, read, prepare}`: headers are read and nothing else. With `prepare`, the browser's GPU
/// makes the model's kernels ready after that, while its weights are still on their way.
#[wasm_bindgen]
#[allow(unreachable_pub, reason = "JavaScript reaches it")]
pub async fn inspect(options: JsValue) -> std::result::Result<JsValue, JsValue> {
    let inspect = async {
        let files = JsFiles::new(&options)?;
        let headers = Headers::read(&files).await?;
        let preflight = engine::Preflight::of_headers(&headers, &files).await?;
        if field(&options, "prepare").is_truthy() {
            wasm_bindgen_futures::spawn_local(async move {
                // What is wrong here is wrong again when the model is loaded, and what the device reports is heard.
                if let Ok(place) = device::gpu(None).await {
                    let _ = engine::prepare(&headers, &place.device).await;
                }
            });
        }
        plain(&preflight)
    };
    inspect.await.map_err(thrown)
}

/// Compares the forms of operations on the browser's GPU with burn's on the CPU: of each of the `checks`
/// ([`Check`](crate::ops::check::Check)) the largest difference, or an error that says where they differ. For tests,
/// and for whoever wants to know what a device does.
#[wasm_bindgen]
#[allow(unreachable_pub, reason = "JavaScript reaches it")]
pub async fn compare(checks: JsValue) -> std::result::Result<JsValue, JsValue> {
    let compare = async {
        let checks: Vec<Check> = serde_wasm_bindgen::from_value(checks)
            .map_err(|error| Error::input("checks are no list of checks").with_source(error.to_string()))?;
        let place = device::gpu(None).await?;
        let mut differences = Vec::with_capacity(checks.len());
        for check in checks {
            differences.push(check.run(&place.device).await?);
        }
        plain(&differences)
    };
    compare.await.map_err(thrown)
}

fn parse_request(request: &JsValue) -> Result<Request> {
    let prompt = string(request, "prompt")?.ok_or_else(|| Error::input("request.prompt is missing"))?;
    let elements = field(request, "elements");
    let elements: Vec<String> = if elements.is_undefined() || elements.is_null() {
        Vec::new()
    } else {
        serde_wasm_bindgen::from_value(elements).map_err(|error| {
            Error::input("request.elements is no list of texts").with_source(error.to_string())
        })?
    };
    let prompt_type = string(request, "promptType")?.map(|name| name.parse::<PromptType>()).transpose()?;
    Request::new(prompt, &elements, prompt_type)
}

fn field(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED)
}

fn string(object: &JsValue, name: &str) -> Result<Option<String>> {
    let value = field(object, name);
    if value.is_undefined() || value.is_null() {
        return Ok(None);
    }
    value.as_string().map(Some).ok_or_else(|| Error::input(format!("{name} is no text")))
}

fn function(object: &JsValue, name: &str) -> Option<Function> {
    field(object, name).dyn_into().ok()
}

/// A plain JavaScript object, as JSON would give it.
fn plain(value: &impl Serialize) -> Result<JsValue> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|error| Error::internal("a result could not be handed over").with_source(error.to_string()))
}

/// The JavaScript `Error` of an error, with its code.
fn thrown(error: Error) -> JsValue {
    let object = js_sys::Error::new(&error.to_string());
    // Setting a property of a fresh object cannot fail.
    let _ = Reflect::set(&object, &"code".into(), &error.code().into());
    object.into()
}
