//! Typed metadata of GGUF files.

use std::fmt;

use crate::format::tensor::shown;

/// Most values of an array that a message lists.
const LISTED: usize = 4;

/// One list for everything that depends on the scalar type: variant, Rust type, id in the file.
///
/// Source of the ids: `enum gguf_type` in gguf.h.
macro_rules! scalars {
    ($($variant:ident $type:ty = $id:literal),+ $(,)?) => {
        /// A metadata value.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Value {
            $(#[doc = concat!("A `", stringify!($type), "`.")] $variant($type),)+
            /// A flag.
            Bool(bool),
            /// Text.
            String(String),
            /// Values of one type.
            Array(Array),
        }

        /// An array of metadata values, all of one type.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Array {
            $(#[doc = concat!("Values of type `", stringify!($type), "`.")] $variant(Vec<$type>),)+
            /// Flags.
            Bool(Vec<bool>),
            /// Texts.
            String(Vec<String>),
        }

        impl Value {
            /// The type's id in the file.
            pub(super) fn id(&self) -> u32 {
                match self {
                    $(Self::$variant(_) => $id,)+
                    Self::Bool(_) => BOOL,
                    Self::String(_) => STRING,
                    Self::Array(_) => ARRAY,
                }
            }

            /// Reads a scalar of type `id` from little-endian bytes; `None` for other types.
            pub(super) fn scalar(id: u32, bytes: &[u8]) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant(<$type>::from_le_bytes(bytes.try_into().ok()?))),)+
                    _ => None,
                }
            }

            /// Appends the value without its type id.
            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => out.extend(value.to_le_bytes()),)+
                    Self::Bool(value) => out.push(u8::from(*value)),
                    Self::String(text) => write_string(text, out),
                    Self::Array(array) => array.write(out),
                }
            }
        }

        impl Array {
            /// Reads values of type `id` that lie one after another; `None` for other types.
            pub(super) fn scalars(id: u32, bytes: &[u8]) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant(
                        bytes.chunks_exact(size_of::<$type>())
                            .map(|chunk| <$type>::from_le_bytes(chunk.try_into().expect("chunks of the exact size")))
                            .collect(),
                    )),)+
                    _ => None,
                }
            }

            /// Number of values.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$variant(values) => values.len(),)+
                    Self::Bool(values) => values.len(),
                    Self::String(values) => values.len(),
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(values) => {
                        array_head($id, values.len(), out);
                        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    })+
                    Self::Bool(values) => {
                        array_head(BOOL, values.len(), out);
                        out.extend(values.iter().map(|value| u8::from(*value)));
                    }
                    Self::String(values) => {
                        array_head(STRING, values.len(), out);
                        for text in values {
                            write_string(text, out);
                        }
                    }
                }
            }
        }

        impl fmt::Display for Value {
            /// As a message shows it: texts are cut, and of a long list only the length is told.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    // Debug writes large and small numbers with an exponent.
                    $(Self::$variant(value) => write!(f, "{value:?}"),)+
                    Self::Bool(value) => write!(f, "{value}"),
                    Self::String(text) => f.write_str(&quoted(text)),
                    Self::Array(array) => write!(f, "{array}"),
                }
            }
        }

        impl fmt::Display for Array {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.len() > LISTED {
                    return write!(f, "a list of {} values", self.len());
                }
                let values: Vec<String> = match self {
                    $(Self::$variant(values) => values.iter().map(|value| format!("{value:?}")).collect(),)+
                    Self::Bool(values) => values.iter().map(bool::to_string).collect(),
                    Self::String(values) => values.iter().map(|text| quoted(text)).collect(),
                };
                write!(f, "[{}]", values.join(", "))
            }
        }

        /// Bytes of a scalar of type `id`; `None` for texts, arrays and unknown types.
        pub(super) fn scalar_size(id: u32) -> Option<usize> {
            match id {
                $($id => Some(size_of::<$type>()),)+
                BOOL => Some(1),
                _ => None,
            }
        }
    };
}

scalars! {
    U8 u8 = 0, I8 i8 = 1, U16 u16 = 2, I16 i16 = 3, U32 u32 = 4, I32 i32 = 5, F32 f32 = 6,
    U64 u64 = 10, I64 i64 = 11, F64 f64 = 12,
}

/// Id of [`Value::Bool`].
pub(super) const BOOL: u32 = 7;
/// Id of [`Value::String`].
pub(super) const STRING: u32 = 8;
/// Id of [`Value::Array`].
pub(super) const ARRAY: u32 = 9;

impl Value {
    /// The value as a whole number that is not negative, whatever its integer type.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(value) => Some((*value).into()),
            Self::U16(value) => Some((*value).into()),
            Self::U32(value) => Some((*value).into()),
            Self::U64(value) => Some(*value),
            Self::I8(value) => u64::try_from(*value).ok(),
            Self::I16(value) => u64::try_from(*value).ok(),
            Self::I32(value) => u64::try_from(*value).ok(),
            Self::I64(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value as a number, whatever its float type.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::F32(value) => Some((*value).into()),
            Self::F64(value) => Some(*value),
            _ => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The array of texts.
    pub fn as_texts(&self) -> Option<&[String]> {
        match self {
            Self::Array(Array::String(values)) => Some(values),
            _ => None,
        }
    }

    /// The array of whole numbers that are not negative, of the types that converters write.
    pub fn as_counts(&self) -> Option<Vec<u64>> {
        match self {
            Self::Array(Array::I32(values)) => values.iter().map(|&value| value.try_into().ok()).collect(),
            Self::Array(Array::U32(values)) => Some(values.iter().map(|&value| value.into()).collect()),
            _ => None,
        }
    }

    /// The array of numbers.
    pub fn as_numbers(&self) -> Option<&[f32]> {
        match self {
            Self::Array(Array::F32(values)) => Some(values),
            _ => None,
        }
    }

    /// The array of flags.
    pub fn as_bools(&self) -> Option<&[bool]> {
        match self {
            Self::Array(Array::Bool(values)) => Some(values),
            _ => None,
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

impl Array {
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// Length and bytes of a text.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn array_head(id: u32, len: usize, out: &mut Vec<u8>) {
    out.extend(id.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
