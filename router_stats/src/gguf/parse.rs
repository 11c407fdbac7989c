//! Reading a header out of the bytes of a file.

use std::collections::HashSet;

use super::{element, Array, Header, Info, Malformed, Metadata, Value};
use super::{ALIGNMENT, DEFAULT_ALIGNMENT, MAGIC, VERSION};

/// Dimensions a tensor of ggml has at most.
const MAX_DIMENSIONS: usize = 4;

/// Longest key or name, in bytes.
const MAX_NAME: usize = 65_535;

/// How deep arrays may be nested.
const MAX_DEPTH: usize = 8;

/// Largest alignment, in bytes.
const MAX_ALIGNMENT: usize = 1 << 20;

/// Longest header, in bytes: the largest vocabularies take a tenth of it.
const MAX_HEADER: usize = 1 << 28;

/// For how many entries memory is taken before one of them is read.
const MAX_RESERVED: usize = 1 << 16;

/// Bytes of the shortest entry of metadata: the length of a key, a kind and a
/// byte.
const MIN_ENTRY: usize = 8 + 4 + 1;

/// Bytes of the shortest entry of a tensor: the length of a name, a number of
/// dimensions, one of them, a type and an offset.
const MIN_TENSOR: usize = 8 + 4 + 8 + 4 + 8;

fn header<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed::Header(reason.into()))
}

