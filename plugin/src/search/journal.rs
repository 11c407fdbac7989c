//! What was measured, on disk: one line of JSON for the header and one for each
//! candidate.
//!
//! A line is written and synced before the measurement is used. What a killed
//! process left of a line is cut off when the file is opened again; a header is
//! written atomically, so that a file without a whole one belongs to somebody
//! else. No other process writes the file meanwhile.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use router_stats::atomic;
use router_stats::progress::Progress;
use serde::{Deserialize, Serialize};

use super::Fitness;
use crate::cache::{make_parent, Cache, Key, Lock};
use crate::{Error, Result};

/// Version of the file format. Raise it when a candidate's fitness comes to
/// mean something else.
pub(super) const VERSION: u32 = 1;

/// The first line: what all measurements have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format.
    pub journal: u32,
    /// Fingerprint of configuration and weights.
    pub model: String,
    /// Hash of the files that turn text into tokens.
    pub tokenizer: String,
    /// Hash of the token stream.
    pub text: String,
    /// Domains and their weights in the mixture.
    pub weights: Vec<(String, f64)>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// Hash of what stays.
    pub(super) keep: String,
    /// [`Fitness::overlap`].
    overlap: f64,
    /// [`Fitness::nll`].
    nll: f64,
    /// Seconds that it took.
    pub(super) seconds: f64,
}

impl Line {
    pub(super) fn new(keep: String, fitness: Fitness, seconds: f64) -> Self {
        Self {
            keep,
            overlap: fitness.overlap,
            nll: fitness.nll,
            seconds,
        }
    }

    pub(super) fn fitness(&self) -> Fitness {
        Fitness {
            overlap: self.overlap,
            nll: self.nll,
        }
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: BTreeMap<String, Line>,
    _lock: Lock,
}

impl Journal {
    /// Opens the journal of `header` in the cache, or starts it. Waits while
    /// another process writes it.
    ///
    /// # Errors
    /// [`Error::Journal`] for a file that is something else; I/O errors; an
    /// interruption while waiting.
    pub fn open(cache: &Cache, header: &Header, progress: &dyn Progress) -> Result<Self> {
        let key = Key::new("search").with_json(header)?.finish();
        let lock = cache.lock(&key, progress)?;
        let path = cache.search(&key);
        let io = |error| Error::from(router_stats::Error::io(&path)(error));
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_parent(&path)?;
                let line = json(header)?;
                atomic::write(&path, |file| file.write_all(line.as_bytes()))?;
                OpenOptions::new().read(true).write(true).open(&path)
            }
            opened => opened,
        }
        .map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (lines, whole) = parse(&path, &bytes, header)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self {
            path,
            file,
            lines,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of candidates that it holds.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What was measured of the candidate that hashes to `keep`.
    pub(super) fn get(&self, keep: &str) -> Option<&Line> {
        self.lines.get(keep)
    }

    /// Adds a measurement, which is on disk when this returns.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn append(&mut self, line: Line) -> Result<()> {
        let text = json(&line)?;
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(router_stats::Error::io(&self.path))?;
        self.lines.insert(line.keep.clone(), line);
        Ok(())
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(Error::Serialize)? + "\n")
}

/// The measurements of a file and the bytes of its whole lines.
fn parse(path: &Path, bytes: &[u8], expected: &Header) -> Result<(BTreeMap<String, Line>, usize)> {
    let unusable = |line: usize, reason: String| Error::Journal {
        path: path.to_path_buf(),
        line,
        reason,
    };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n');
    let whole = whole.map_or(0, |end| end + 1);
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|e| unusable(1, e.to_string()))?;
    let mut texts = (1..).zip(text.lines());
    let header = texts.next().map_or("", |(_, line)| line);
    let header: Header = serde_json::from_str(header).map_err(|e| unusable(1, e.to_string()))?;
    if header != *expected {
        let reason = format!(
            "expected {}, found {}",
            json(expected)?.trim(),
            json(&header)?.trim()
        );
        return Err(unusable(1, reason));
    }
    let mut lines = BTreeMap::new();
    for (number, text) in texts {
        let line: Line = serde_json::from_str(text).map_err(|e| unusable(number, e.to_string()))?;
        lines.insert(line.keep.clone(), line);
    }
    Ok((lines, whole))
}
