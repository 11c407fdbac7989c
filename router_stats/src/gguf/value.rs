//! Values of metadata.

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An unsigned byte.
    U8(u8),
    /// A signed byte.
    I8(i8),
    /// 16 bits without sign.
    U16(u16),
    /// 16 bits with sign.
    I16(i16),
    /// 32 bits without sign: what counts are stored as.
    U32(u32),
    /// 32 bits with sign.
    I32(i32),
    /// Single precision: what real numbers are stored as.
    F32(f32),
    /// A flag.
    Bool(bool),
    /// Text.
    String(String),
    /// Values of one kind.
    Array(Array),
    /// 64 bits without sign.
    U64(u64),
    /// 64 bits with sign.
    I64(i64),
    /// Double precision.
    F64(f64),
}

/// Values of one kind, stored as such: vocabularies have hundreds of thousands.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// 16 bits without sign.
    U16(Vec<u16>),
    /// 16 bits with sign.
    I16(Vec<i16>),
    /// 32 bits without sign.
    U32(Vec<u32>),
    /// 32 bits with sign: what kinds of tokens are stored as.
    I32(Vec<i32>),
    /// Single precision.
    F32(Vec<f32>),
    /// Flags.
    Bool(Vec<bool>),
    /// Texts: tokens, merges.
    String(Vec<String>),
    /// Arrays, each of a kind of its own.
    Array(Vec<Array>),
    /// 64 bits without sign.
    U64(Vec<u64>),
    /// 64 bits with sign.
    I64(Vec<i64>),
    /// Double precision.
    F64(Vec<f64>),
}

/// Runs `$body` with `$values` bound to the list of any array.
macro_rules! each_array {
    ($array:expr, $values:ident => $body:expr) => {
        match $array {
            $crate::gguf::Array::U8($values) => $body,
            $crate::gguf::Array::I8($values) => $body,
            $crate::gguf::Array::U16($values) => $body,
            $crate::gguf::Array::I16($values) => $body,
            $crate::gguf::Array::U32($values) => $body,
            $crate::gguf::Array::I32($values) => $body,
            $crate::gguf::Array::F32($values) => $body,
            $crate::gguf::Array::Bool($values) => $body,
            $crate::gguf::Array::String($values) => $body,
            $crate::gguf::Array::Array($values) => $body,
            $crate::gguf::Array::U64($values) => $body,
            $crate::gguf::Array::I64($values) => $body,
            $crate::gguf::Array::F64($values) => $body,
        }
    };
}
pub(super) use each_array;

impl Array {
    /// Number of values.
    pub fn len(&self) -> usize {
        each_array!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values at `indices`, in that order; `None` if one is beyond the end.
    pub fn select(&self, indices: &[usize]) -> Option<Self> {
        macro_rules! select {
            ($($kind:ident),*) => {
                match self {
                    $(Self::$kind(values) => {
                        let chosen = indices.iter().map(|&at| values.get(at).cloned());
                        Self::$kind(chosen.collect::<Option<_>>()?)
                    })*
                }
            };
        }
        Some(select!(
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64
        ))
    }
}

impl Value {
    /// A whole number that is not negative, whatever it is stored as.
    pub fn natural(&self) -> Option<u64> {
        match self {
            Self::U8(x) => Some((*x).into()),
            Self::U16(x) => Some((*x).into()),
            Self::U32(x) => Some((*x).into()),
            Self::U64(x) => Some(*x),
            Self::I8(x) => (*x).try_into().ok(),
            Self::I16(x) => (*x).try_into().ok(),
            Self::I32(x) => (*x).try_into().ok(),
            Self::I64(x) => (*x).try_into().ok(),
            _ => None,
        }
    }

    /// A finite number, whatever it is stored as. One in single precision is
    /// what its shortest decimal says: 0.000001, not 9.999999974752427e-7.
    pub fn number(&self) -> Option<f64> {
        let number = match self {
            Self::F32(x) => x.to_string().parse().ok()?,
            Self::F64(x) => *x,
            Self::I8(x) => (*x).into(),
            Self::I16(x) => (*x).into(),
            Self::I32(x) => (*x).into(),
            other => other.natural()? as f64,
        };
        f64::is_finite(number).then_some(number)
    }

    /// Text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A flag.
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Values of one kind.
    pub fn array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// What an error says was found.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::U8(x) => x.to_string(),
            Self::I8(x) => x.to_string(),
            Self::U16(x) => x.to_string(),
            Self::I16(x) => x.to_string(),
            Self::U32(x) => x.to_string(),
            Self::I32(x) => x.to_string(),
            Self::U64(x) => x.to_string(),
            Self::I64(x) => x.to_string(),
            Self::F32(x) => x.to_string(),
            Self::F64(x) => x.to_string(),
            Self::Bool(x) => x.to_string(),
            Self::String(text) if text.chars().count() > 40 => {
                format!("`{}…`", text.chars().take(40).collect::<String>())
            }
            Self::String(text) => format!("`{text}`"),
            Self::Array(array) => format!("an array of {}", array.len()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::U32(count)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}
