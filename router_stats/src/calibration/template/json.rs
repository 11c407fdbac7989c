//! The `tojson` filter as transformers defines it.

use std::io;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// Widest indentation, in characters. Templates come with checkpoints and may
/// be hostile.
const WIDEST: usize = 64;

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
/// sort_keys=False)`: Jinja's own filter escapes for HTML, which no model was
/// trained on.
pub(super) fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let ascii = options.get::<Option<bool>>("ensure_ascii")?;
    let indent = options.get::<Option<Value>>("indent")?;
    let separators = options.get::<Option<Value>>("separators")?;
    let sorted = options.get::<Option<bool>>("sort_keys")?;
    options.assert_all_used()?;

    let indent = indent.map(|indent| indentation(&indent)).transpose()?;
    let (item, key) = match separators {
        Some(given) => separate(&given)?,
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let mut json = serde_json::to_value(&value).map_err(refuse)?;
    if sorted == Some(true) {
        json.sort_all_objects();
    }
    let python = Python {
        ascii: ascii == Some(true),
        indent,
        item,
        key,
        depth: 0,
        filled: false,
    };
    let mut out = Vec::new();
    json.serialize(&mut Serializer::with_formatter(&mut out, python))
        .map_err(refuse)?;
    String::from_utf8(out)
        .map(Value::from_safe_string)
        .map_err(refuse)
}

fn refuse(reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {reason}"))
}

/// What one level is indented by: a number of spaces or the text itself.
fn indentation(given: &Value) -> Result<String, Error> {
    let refused = || {
        refuse(format!(
            "`indent`: expected at most {WIDEST} spaces or characters, found {given}"
        ))
    };
    if given.kind() == ValueKind::String {
        return match given.as_str() {
            Some(text) if text.len() <= WIDEST => Ok(text.to_owned()),
            _ => Err(refuse(format!(
                "`indent`: expected at most {WIDEST} characters"
            ))),
        };
    }
    match i64::try_from(given.clone()) {
        // Python takes a negative number as none.
        Ok(width) if width <= WIDEST as i64 => Ok(" ".repeat(width.max(0) as usize)),
        _ => Err(refused()),
    }
}

/// `separators=(between items, after a key)`.
fn separate(given: &Value) -> Result<(String, String), Error> {
    let pair: Option<Vec<Value>> = given.try_iter().ok().map(Iterator::collect);
    match pair.as_deref() {
        Some([item, key]) => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(refuse("`separators`: expected two strings")),
        },
        _ => Err(refuse("`separators`: expected two strings")),
    }
}

/// Writes JSON as Python's `json.dumps` does.
struct Python {
    ascii: bool,
    /// One level's; `None` for everything on one line.
    indent: Option<String>,
    item: String,
    key: String,
    depth: usize,
    /// Whether the innermost array or object has had an item.
    filled: bool,
}

impl Python {
    fn begin<W: ?Sized + io::Write>(&mut self, writer: &mut W, open: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(open)
    }

    fn next<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.line(writer)
    }

    fn end<W: ?Sized + io::Write>(&mut self, writer: &mut W, close: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(writer)?;
        }
        self.filled = true;
        writer.write_all(close)
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        if let Some(indent) = &self.indent {
            writer.write_all(b"\n")?;
            for _ in 0..self.depth {
                writer.write_all(indent.as_bytes())?;
            }
        }
        Ok(())
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for char in fragment.chars() {
            if matches!(char, ' '..='~') {
                writer.write_all(&[char as u8])?;
                continue;
            }
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests;
