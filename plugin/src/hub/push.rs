//! A directory → a commit on the hub.
//!
//! The hub is asked which files it stores outside Git; those are sent to where
//! it says, unless it has their content already, and then one commit names all
//! files, so that a push that breaks off changes nothing and continues where
//! it stopped. Protocol: Git LFS batch API with `basic` and the hub's
//! `multipart` transfers, and the hub's commit API.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use router_stats::progress::{Progress, Update};
use router_stats::Error as StatsError;
use serde_json::{json, Value};
use url::Url;

use super::digest::Digest;
use super::wire::{
    answer, malformed, patiently, read_json, segment, stopped, with, Headers, Trouble, Wire,
};
use super::{Failure, Hub, MAIN};
use crate::Result;

/// Bytes of a file that the hub wants to see to tell text from data.
const SAMPLE: u64 = 512;

/// Bytes that are hashed or sent at a time.
const CHUNK: usize = 256 << 10;

const LFS: Headers<'static> = &[
    ("accept", "application/vnd.git-lfs+json"),
    ("content-type", "application/vnd.git-lfs+json"),
];

const JSON: Headers<'static> = &[("content-type", "application/json")];

/// What to push where.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// The repository, `org/name`; made if it is not there.
    pub id: &'a str,
    /// Branch; `main` if there is none.
    pub revision: Option<&'a str>,
    /// Whether a repository that is made is private.
    pub private: bool,
    /// First line of the commit's message.
    pub summary: &'a str,
}

/// A file to push.
struct Outgoing {
    /// Path in the repository.
    name: String,
    path: PathBuf,
    size: u64,
    /// SHA-256 of a file that is stored outside Git.
    oid: Option<String>,
}

impl Hub {
    /// Commits the files of `dir`, not those of folders in it nor hidden ones,
    /// and returns the address of the commit.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), [`router_stats::Error::Io`], or
    /// [`router_stats::Error::Interrupted`]. Until the end nothing changes on the
    /// hub but that the repository is there.
    pub fn push(&self, dir: &Path, push: &Push<'_>, progress: &dyn Progress) -> Result<String> {
        let revision = push.revision.unwrap_or(MAIN);
        let pushed = self.sent(dir, push, revision, progress);
        pushed.map_err(|failure| failure.about(push.id, revision))
    }

    fn sent(
        &self,
        dir: &Path,
        push: &Push<'_>,
        revision: &str,
        progress: &dyn Progress,
    ) -> std::result::Result<String, Failure> {
        if self.offline {
            return Err(Failure::Unsent);
        }
        let sender = Sender {
            wire: Wire::new(self.endpoint.as_deref(), &self.token)?,
            id: push.id,
            revision,
            progress,
            stop: AtomicBool::new(false),
        };
        let mut files = files(dir)?;
        sender.create(push.private)?;
        sender.sort(&mut files)?;
        sender.hash(&mut files)?;
        sender.upload(&files)?;
        sender.commit(&files, push.summary)
    }
}

