//! One file of a repository → a verified blob in the cache.
//!
//! What has come of a file stays in `<digest>.incomplete` until all of it has
//! and hashes to what the hub says it is; only then does the blob appear. A
//! connection that breaks is taken up where it broke, also by another process.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use router_stats::Error;

use super::digest::{Digest, Hasher};
use super::listing::Entry;
use super::store::Store;
use super::wire::{patiently, stopped, Tries, Trouble, Wire};
use super::Failure;

/// Bytes that are read and hashed at a time.
const CHUNK: usize = 256 << 10;

/// A file to download.
pub(super) struct Transfer<'a> {
    pub(super) wire: &'a Wire,
    pub(super) store: &'a Store,
    /// The repository, `org/name`.
    pub(super) id: &'a str,
    pub(super) commit: &'a str,
    pub(super) entry: &'a Entry,
    /// Set by whoever wants it to end.
    pub(super) stop: &'a AtomicBool,
    /// Bytes that are here, counted up as they come; down if they were wrong.
    pub(super) here: &'a AtomicU64,
}

/// A file's content as the hub describes it.
pub(super) struct Content {
    pub(super) size: u64,
    /// `None` if the hub's name for it is no digest; then its size is all that
    /// can be checked.
    pub(super) digest: Option<Digest>,
    /// Name of the blob.
    pub(super) name: String,
}

impl Transfer<'_> {
    /// Downloads the file unless it is there, and links it into the snapshot.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) fn run(&self) -> Result<(), Failure> {
        let content = self.content()?;
        let (blob, part) = self.store.blob(&content.name);
        let _lock = self.store.lock(&content.name, self.stop)?;
        if length(&blob) == Some(content.size) {
            self.here.fetch_add(content.size, Ordering::Relaxed);
        } else {
            self.download(&content, &part)?;
            fs::rename(&part, &blob).map_err(Error::io(&blob))?;
        }
        self.store.link(&content.name, &self.entry.name)
    }

    fn path(&self) -> String {
        format!("{}/resolve/{}/{}", self.id, self.commit, self.entry.name)
    }

    /// From the listing, or if that says too little from a `HEAD`.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) fn content(&self) -> Result<Content, Failure> {
        let entry = self.entry;
        if let (Some(size), Some(digest)) = (entry.size, &entry.digest) {
            return Ok(Content {
                size,
                digest: Some(digest.clone()),
                name: digest.name().to_owned(),
            });
        }
        let head = patiently(self.stop, || {
            self.wire
                .send("HEAD", &self.path(), &[("accept-encoding", "identity")])
        })?;
        let header = |names: [&str; 2]| names.iter().find_map(|name| head.header(name));
        let tag = header(["x-linked-etag", "etag"]).unwrap_or_default();
        let digest = entry.digest.clone().or_else(|| Digest::parse(tag));
        let size = header(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        let name = match &digest {
            Some(digest) => digest.name().to_owned(),
            None => tag
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
                .collect(),
        };
        match entry.size.or(size) {
            Some(size) if !name.is_empty() => Ok(Content { size, digest, name }),
            _ => Err(Failure::Malformed(format!(
                "{}: neither size nor entity tag",
                self.entry.name
            ))),
        }
    }

    /// Fills `part`. A file that turns out to be another is asked for once
    /// more from its beginning.
    fn download(&self, content: &Content, part: &Path) -> Result<(), Failure> {
        let mut part = Part::open(part.to_path_buf(), content, self.stop)?;
        self.here.fetch_add(part.length, Ordering::Relaxed);
        let mut wrong = None;
        for _ in 0..2 {
            wrong = match self.fill(&mut part, content) {
                Ok(()) => part.mismatch(content),
                Err(Failure::Corrupted {
                    expected, found, ..
                }) => Some((expected, found)),
                Err(failure) => return Err(failure),
            };
            if wrong.is_none() {
                return Ok(part.file.sync_all().map_err(Error::io(&part.path))?);
            }
            self.restart(&mut part, content)?;
        }
        let (expected, found) = wrong.unwrap_or_default();
        // Nothing that may be wrong stays.
        fs::remove_file(&part.path).map_err(Error::io(&part.path))?;
        Err(Failure::Corrupted {
            file: self.entry.name.clone(),
            expected,
            found,
        })
    }

    fn restart(&self, part: &mut Part, content: &Content) -> Result<(), Failure> {
        self.here.fetch_sub(part.length, Ordering::Relaxed);
        part.restart(content)
    }

    /// Asks for what `part` lacks until it has all of it.
    fn fill(&self, part: &mut Part, content: &Content) -> Result<(), Failure> {
        let mut tries = Tries::default();
        while part.length < content.size {
            stopped(self.stop)?;
            let before = part.length;
            let result = self.receive(part, content);
            if part.length > before {
                tries.progress();
            }
            match result {
                Ok(()) => {}
                Err(trouble) => tries.wait(trouble, self.stop)?,
            }
        }
        Ok(())
    }

    /// One request for what `part` lacks, and what comes of it.
    fn receive(&self, part: &mut Part, content: &Content) -> Result<(), Trouble> {
        let range = format!("bytes={}-", part.length);
        let headers = [("accept-encoding", "identity"), ("range", range.as_str())];
        let response = match self.wire.send("GET", &self.path(), &headers) {
            // What is here goes beyond what is there.
            Err(Trouble::Final(Failure::Status(416))) if part.length > 0 => {
                self.restart(part, content)?;
                return Err(Trouble::Again(Failure::Status(416), None));
            }
            sent => sent?,
        };
        let total = match response.status() {
            206 => {
                let range = response.header("content-range").and_then(content_range);
                let (start, total) = range.ok_or_else(|| {
                    Failure::Malformed(format!("{}: no content-range", self.entry.name))
                })?;
                if start != part.length {
                    return Err(Failure::Malformed(format!(
                        "{}: expected bytes from {}, found {start}",
                        self.entry.name, part.length
                    ))
                    .into());
                }
                total
            }
            200 => {
                if part.length > 0 {
                    self.restart(part, content)?;
                }
                response
                    .header("content-length")
                    .and_then(|length| length.parse().ok())
            }
            status => return Err(Failure::Status(status).into()),
        };
        if let Some(total) = total.filter(|&total| total != content.size) {
            return Err(self.resized(content, total).into());
        }
        let mut body = response.into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            stopped(self.stop)?;
            let lost = |reason: &str| {
                let reason = format!("{}: {reason}", self.entry.name);
                Trouble::Again(Failure::Transport(reason), None)
            };
            let read = match body.read(&mut chunk) {
                Ok(0) if part.length == content.size => return Ok(()),
                Ok(0) => return Err(lost("the connection broke off")),
                Ok(read) => read,
                Err(error) => return Err(lost(&error.to_string())),
            };
            if part.length + read as u64 > content.size {
                return Err(self.resized(content, part.length + read as u64).into());
            }
            part.push(&chunk[..read])?;
            self.here.fetch_add(read as u64, Ordering::Relaxed);
        }
    }

    /// The file has another size than it was said to have.
    fn resized(&self, content: &Content, found: u64) -> Failure {
        Failure::Corrupted {
            file: self.entry.name.clone(),
            expected: format!("{} bytes", content.size),
            found: format!("{found} bytes"),
        }
    }
}

