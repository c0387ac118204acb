//! Between layers the event loop gets its turn: progress goes out, an abort comes in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_time::Instant;

use crate::error::{Error, Result};
use crate::model::{Observer, Phase};

/// Longest time without a turn of the event loop, in milliseconds: a fraction of the 100 ms
/// after which a person feels that something hangs.
const TURN_MS: u128 = 25;

/// Set from outside to stop a call at the next layer.
#[wasm_bindgen]
#[derive(Clone, Default)]
pub struct AbortFlag {
    set: Rc<Cell<bool>>,
}

#[wasm_bindgen]
impl AbortFlag {
    /// A flag that is not set.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag.
    pub fn abort(&self) {
        self.set.set(true);
    }
}

/// Watches one call.
pub(super) struct WebObserver {
    flag: AbortFlag,
    report: Option<Function>,
    phase: Cell<Option<Phase>>,
    layers: Cell<u32>,
    last_turn: RefCell<Instant>,
}

impl WebObserver {
    pub(super) fn new(flag: &AbortFlag, report: Option<Function>) -> Self {
        Self {
            flag: flag.clone(),
            report,
            phase: Cell::new(None),
            layers: Cell::new(0),
            last_turn: RefCell::new(Instant::now()),
        }
    }

    /// The same call without reports.
    pub(super) fn quiet(&self) -> Self {
        Self::new(&self.flag, None)
    }

    /// Reports `{stage, loaded, total}` and gives the event loop its turn.
    pub(super) async fn progress(&self, stage: &str, loaded: u64, total: u64) -> Result<()> {
        self.send(stage, loaded as f64, total as f64);
        self.turn().await
    }

    fn send(&self, stage: &str, loaded: f64, total: f64) {
        let Some(report) = &self.report else { return };
        let event = Object::new();
        for (name, value) in
            [("stage", JsValue::from(stage)), ("loaded", loaded.into()), ("total", total.into())]
        {
            // Setting a property of a fresh object cannot fail.
            let _ = Reflect::set(&event, &name.into(), &value);
        }
        // What a listener throws is not this call's concern.
        let _ = report.call1(&JsValue::NULL, &event);
    }

    async fn turn(&self) -> Result<()> {
        let since = self.last_turn.borrow().elapsed().as_millis();
        if since >= TURN_MS {
            next_task().await;
            *self.last_turn.borrow_mut() = Instant::now();
        }
        if self.flag.set.get() { Err(Error::aborted()) } else { Ok(()) }
    }
}

impl Observer for WebObserver {
    fn phase(&self, phase: Phase) {
        self.phase.set(Some(phase));
        self.layers.set(0);
        self.report_phase();
    }

    async fn between_layers(&self) -> Result<()> {
        self.layers.set(self.layers.get() + 1);
        self.report_phase();
        self.turn().await
    }
}

impl WebObserver {
    /// Layers done in this phase; how many there will be is not known here, so `total` is 0.
    fn report_phase(&self) {
        let stage = match self.phase.get() {
            Some(Phase::Picture) => "picture",
            Some(Phase::Questions) => "questions",
            None => return,
        };
        self.send(stage, f64::from(self.layers.get()), 0.0);
    }
}

/// Resolves in a later task. A resolved promise would not do: it runs before the event loop
/// turns to messages. `setTimeout` would wait at least 4 ms once it is nested.
pub(super) async fn next_task() {
    let promise = Promise::new(&mut |resolve, _| {
        let Ok(channel) = web_sys::MessageChannel::new() else {
            let _ = resolve.call0(&JsValue::NULL);
            return;
        };
        let port = channel.port1();
        let close = port.clone();
        let arrived = Closure::once_into_js(move || {
            close.close();
            let _ = resolve.call0(&JsValue::NULL);
        });
        port.set_onmessage(Some(arrived.unchecked_ref()));
        let _ = channel.port2().post_message(&JsValue::NULL);
    });
    // The promise is never rejected.
    let _ = JsFuture::from(promise).await;
}
