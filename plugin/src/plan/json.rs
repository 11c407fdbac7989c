//! JSON that is indented on the outside and compact inside, so that a list of
//! objects reads as a table.

use std::io::{Result, Write};

use serde_json::ser::Formatter;

/// Values nested at least this deep stay on one line.
const COMPACT: usize = 3;

/// Indents objects and arrays, and writes those nested deeper on one line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    depth: usize,
    has_entries: bool,
}

impl Lines {
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.depth += 1;
        self.has_entries = false;
        writer.write_all(bracket)
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.depth -= 1;
        if self.has_entries && self.depth + 1 < COMPACT {
            self.indent(writer)?;
        }
        self.has_entries = true;
        writer.write_all(bracket)
    }

    fn entry<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.has_entries = true;
        let compact = self.depth >= COMPACT;
        match (first, compact) {
            (true, true) => Ok(()),
            (false, true) => writer.write_all(b", "),
            (true, false) => self.indent(writer),
            (false, false) => {
                writer.write_all(b",")?;
                self.indent(writer)
            }
        }
    }

    fn indent<W: ?Sized + Write>(&self, writer: &mut W) -> Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.entry(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.entry(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::json;

    use super::*;

    #[test]
    fn indents_outside_and_is_compact_inside() {
        let value = json!({"a": 1, "list": [{"x": [1, 2], "y": {}}, {"x": []}], "empty": {}, "in": {"k": [3]}});
        let mut text = Vec::new();
        value
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut text,
                Lines::default(),
            ))
            .unwrap();
        let expected = "\
{
  \"a\": 1,
  \"list\": [
    {\"x\": [1, 2], \"y\": {}},
    {\"x\": []}
  ],
  \"empty\": {},
  \"in\": {
    \"k\": [3]
  }
}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