impl Header {
    /// Reads the header of a file whose bytes are `file`: version 2 or 3,
    /// little-endian. Offsets are checked against the whole file.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn parse(file: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor {
            file: &file[..file.len().min(MAX_HEADER)],
            at: 0,
        };
        check_version(&mut cursor)?;
        let tensors = cursor.bounded("tensors", MIN_TENSOR)?;
        let entries = cursor.bounded("keys", MIN_ENTRY)?;
        let metadata = read_metadata(&mut cursor, entries)?;
        let alignment = read_alignment(&metadata)?;
        let tensors = read_tensors(&mut cursor, tensors)?;
        let header = Self {
            metadata,
            tensors,
            alignment,
            data: cursor.at.next_multiple_of(alignment),
        };
        header.check_data(file.len())?;
        Ok(header)
    }

    /// Checks that tensors follow each other, each at the next multiple of the
    /// alignment, and fill a file of `length` bytes up to padding.
    fn check_data(&self, length: usize) -> Result<(), Malformed> {
        let mut end = 0u64;
        for tensor in &self.tensors {
            let Info { name, offset, .. } = tensor;
            if *offset != end {
                return header(format!(
                    "`{name}`: expected offset {end}, the next multiple of {} after the tensor \
                     before it, found {offset}",
                    self.alignment
                ));
            }
            let next = tensor.bytes().and_then(|bytes| {
                end.checked_add(bytes as u64)?
                    .checked_next_multiple_of(self.alignment as u64)
            });
            let Some(next) = next else {
                return header(format!(
                    "`{name}`: {:?} {:?} is not a whole number of addressable bytes",
                    tensor.shape, tensor.element
                ));
            };
            end = next;
        }
        let available = (length as u64).saturating_sub(self.data as u64);
        // Only after every offset has been checked is a short file a truncated one.
        for tensor in &self.tensors {
            let bytes = tensor.bytes().unwrap_or(0) as u64;
            if tensor.offset + bytes > available {
                return Err(Malformed::Truncated {
                    tensor: tensor.name.clone(),
                    element: format!("{:?}", tensor.element),
                    shape: tensor.shape.clone(),
                    expected: bytes,
                    found: available.saturating_sub(tensor.offset),
                });
            }
        }
        if available > end {
            let unused = available - end;
            return header(format!("{unused} bytes after the last tensor"));
        }
        Ok(())
    }
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    let magic: [u8; 4] = cursor.take("magic")?;
    if magic != MAGIC {
        return header(format!("expected the magic `GGUF`, found {magic:02x?}"));
    }
    let version = u32::from_le_bytes(cursor.take("version")?);
    match version {
        2 | VERSION => Ok(()),
        _ if (1..=VERSION).contains(&version.swap_bytes()) => {
            header("big-endian files are not read")
        }
        _ => header(format!("expected version 2 or 3, found {version}")),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata, Malformed> {
    let mut entries = Vec::with_capacity(count.min(MAX_RESERVED));
    let mut seen = HashSet::with_capacity(count.min(MAX_RESERVED));
    for _ in 0..count {
        let key = cursor.name("key")?;
        if !seen.insert(key.clone()) {
            return header(format!("duplicate key `{key}`"));
        }
        let kind = cursor.u32(&key)?;
        let value = read_value(cursor, &key, kind)?;
        entries.push((key, value));
    }
    Ok(Metadata::distinct(entries))
}

fn read_alignment(metadata: &Metadata) -> Result<usize, Malformed> {
    let Some(value) = metadata.get(ALIGNMENT) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let alignment = match value {
        Value::U32(alignment) => *alignment as usize,
        _ => 0,
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        let found = value.describe();
        return header(format!(
            "`{ALIGNMENT}`: expected a power of two up to {MAX_ALIGNMENT}, found {found}"
        ));
    }
    Ok(alignment)
}

fn read_tensors(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Info>, Malformed> {
    let mut tensors = Vec::with_capacity(count.min(MAX_RESERVED));
    let mut seen = HashSet::with_capacity(count.min(MAX_RESERVED));
    for _ in 0..count {
        let name = cursor.name("tensor name")?;
        if !seen.insert(name.clone()) {
            return header(format!("duplicate tensor `{name}`"));
        }
        let dimensions = cursor.u32(&name)? as usize;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return header(format!(
                "`{name}`: expected 1 to {MAX_DIMENSIONS} dimensions, found {dimensions}"
            ));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let extent = cursor.u64(&name)?;
            match usize::try_from(extent) {
                Ok(extent) if extent > 0 => shape.push(extent),
                _ => return header(format!("`{name}`: a dimension of {extent}")),
            }
        }
        shape.reverse();
        let code = cursor.u32(&name)?;
        let offset = cursor.u64(&name)?;
        let Some(element) = element::element(code) else {
            return Err(Malformed::Element {
                tensor: name,
                found: element::unread(code),
            });
        };
        tensors.push(Info {
            name,
            element,
            shape,
            offset,
        });
    }
    Ok(tensors)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, Malformed> {
    Ok(match kind {
        0 => Value::U8(u8::from_le_bytes(cursor.take(key)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.take(key)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.take(key)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.take(key)?)),
        4 => Value::U32(cursor.u32(key)?),
        5 => Value::I32(i32::from_le_bytes(cursor.take(key)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.take(key)?)),
        7 => Value::Bool(cursor.flag(key)?),
        8 => Value::String(cursor.text(key)?),
        9 => Value::Array(read_array(cursor, key, 0)?),
        10 => Value::U64(cursor.u64(key)?),
        11 => Value::I64(i64::from_le_bytes(cursor.take(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.take(key)?)),
        _ => return header(format!("`{key}`: unknown kind of value {kind}")),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, Malformed> {
    if depth == MAX_DEPTH {
        return header(format!("`{key}`: arrays nested deeper than {MAX_DEPTH}"));
    }
    let kind = cursor.u32(key)?;
    let least = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        _ => return header(format!("`{key}`: unknown kind of value {kind}")),
    };
    let count = cursor.bounded(key, least)?;
    macro_rules! numbers {
        ($kind:ident, $number:ty) => {{
            let mut values = Vec::with_capacity(count.min(MAX_RESERVED));
            for _ in 0..count {
                values.push(<$number>::from_le_bytes(cursor.take(key)?));
            }
            Array::$kind(values)
        }};
    }
    macro_rules! others {
        ($kind:ident, $read:expr) => {{
            let mut values = Vec::with_capacity(count.min(MAX_RESERVED));
            for _ in 0..count {
                values.push($read?);
            }
            Array::$kind(values)
        }};
    }
    Ok(match kind {
        0 => numbers!(U8, u8),
        1 => numbers!(I8, i8),
        2 => numbers!(U16, u16),
        3 => numbers!(I16, i16),
        4 => numbers!(U32, u32),
        5 => numbers!(I32, i32),
        6 => numbers!(F32, f32),
        7 => others!(Bool, cursor.flag(key)),
        8 => others!(String, cursor.text(key)),
        9 => others!(Array, read_array(cursor, key, depth + 1)),
        10 => numbers!(U64, u64),
        11 => numbers!(I64, i64),
        _ => numbers!(F64, f64),
    })
}

/// Where reading is.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn slice(&mut self, length: usize, what: &str) -> Result<&[u8], Malformed> {
        let Some(slice) = self.file[self.at..].get(..length) else {
            return header(format!(
                "`{what}`: needs {length} bytes at byte {}, but only {} follow",
                self.at,
                self.left()
            ));
        };
        self.at += length;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.slice(N, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    fn flag(&mut self, what: &str) -> Result<bool, Malformed> {
        match self.take(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => header(format!(
                "`{what}`: expected a flag of 0 or 1, found {other}"
            )),
        }
    }

    /// A number of things of at least `least` bytes, of which the rest of the
    /// file must have room for all.
    fn bounded(&mut self, what: &str, least: usize) -> Result<usize, Malformed> {
        let count = self.u64(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least => Ok(count),
            _ => header(format!(
                "`{what}`: a count of {count}, but only {} bytes follow",
                self.left()
            )),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, Malformed> {
        let length = self.bounded(what, 1)?;
        let bytes = self.slice(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => header(format!("`{what}`: text that is not UTF-8: {error}")),
        }
    }

    fn name(&mut self, what: &str) -> Result<String, Malformed> {
        let name = self.text(what)?;
        if name.is_empty() || name.len() > MAX_NAME {
            return header(format!(
                "expected a {what} of 1 to {MAX_NAME} bytes, found {}",
                name.len()
            ));
        }
        Ok(name)
    }
}
