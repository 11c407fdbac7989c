//! What can be wrong with a file.

use std::path::Path;

use crate::Error;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Malformed {
    /// The header lies or does not parse.
    Header(String),
    /// A tensor's numbers are stored in a way that is not read.
    Element {
        /// Name of the tensor.
        tensor: String,
        /// The type, as ggml calls it.
        found: String,
    },
    /// The file ends before this tensor does.
    Truncated {
        /// Name of the tensor.
        tensor: String,
        /// Its type, as ggml calls it.
        element: String,
        /// Its row-major shape.
        shape: Vec<usize>,
        /// Bytes it needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
}

impl Malformed {
    /// The public error about the file at `path`.
    pub fn at(self, path: &Path) -> Error {
        let path = path.to_path_buf();
        match self {
            Self::Header(reason) => Error::Gguf { path, reason },
            Self::Element { tensor, found } => Error::Dtype {
                path,
                tensor,
                expected: "F32, F16, BF16, Q2_K to Q8_K, or Q4_0 to Q8_1",
                found,
            },
            Self::Truncated {
                tensor,
                element,
                shape,
                expected,
                found,
            } => Error::Truncated {
                path,
                tensor,
                shape,
                dtype: element,
                expected,
                found,
            },
        }
    }
}
