//! Writing a header.

use super::value::each_array;
use super::{code, Array, Header, Info, Metadata, Value, MAGIC, VERSION};

impl Header {
    /// What precedes the data, padded to `alignment`: version 3,
    /// little-endian. The same arguments give the same bytes.
    pub fn encode(metadata: &Metadata, tensors: &[Info], alignment: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        length(&mut out, tensors.len());
        length(&mut out, metadata.entries().len());
        for (key, value) in metadata.entries() {
            text(&mut out, key);
            out.extend(kind(value).to_le_bytes());
            write_value(&mut out, value);
        }
        for tensor in tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &extent in tensor.shape.iter().rev() {
                length(&mut out, extent);
            }
            out.extend(code(tensor.element).to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out
    }
}

fn length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend(text.as_bytes());
}

fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn array_kind(array: &Array) -> u32 {
    match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::String(_) => 8,
        Array::Array(_) => 9,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => x.write(out),
        Value::I8(x) => x.write(out),
        Value::U16(x) => x.write(out),
        Value::I16(x) => x.write(out),
        Value::U32(x) => x.write(out),
        Value::I32(x) => x.write(out),
        Value::F32(x) => x.write(out),
        Value::Bool(x) => x.write(out),
        Value::String(x) => x.write(out),
        Value::Array(x) => x.write(out),
        Value::U64(x) => x.write(out),
        Value::I64(x) => x.write(out),
        Value::F64(x) => x.write(out),
    }
}

/// What has bytes in a file.
trait Write {
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Write for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        })*
    };
}
numbers!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl Write for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Write for String {
    fn write(&self, out: &mut Vec<u8>) {
        text(out, self);
    }
}

impl Write for Array {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(array_kind(self).to_le_bytes());
        length(out, self.len());
        each_array!(self, values => values.iter().for_each(|value| value.write(out)));
    }
}