/// The files of `dir`, by name.
fn files(dir: &Path) -> std::result::Result<Vec<Outgoing>, Failure> {
    let fail = StatsError::io(dir);
    let mut files = Vec::new();
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    for entry in entries.map_err(fail)? {
        let path = entry.path();
        let meta = std::fs::metadata(&path).map_err(StatsError::io(&path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if meta.is_file() && !name.starts_with('.') {
            files.push(Outgoing {
                name,
                path,
                size: meta.len(),
                oid: None,
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// One push.
struct Sender<'a> {
    wire: Wire,
    id: &'a str,
    revision: &'a str,
    progress: &'a dyn Progress,
    /// Set once the user asks to stop.
    stop: AtomicBool,
}

impl Sender<'_> {
    /// Makes the repository unless it is there.
    fn create(&self, private: bool) -> std::result::Result<(), Failure> {
        let (organisation, name) = self.id.split_once('/').unwrap_or(("", self.id));
        let body = json!({ "name": name, "organization": organisation, "type": "model", "private": private });
        match self.post("api/repos/create", JSON, body.to_string().as_bytes()) {
            Err(Failure::Status(409)) => Ok(()),
            made => made.map(|_| ()),
        }
    }

    /// Asks which files are stored outside Git, and leaves out those that the
    /// repository ignores. Large ones get an empty [`Outgoing::oid`].
    fn sort(&self, files: &mut Vec<Outgoing>) -> std::result::Result<(), Failure> {
        let mut described = Vec::new();
        for file in &*files {
            let mut sample = Vec::new();
            let read = File::open(&file.path)
                .and_then(|opened| opened.take(SAMPLE).read_to_end(&mut sample));
            read.map_err(StatsError::io(&file.path))?;
            described.push(
                json!({ "path": file.name, "size": file.size, "sample": BASE64.encode(sample) }),
            );
        }
        let revision = segment(self.revision);
        let path = format!("api/models/{}/preupload/{revision}", self.id);
        let body = json!({ "files": described }).to_string();
        let told = self.post(&path, JSON, body.as_bytes())?;
        let told: BTreeMap<&str, &Value> = array(&told, "files")?
            .iter()
            .filter_map(|file| Some((file["path"].as_str()?, file)))
            .collect();
        files.retain(|file| {
            let told = told.get(file.name.as_str());
            told.is_none_or(|told| told["shouldIgnore"] != true)
        });
        for file in files {
            let mode = told.get(file.name.as_str()).map(|told| &told["uploadMode"]);
            file.oid = match mode.and_then(|mode| mode.as_str()) {
                Some("lfs") => Some(String::new()),
                Some("regular") => None,
                _ => return Err(malformed(&format!("no upload mode for {}", file.name))),
            };
        }
        Ok(())
    }

    /// Hashes the files that are stored outside Git.
    fn hash(&self, files: &mut [Outgoing]) -> std::result::Result<(), Failure> {
        let large = files.iter_mut().filter(|file| file.oid.is_some());
        let mut large: Vec<_> = large.collect();
        let total = large.iter().map(|file| file.size).sum();
        let mut done = 0;
        let mut chunk = vec![0; CHUNK];
        for file in &mut large {
            let mut opened = File::open(&file.path).map_err(StatsError::io(&file.path))?;
            let mut hasher = Digest::Sha256(String::new()).hasher(file.size);
            loop {
                let read = opened
                    .read(&mut chunk)
                    .map_err(StatsError::io(&file.path))?;
                if read == 0 {
                    break;
                }
                hasher.update(&chunk[..read]);
                done += read as u64;
                self.step("Hashing", &file.name, done, total)?;
            }
            file.oid = Some(hasher.finish().name().to_owned());
        }
        Ok(())
    }

    /// Sends the content of large files that the hub lacks.
    fn upload(&self, files: &[Outgoing]) -> std::result::Result<(), Failure> {
        let large: Vec<_> = files.iter().filter(|file| file.oid.is_some()).collect();
        if large.is_empty() {
            return Ok(());
        }
        let objects: Vec<_> = large
            .iter()
            .map(|file| json!({ "oid": file.oid, "size": file.size }))
            .collect();
        let body = json!({ "operation": "upload", "transfers": ["basic", "multipart"],
            "objects": objects, "hash_algo": "sha256", "ref": { "name": self.revision } });
        let path = format!("{}.git/info/lfs/objects/batch", self.id);
        let told = self.post(&path, LFS, body.to_string().as_bytes())?;
        let total = large.iter().map(|file| file.size).sum();
        let mut done = 0;
        for object in array(&told, "objects")? {
            let file = large
                .iter()
                .find(|file| file.oid.as_deref() == object["oid"].as_str())
                .ok_or_else(|| malformed("an upload of a file that was not named"))?;
            if let Some(error) = object["error"]["message"].as_str() {
                return Err(malformed(&format!("{}: {error}", file.name)));
            }
            // Without actions the content is there.
            let upload = &object["actions"]["upload"];
            if upload.is_object() {
                self.send(file, upload, (done, total))?;
                let verify = &object["actions"]["verify"]["href"];
                if verify.is_string() {
                    let body = json!({ "oid": file.oid, "size": file.size }).to_string();
                    self.post_to(&address(verify)?, LFS, body.as_bytes())?;
                }
            }
            done += file.size;
        }
        Ok(())
    }

    /// Sends one file, in one piece or in as many as `upload` has addresses for.
    fn send(
        &self,
        file: &Outgoing,
        upload: &Value,
        (done, total): (u64, u64),
    ) -> std::result::Result<(), Failure> {
        let whole = address(&upload["href"])?;
        let headers = upload["header"].as_object();
        let chunk = headers.and_then(|headers| number(headers.get("chunk_size")?));
        let piece = |from: u64, size: u64| Piece {
            file,
            from,
            size,
            done: done + from,
            total,
        };
        let Some(chunk) = chunk else {
            self.put(&whole, piece(0, file.size))?;
            return Ok(());
        };
        let numbered = headers.into_iter().flatten();
        let addresses: BTreeMap<u64, &Value> = numbered
            .filter_map(|(name, value)| Some((name.parse().ok()?, value)))
            .collect();
        if chunk == 0 || addresses.len() as u64 != file.size.div_ceil(chunk.max(1)) {
            return Err(malformed(&format!(
                "{}: {} addresses for pieces of {chunk} bytes",
                file.name,
                addresses.len()
            )));
        }
        let mut parts = Vec::new();
        for (index, (number, to)) in addresses.into_iter().enumerate() {
            let from = index as u64 * chunk;
            let size = chunk.min(file.size - from);
            let tag = self.put(&address(to)?, piece(from, size))?;
            let tag = tag.ok_or_else(|| malformed("a piece without an entity tag"))?;
            parts.push(json!({ "partNumber": number, "etag": tag }));
        }
        let body = json!({ "oid": file.oid, "parts": parts }).to_string();
        self.post_to(&whole, LFS, body.as_bytes()).map(|_| ())
    }

    /// Sends a piece of a file and returns its entity tag.
    fn put(&self, to: &Url, piece: Piece<'_>) -> std::result::Result<Option<String>, Failure> {
        let path = &piece.file.path;
        patiently(&self.stop, || {
            let mut file = File::open(path).map_err(StatsError::io(path))?;
            file.seek(SeekFrom::Start(piece.from))
                .map_err(StatsError::io(path))?;
            let mut body = Body {
                sender: self,
                piece: &piece,
                read: 0,
                file: file.take(piece.size),
            };
            let request = self
                .wire
                .request("PUT", to)
                .set("content-length", &piece.size.to_string());
            let sent = request.send(&mut body);
            // A body that ended because the user asked to.
            stopped(&self.stop)?;
            Ok(answer(sent)?.header("etag").map(str::to_owned))
        })
    }

    /// Names all files in one commit and returns its address.
    fn commit(&self, files: &[Outgoing], summary: &str) -> std::result::Result<String, Failure> {
        let mut lines =
            json!({ "key": "header", "value": { "summary": summary, "description": "" } })
                .to_string();
        for file in files {
            let value = match &file.oid {
                Some(oid) => json!({ "key": "lfsFile", "value": {
                    "path": file.name, "algo": "sha256", "oid": oid, "size": file.size } }),
                None => {
                    let content = std::fs::read(&file.path).map_err(StatsError::io(&file.path))?;
                    json!({ "key": "file", "value": {
                        "path": file.name, "content": BASE64.encode(content), "encoding": "base64" } })
                }
            };
            lines.push('\n');
            lines.push_str(&value.to_string());
        }
        let revision = segment(self.revision);
        let path = format!("api/models/{}/commit/{revision}", self.id);
        let headers: Headers<'_> = &[("content-type", "application/x-ndjson")];
        let told = self.post(&path, headers, lines.as_bytes())?;
        let at = told["commitUrl"].as_str();
        at.map(str::to_owned)
            .ok_or_else(|| malformed("a commit without an address"))
    }

    fn post(
        &self,
        path: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> std::result::Result<Value, Failure> {
        self.post_to(&self.wire.address(path)?, headers, body)
    }

    fn post_to(
        &self,
        to: &Url,
        headers: Headers<'_>,
        body: &[u8],
    ) -> std::result::Result<Value, Failure> {
        patiently(&self.stop, || {
            let request = with(self.wire.request("POST", to), headers);
            let response = answer(request.send_bytes(body))?;
            match response.status() {
                204 => Ok(Value::Null),
                200..=299 => read_json(response).or_else(empty),
                status => Err(Failure::Status(status).into()),
            }
        })
    }

    fn step(
        &self,
        stage: &str,
        detail: &str,
        done: u64,
        total: u64,
    ) -> std::result::Result<(), StatsError> {
        let told = self.progress.step(&Update {
            stage,
            detail,
            unit: "B",
            done,
            total,
        });
        if told.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        told
    }
}

/// Takes an answer for one without a body where none is needed.
fn empty(trouble: Trouble) -> std::result::Result<Value, Trouble> {
    match trouble {
        Trouble::Final(Failure::Malformed(_)) => Ok(Value::Null),
        trouble => Err(trouble),
    }
}

/// A part of a file.
struct Piece<'a> {
    file: &'a Outgoing,
    from: u64,
    size: u64,
    /// Bytes of all files before it, and of all.
    done: u64,
    total: u64,
}

/// Reads a piece, and tells how far it is.
struct Body<'a> {
    sender: &'a Sender<'a>,
    piece: &'a Piece<'a>,
    read: u64,
    file: std::io::Take<File>,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = buffer.len().min(CHUNK);
        let read = self.file.read(&mut buffer[..end])?;
        self.read += read as u64;
        let Piece {
            file, done, total, ..
        } = self.piece;
        let told = self
            .sender
            .step("Uploading", &file.name, done + self.read, *total);
        told.map(|()| read).map_err(std::io::Error::other)
    }
}

fn array<'a>(answer: &'a Value, field: &str) -> std::result::Result<&'a Vec<Value>, Failure> {
    let array = answer[field].as_array();
    array.ok_or_else(|| malformed(&format!("an answer without `{field}`")))
}

fn address(value: &Value) -> std::result::Result<Url, Failure> {
    let parsed = value.as_str().and_then(|text| Url::parse(text).ok());
    parsed.ok_or_else(|| malformed("an upload without an address"))
}

/// A number, which headers spell as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
