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
mod tests {
    use super::*;

    const CHOICE: &str = r#"{"query": "Q", "choices": ["a", "b"], "gold": 0}"#;

    /// Reads a file of these bytes.
    fn read(bytes: &[u8], limit: Option<usize>) -> Result<TaskSet> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quiz.jsonl");
        std::fs::write(&path, bytes).unwrap();
        TaskSet::read(path.to_str().unwrap(), limit)
    }

    #[test]
    fn a_file_is_read_by_its_fields() {
        let text = format!("\u{feff}{CHOICE}\n\n  \r\n{CHOICE}\r\n");
        let set = read(text.as_bytes(), None).unwrap();
        assert_eq!((set.name.as_str(), set.records.len()), ("quiz", 2));
        assert_eq!(set.kind.name(), "multiple_choice");
        for (record, kind) in [
            (
                r#"{"contexts": ["a", "b"], "continuation": " c", "gold": 1}"#,
                "partial",
            ),
            (r#"{"context": "a", "continuation": "b"}"#, "last_word"),
            (r#"{"question": "a", "answer": "1"}"#, "worked_answer"),
            (r#"{"prompt": "a", "answer": "b"}"#, "exact_match"),
        ] {
            assert_eq!(read(record.as_bytes(), None).unwrap().kind.name(), kind);
        }
    }

    #[test]
    fn a_name_may_be_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a=b.jsonl");
        std::fs::write(&path, CHOICE).unwrap();
        let path = path.to_str().unwrap();
        let name = |argument: &str| TaskSet::read(argument, None).unwrap().name;
        assert_eq!(name(&format!("mine={path}")), "mine");
        assert_eq!(name(path), "a=b");
        for argument in ["", "=x.jsonl", "x="] {
            let error = TaskSet::read(argument, None).unwrap_err().to_string();
            assert!(error.contains("NAME=FILE.jsonl"), "{error}");
        }
        assert!(matches!(
            TaskSet::read("/no/such.jsonl", None),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn the_limit_takes_the_first_and_the_hash_sees_what_is_used() {
        let other = CHOICE.replace("Q", "R");
        let text = format!("{CHOICE}\n{other}\nnot read\n");
        let two = read(text.as_bytes(), Some(2)).unwrap();
        let one = read(text.as_bytes(), Some(1)).unwrap();
        assert_eq!((one.records.len(), two.records.len()), (1, 2));
        assert_ne!(one.hash, two.hash);
        assert_eq!(one.hash, read(CHOICE.as_bytes(), None).unwrap().hash);
        let spaced = CHOICE.replace(", ", " ,  ");
        assert_eq!(one.hash, read(spaced.as_bytes(), None).unwrap().hash);
        assert_eq!(one.hash.len(), 64);
        assert!(read(text.as_bytes(), Some(0)).is_err());
    }

    #[test]
    fn bad_files_are_refused_by_line_and_field() {
        let on_line_2 = |line: &str| format!("{CHOICE}\n{line}\n").into_bytes();
        for (bytes, message) in [
            (b"".to_vec(), "quiz.jsonl: expected at least one record"),
            (b"\n \n".to_vec(), "expected at least one record"),
            (on_line_2("{"), "quiz.jsonl:2: not JSON"),
            (
                on_line_2("[1]"),
                "quiz.jsonl:2: expected the fields of multiple_choice as on the lines before, \
                 found a list",
            ),
            (
                on_line_2(r#"{"prompt": "a", "answer": "b"}"#),
                "found `prompt`, `answer`",
            ),
            (
                on_line_2(&CHOICE.replace("\"gold\": 0", "\"gold\": -1")),
                "quiz.jsonl:2: `gold`: expected an integer from 0 to 1, found -1",
            ),
            (
                on_line_2(&CHOICE.replace("\"b\"", "7")),
                "`choices`: expected a list of at least 2 strings that are not empty, found 7",
            ),
            (
                b"{}".to_vec(),
                "quiz.jsonl:1: expected the fields of one of multiple_choice, partial, \
                 last_word, worked_answer, exact_match, found an object without fields",
            ),
            (b"null".to_vec(), "found null"),
            (
                b"{\"task_id\": 1, \"prompt\": \"def f\"}".to_vec(),
                "found `task_id`, `prompt`",
            ),
            (
                [CHOICE.as_bytes(), b"\n\xff\n"].concat(),
                "quiz.jsonl:2: expected UTF-8",
            ),
        ] {
            let error = read(&bytes, None).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.hint().is_some());
        }
        let long = format!(r#"{{"query": {}, "choices": 1}}"#, "[".repeat(100_000));
        assert!(read(long.as_bytes(), None).is_err(), "nested too deep");
    }

    #[test]
    fn synthetic_sets_are_named_alone() {
        let set = TaskSet::open("arithmetic", None, 5).unwrap();
        assert_eq!((set.records.len(), set.kind.name()), (ITEMS, "exact_match"));
        assert_eq!(
            set.hash,
            TaskSet::make("arithmetic", ITEMS, 5).unwrap().hash
        );
        assert_ne!(
            set.hash,
            TaskSet::make("arithmetic", ITEMS, 6).unwrap().hash
        );
        for set in ["brackets", "copy"] {
            let set = TaskSet::open(set, Some(3), 0).unwrap();
            assert_eq!(set.records.len(), 3);
        }
        let error = TaskSet::make("poetry", 1, 0).unwrap_err().to_string();
        assert!(error.contains("found `poetry`"), "{error}");
        assert!(TaskSet::make("copy", 0, 0).is_err());
    }
}
