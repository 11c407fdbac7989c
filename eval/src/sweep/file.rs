//! A sweep on disk: one line of JSON for the header and one for each point.
//!
//! A line is written and synced when its point is done. What a killed process
//! left of a line is cut off when the file is opened again; a header is written
//! atomically, so that a file without a whole one belongs to somebody else.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use router_stats::atomic;
use serde_json::Value;

use super::{Header, Line, Sweep, VERSION};
use crate::report::{check_sums, Report};
use crate::{Error, Result};

/// A sweep that is being written. No other process can write it meanwhile.
#[derive(Debug)]
pub struct SweepFile {
    path: PathBuf,
    file: File,
    sweep: Sweep,
}

impl Sweep {
    /// Reads a file. Half a line at its end is left out.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::SweepVersion`] or [`Error::SweepFile`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Ok(parse(path, &bytes)?.0)
    }
}

impl SweepFile {
    /// Opens the file of an earlier run; `None` if there is none. Half a line at
    /// its end is cut off.
    ///
    /// # Errors
    /// Those of [`Sweep::read`]; [`Error::SweepLocked`] while another process
    /// writes the file.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path)(error)),
        };
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        let (sweep, whole) = parse(path, &bytes)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(Error::io(path))?;
        }
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        Ok(Some(Self {
            path: path.to_path_buf(),
            file,
            sweep,
        }))
    }

    /// Starts a file, which must not exist.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::SweepLocked`].
    pub fn create(path: &Path, header: Header) -> Result<Self> {
        let line = serde_json::json!(header).to_string() + "\n";
        atomic::write(path, |file| file.write_all(line.as_bytes()))?;
        Self::open(path)?.ok_or_else(|| Error::io(path)(ErrorKind::NotFound.into()))
    }

    /// What it holds.
    pub fn sweep(&self) -> &Sweep {
        &self.sweep
    }

    /// Fails if the file was started with other `settings`.
    ///
    /// # Errors
    /// [`Error::OtherSweep`] names the first that differs.
    pub fn expect(&self, settings: &std::collections::BTreeMap<String, String>) -> Result<()> {
        let there = &self.sweep.header.settings;
        let names = there.keys().chain(settings.keys());
        for name in names {
            let (found, expected) = (there.get(name), settings.get(name));
            if found != expected {
                let text = |value: Option<&String>| value.map_or("nothing", |it| it).to_owned();
                return Err(Error::OtherSweep {
                    path: self.path.clone(),
                    setting: name.clone(),
                    expected: text(expected),
                    found: text(found),
                });
            }
        }
        Ok(())
    }

    /// Adds a line, which is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = serde_json::json!(line).to_string() + "\n";
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io(&self.path))?;
        self.sweep.lines.push(line);
        Ok(())
    }
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        // A file system without locks holds nothing.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
        Err(TryLockError::WouldBlock) => Err(Error::SweepLocked {
            path: path.to_path_buf(),
        }),
    }
}

/// The content of a file and the bytes of its whole lines.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Sweep, usize)> {
    let unusable = |line: usize, reason: String| Error::SweepFile {
        path: path.to_path_buf(),
        line,
        reason,
    };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n');
    let Some(whole) = whole.map(|end| end + 1) else {
        return Err(unusable(
            1,
            "expected a whole header, found none".to_owned(),
        ));
    };
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|e| unusable(1, e.to_string()))?;
    let mut lines = (1..).zip(text.lines());
    let header = lines.next().map_or("", |(_, line)| line);
    let header = header_of(path, header)?;
    let sequences = header.base.predictions.tokens.len();
    let mut sweep = Sweep {
        header,
        lines: Vec::new(),
    };
    for (number, text) in lines {
        let line: Line = serde_json::from_str(text).map_err(|e| unusable(number, e.to_string()))?;
        check_sums(&line.model, sequences, true).map_err(|reason| unusable(number, reason))?;
        if sweep.at(&line.point).is_some() {
            let label = line.point.label(&[]);
            return Err(unusable(number, format!("found `{label}` a second time")));
        }
        sweep.lines.push(line);
    }
    Ok((sweep, whole))
}

