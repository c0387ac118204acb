//! The one error type: a sentence (what, where, expected, got) and a stable code.
//!
//! Sentences are lower-case, one line, without a final full stop; context is put
//! in front as `where: what`. [`Error::code`] is the string that JavaScript
//! switches on and never changes its meaning.

use std::fmt;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; decides [`Error::code`] and [`Error::exit_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Arguments, prompts, elements, records: what the user typed or listed.
    Input,
    /// The picture: not a picture, too large, truncated.
    Image,
    /// Model files: malformed, inconsistent, incomplete.
    Model,
    /// Bytes whose length or SHA-256 is not the one promised.
    Integrity,
    /// Well-formed, but not something this build can do.
    Unsupported,
    /// Reading or writing files.
    Io,
    /// Fetching over the network.
    Network,
    /// No usable device, or the device reported an error.
    Device,
    /// The device was lost while in use.
    DeviceLost,
    /// The device computes wrong results.
    SelfTest,
    /// Stopped because the caller asked for it.
    Aborted,
    /// A defect of imatch itself.
    Internal,
}

impl Kind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 12] = [
        Self::Input,
        Self::Image,
        Self::Model,
        Self::Integrity,
        Self::Unsupported,
        Self::Io,
        Self::Network,
        Self::Device,
        Self::DeviceLost,
        Self::SelfTest,
        Self::Aborted,
        Self::Internal,
    ];

    /// The stable code of the kind.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Input => "invalid_input",
            Self::Image => "invalid_image",
            Self::Model => "invalid_model",
            Self::Integrity => "integrity",
            Self::Unsupported => "unsupported",
            Self::Io => "io",
            Self::Network => "network",
            Self::Device => "device",
            Self::DeviceLost => "device_lost",
            Self::SelfTest => "self_test",
            Self::Aborted => "aborted",
            Self::Internal => "internal",
        }
    }
}

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for Error {
    /// The sentence and its sources joined by `: `, on one line whatever they contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.message.clone();
        let mut source = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        f.write_str(
            &text
                .split(['\n', '\r'])
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        )
    }
}

impl Error {
    /// An error of `kind` that says `message`.
    #[cold]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// [`Kind::Input`].
    #[cold]
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// [`Kind::Image`].
    #[cold]
    pub fn image(message: impl Into<String>) -> Self {
        Self::new(Kind::Image, message)
    }

    /// [`Kind::Model`].
    #[cold]
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    /// [`Kind::Integrity`].
    #[cold]
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, message)
    }

    /// [`Kind::Unsupported`].
    #[cold]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// [`Kind::Io`] at a path, or [`Kind::Input`] where the path itself is wrong: nothing is there,
    /// something else is there, or it is no path at all.
    #[cold]
    pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{
            AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound,
        };
        let kind = match source.kind() {
            NotFound | IsADirectory | NotADirectory | AlreadyExists | InvalidInput | InvalidFilename => {
                Kind::Input
            }
            _ => Kind::Io,
        };
        Self::new(kind, format!("cannot access {}", path.as_ref().display())).with_source(source)
    }

    /// [`Kind::Device`].
    #[cold]
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// [`Kind::Aborted`].
    #[cold]
    pub fn aborted() -> Self {
        Self::new(Kind::Aborted, "stopped on request")
    }

    /// [`Kind::Internal`].
    #[cold]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The same error with the failure that caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with `place` in front: `place: message`.
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The stable string for programs, see [`Kind::code`].
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// The exit code of the command line: 2 for bad input, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Input | Kind::Image | Kind::Model | Kind::Integrity | Kind::Unsupported => 2,
            Kind::Io
            | Kind::Network
            | Kind::Device
            | Kind::DeviceLost
            | Kind::SelfTest
            | Kind::Aborted
            | Kind::Internal => 1,
        }
    }
}

/// Puts a place in front of an error's sentence.
pub trait Context<T> {
    /// `place: message`, evaluated only on error.
    fn context<D: fmt::Display>(self, place: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, place: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(place()))
    }
}
