//! The items of a task: a file of records, or a synthetic set.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Task, GENERATORS, TASKS};
use crate::{Error, Result};

/// Items of a synthetic set unless told otherwise.
const ITEMS: usize = 200;

/// Records of one kind of task.
#[derive(Debug, Clone)]
pub struct TaskSet {
    /// Name in a report.
    pub name: String,
    /// What is asked about each record.
    pub kind: &'static dyn Task,
    /// At least one; each is of the kind.
    pub records: Vec<Value>,
    /// Hex SHA-256 of the kind's name and the records.
    pub hash: String,
}

impl TaskSet {
    /// What a command line names: `arithmetic`, `brackets` or `copy` for a
    /// synthetic set of `limit` items (200 unless told), anything else as
    /// [`TaskSet::read`] takes it.
    ///
    /// # Errors
    /// Those of [`TaskSet::make`] and [`TaskSet::read`].
    pub fn open(argument: &str, limit: Option<usize>, seed: u64) -> Result<Self> {
        match GENERATORS.iter().any(|known| known.name == argument) {
            true => Self::make(argument, limit.unwrap_or(ITEMS), seed),
            false => Self::read(argument, limit),
        }
    }

    /// A synthetic set of `items` items. Equal seeds give equal sets.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, no items, or more than there are.
    pub fn make(name: &str, items: usize, seed: u64) -> Result<Self> {
        let generator = GENERATORS
            .iter()
            .find(|known| known.name == name)
            .ok_or_else(|| Error::Option {
                option: "task",
                expected: "arithmetic, brackets or copy",
                found: format!("`{name}`"),
            })?;
        at_least_one(items)?;
        let records = generator.records(items, seed)?;
        let Some(kind) = kind_of(&records[0]) else {
            return Err(unknown_kind(Path::new(name), None, &records[0]));
        };
        Ok(Self::new(name.to_owned(), kind, records))
    }

    /// Reads `NAME=FILE.jsonl`, or `FILE.jsonl`, whose name without its suffix
    /// is then the set's. A line is one JSON object; all are of the kind of
    /// the first, see [`TASKS`]. With `limit` only the first so many are used.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::TaskFile`] names the line, the field, what was
    /// expected and what was found; [`Error::Option`] for an empty name or a
    /// limit of 0.
    pub fn read(argument: &str, limit: Option<usize>) -> Result<Self> {
        let (name, path) = match argument.split_once('=') {
            Some((name, path)) if !name.contains(['/', '\\']) => (name.trim().to_owned(), path),
            _ => (stem(argument), argument),
        };
        if name.is_empty() || path.is_empty() {
            return Err(Error::Option {
                option: "task",
                expected: "NAME=FILE.jsonl, FILE.jsonl, arithmetic, brackets or copy",
                found: format!("`{argument}`"),
            });
        }
        limit.map_or(Ok(()), at_least_one)?;
        let path = Path::new(path);
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let text = String::from_utf8(bytes).map_err(|invalid| {
            let valid = &invalid.as_bytes()[..invalid.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
            malformed(path, Some(line), "expected UTF-8, found other bytes")
        })?;
        let (kind, records) = parse(path, &text, limit.unwrap_or(usize::MAX))?;
        Ok(Self::new(name, kind, records))
    }

    fn new(name: String, kind: &'static dyn Task, records: Vec<Value>) -> Self {
        let mut hasher = Sha256::new();
        let texts = records.iter().map(Value::to_string);
        for text in std::iter::once(kind.name().to_owned()).chain(texts) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        Self {
            name,
            kind,
            records,
            hash: format!("{:x}", hasher.finalize()),
        }
    }
}

/// The first `limit` records of a file, and their kind.
fn parse(path: &Path, text: &str, limit: usize) -> Result<(&'static dyn Task, Vec<Value>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found: Option<&'static dyn Task> = None;
    let mut records = Vec::new();
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(limit);
    for (index, line) in lines {
        let at = Some(index + 1);
        let record: Value = serde_json::from_str(line)
            .map_err(|error| malformed(path, at, format!("not JSON: {error}")))?;
        let kind = match found {
            None => kind_of(&record).ok_or_else(|| unknown_kind(path, at, &record))?,
            Some(kind) if kind.reads(&record) => kind,
            Some(kind) => {
                let reason = format!(
                    "expected the fields of {} as on the lines before, found {}",
                    kind.name(),
                    fields(&record)
                );
                return Err(malformed(path, at, reason));
            }
        };
        kind.requests(&record)
            .map_err(|error| malformed(path, at, error.to_string()))?;
        found = Some(kind);
        records.push(record);
    }
    match found {
        Some(kind) => Ok((kind, records)),
        None => Err(malformed(
            path,
            None,
            "expected at least one record, found none",
        )),
    }
}

fn kind_of(record: &Value) -> Option<&'static dyn Task> {
    TASKS.iter().copied().find(|kind| kind.reads(record))
}

fn unknown_kind(path: &Path, line: Option<usize>, record: &Value) -> Error {
    let known: Vec<&str> = TASKS.iter().map(|kind| kind.name()).collect();
    let reason = format!(
        "expected the fields of one of {}, found {}",
        known.join(", "),
        fields(record)
    );
    malformed(path, line, reason)
}

/// What a record has instead of the fields it should have.
fn fields(record: &Value) -> String {
    match record {
        Value::Object(map) if map.is_empty() => "an object without fields".to_owned(),
        Value::Object(map) => {
            let names: Vec<String> = map.keys().take(8).map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        Value::Array(_) => "a list".to_owned(),
        Value::String(_) => "a string".to_owned(),
        other => other.to_string(),
    }
}

fn malformed(path: &Path, line: Option<usize>, reason: impl Into<String>) -> Error {
    Error::TaskFile {
        path: path.to_path_buf(),
        line,
        reason: reason.into(),
    }
}

fn at_least_one(items: usize) -> Result<()> {
    if items > 0 {
        return Ok(());
    }
    Err(Error::Option {
        option: "items",
        expected: "at least 1",
        found: "0".to_owned(),
    })
}

/// File name without folder and suffix.
fn stem(path: &str) -> String {
    let stem = Path::new(path).file_stem();
    stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