fn header_of(path: &Path, text: &str) -> Result<Header> {
    let unusable = |reason: String| Error::SweepFile {
        path: path.to_path_buf(),
        line: 1,
        reason,
    };
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| unusable(error.to_string()))?;
    match value.get("sweep").and_then(Value::as_u64) {
        Some(found) if found == u64::from(VERSION) => {}
        Some(found) => {
            return Err(Error::SweepVersion {
                path: path.to_path_buf(),
                found,
                supported: VERSION,
            })
        }
        None => return Err(unusable("expected `sweep`, found none".to_owned())),
    }
    // The report's own version is checked before its fields are.
    if let Some(base) = value.get_mut("base") {
        Report::from_value(path, base.clone())?;
    }
    serde_json::from_value(value).map_err(|error| unusable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests::{line, sweep};

    fn written(path: &Path, lines: usize) -> Sweep {
        let sweep = sweep();
        let mut file = SweepFile::create(path, sweep.header.clone()).unwrap();
        for line in &sweep.lines[..lines] {
            file.append(line.clone()).unwrap();
        }
        sweep
    }

    #[test]
    fn a_file_grows_line_by_line_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.jsonl");
        assert!(SweepFile::open(&path).unwrap().is_none());
        let sweep = written(&path, 2);
        assert_eq!(Sweep::read(&path).unwrap().lines, sweep.lines[..2]);
        let mut again = SweepFile::open(&path).unwrap().unwrap();
        again.expect(&sweep.header.settings).unwrap();
        again.append(sweep.lines[2].clone()).unwrap();
        let read = Sweep::read(&path).unwrap();
        assert_eq!(read.header, sweep.header);
        assert_eq!(read.lines, sweep.lines[..3]);
        assert_eq!(read.at(&sweep.lines[2].point), Some(&sweep.lines[2]));
    }

    #[test]
    fn half_a_line_is_cut_off_wherever_it_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.jsonl");
        let sweep = written(&path, 2);
        let bytes = std::fs::read(&path).unwrap();
        let first = {
            let ends: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i] == b'\n').collect();
            ends[1] + 1
        };
        for cut in [first, first + 1, first + 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(Sweep::read(&path).unwrap().lines.len(), 1, "{cut}");
            let mut file = SweepFile::open(&path).unwrap().unwrap();
            file.append(sweep.lines[1].clone()).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{cut}");
        }
    }

    #[test]
    fn other_settings_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.jsonl");
        let sweep = written(&path, 1);
        let file = SweepFile::open(&path).unwrap().unwrap();
        let mut other = sweep.header.settings.clone();
        other.insert("text".to_owned(), "another".to_owned());
        let error = file.expect(&other).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("text: expected another, found c0ffee"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("another file"));
        other.remove("text");
        assert!(file
            .expect(&other)
            .unwrap_err()
            .to_string()
            .contains("expected nothing"));
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.jsonl");
        let sweep = written(&path, 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let refused = |text: String, expected: &str| {
            std::fs::write(&path, &text).unwrap();
            let error = Sweep::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(SweepFile::open(&path).is_err());
            // Nothing of it was changed.
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        };
        refused("{}\n".to_owned(), "line 1: expected `sweep`");
        refused("{\"sweep\":1".to_owned(), "line 1: expected a whole header");
        refused("{\"sweep\":99}\n".to_owned(), "sweep version 99");
        refused(text.clone() + "{}\n", "line 3: missing field");
        let mut short = line(0.1, 5.0, 0.1);
        short.model.sums.clear();
        let short = serde_json::to_string(&short).unwrap();
        refused(format!("{text}{short}\n"), "line 3");
        let again = serde_json::to_string(&sweep.lines[0]).unwrap();
        refused(format!("{text}{again}\n"), "a second time");
    }

    #[test]
    fn one_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.jsonl");
        let sweep = sweep();
        let held = SweepFile::create(&path, sweep.header).unwrap();
        let error = SweepFile::open(&path).unwrap_err();
        assert!(matches!(error, Error::SweepLocked { .. }), "{error}");
        // Reading is always possible.
        Sweep::read(&path).unwrap();
        drop(held);
        SweepFile::open(&path).unwrap().unwrap();
    }
}