/// What has come of a file.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Option<Hasher>,
}

impl Part {
    /// Takes up what an earlier try left at `path`.
    fn open(path: PathBuf, content: &Content, stop: &AtomicBool) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        let mut part = Self {
            file,
            length: 0,
            hasher: None,
            path,
        };
        let left = part.file.metadata().map_err(Error::io(&part.path))?.len();
        part.hasher = content.hasher();
        if left > content.size {
            part.restart(content)?;
            return Ok(part);
        }
        let mut chunk = vec![0; CHUNK];
        while part.length < left {
            stopped(stop)?;
            let read = part.file.read(&mut chunk).map_err(Error::io(&part.path))?;
            if read == 0 {
                break;
            }
            if let Some(hasher) = &mut part.hasher {
                hasher.update(&chunk[..read]);
            }
            part.length += read as u64;
        }
        Ok(part)
    }

    fn restart(&mut self, content: &Content) -> Result<(), Failure> {
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(Error::io(&self.path))?;
        self.length = 0;
        self.hasher = content.hasher();
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The digests expected and found, unless they are the same.
    fn mismatch(&mut self, content: &Content) -> Option<(String, String)> {
        let found = self.hasher.take()?.finish();
        let expected = content.digest.as_ref().filter(|&digest| *digest != found)?;
        let name = |digest: &Digest| match digest {
            Digest::Sha256(digits) => format!("sha256 {digits}"),
            Digest::Git(digits) => format!("git blob {digits}"),
        };
        Some((name(expected), name(&found)))
    }
}

impl Content {
    fn hasher(&self) -> Option<Hasher> {
        let digest = self.digest.as_ref()?;
        Some(digest.hasher(self.size))
    }
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.len())
}

/// Start and, unless it is `*`, total of `bytes 0-9/10`.
pub(super) fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    match total {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-9/*"), Some((0, None)));
        for wrong in ["", "5-9/10", "bytes */10", "bytes 5-9"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
