//! A hub on the loopback interface that speaks the protocol of the real one,
//! with faults on request.
//!
//! Two ports: the hub, which wants the token if there is one, and another for
//! the content of large files, as from a CDN, which wants none and notes if it
//! is shown one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::pushed::Pushed;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes that a hub with a pace sends at a time.
const STEP: usize = 64 << 10;

/// What goes wrong with requests whose path contains a text.
#[derive(Clone)]
pub(crate) enum Fault {
    /// This status, with more headers, each ended by CRLF.
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the body.
    Drop(usize),
    /// One byte of the body is another.
    Corrupt,
    /// The whole file comes, whatever part was asked for.
    Whole,
    /// Another content, of the same size or not; another listing.
    Other(Vec<u8>),
}

/// A fault that happens to requests of files, so many times.
struct Planned {
    path: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    token: Option<String>,
    faults: Mutex<Vec<Planned>>,
    requests: Mutex<Vec<String>>,
    leaks: Mutex<Vec<String>>,
    pushed: Pushed,
    endpoint: String,
    cdn: String,
    /// Whether the listing names neither sizes nor digests.
    silent: bool,
    pace: Duration,
}

/// A running hub with the repository `org/name`.
#[derive(Clone)]
pub(crate) struct LoopbackHub {
    pub(crate) endpoint: String,
    state: Arc<State>,
}

/// How a hub is.
#[derive(Default)]
pub(crate) struct Character {
    /// The token it wants.
    pub(crate) token: Option<&'static str>,
    /// Its listing names neither sizes nor digests.
    pub(crate) silent: bool,
    /// How long it takes for [`STEP`] bytes.
    pub(crate) pace: Duration,
}

impl LoopbackHub {
    pub(crate) fn new(files: BTreeMap<String, Vec<u8>>, character: Character) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let endpoint = address(&hub);
        let state = Arc::new(State {
            files: Mutex::new(files),
            token: character.token.map(str::to_owned),
            endpoint: endpoint.clone(),
            cdn: address(&cdn),
            silent: character.silent,
            pace: character.pace,
            ..State::default()
        });
        for (listener, is_hub) in [(hub, true), (cdn, false)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = state.clone();
                    std::thread::spawn(move || {
                        // A client that went away is no fault of the hub.
                        let _ = state.serve(&mut stream.unwrap(), is_hub);
                    });
                }
            });
        }
        Self { endpoint, state }
    }

    /// From now on `times` requests whose path contains `path` go wrong.
    pub(crate) fn fault(&self, path: &str, fault: Fault, times: usize) {
        self.state.faults.lock().unwrap().push(Planned {
            path: path.to_owned(),
            fault,
            left: times,
        });
    }

    /// No request goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// Requests so far: `GET /path bytes=5-`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many requests asked for all that was left of a large file.
    pub(crate) fn downloads(&self, name: &str) -> usize {
        let begins = format!("GET /{name}");
        let requests = self.requests();
        let whole = |it: &&String| it.starts_with(&begins) && it.ends_with('-');
        requests.iter().filter(whole).count()
    }

    /// What was pushed.
    pub(crate) fn pushed(&self) -> &Pushed {
        &self.state.pushed
    }

    /// Requests to the CDN that showed a token.
    pub(crate) fn leaks(&self) -> Vec<String> {
        self.state.leaks.lock().unwrap().clone()
    }
}

/// A request.
struct Head {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Head {
    fn read(stream: &TcpStream) -> std::io::Result<Self> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next(), words.next());
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map(|it: &String| it.parse());
        let mut body = vec![0; length.map_or(0, Result::unwrap)];
        reader.read_exact(&mut body)?;
        Ok(Self {
            method: method.unwrap_or_default(),
            path: path.unwrap_or_default(),
            headers,
            body,
        })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer.
pub(super) struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Bytes of the body after which the connection ends.
    drop: Option<usize>,
}

impl Answer {
    pub(super) fn new(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: headers.into(),
            body: body.into(),
            drop: None,
        }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self::new(200, "", value.to_string())
    }

    fn send(self, stream: &mut TcpStream, pace: Duration) -> std::io::Result<()> {
        let text = format!(
            "HTTP/1.1 {} X\r\n{}content-length: {}\r\nconnection: close\r\n\r\n",
            self.status,
            self.headers,
            self.body.len()
        );
        stream.write_all(text.as_bytes())?;
        let end = self.drop.unwrap_or(usize::MAX).min(self.body.len());
        for piece in self.body[..end].chunks(STEP) {
            stream.write_all(piece)?;
            std::thread::sleep(pace);
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // What the client still sends would reset the connection.
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        let _ = stream.read(&mut [0; 1024]);
        Ok(())
    }
}

impl State {
    fn serve(&self, stream: &mut TcpStream, is_hub: bool) -> std::io::Result<()> {
        let head = Head::read(stream)?;
        let noted = format!("{} {} {}", head.method, head.path, head.header("range"));
        self.requests
            .lock()
            .unwrap()
            .push(noted.trim_end().to_owned());
        let fault = self.next_fault(&head.path);
        let answer = match (is_hub, &fault) {
            (_, Some(Fault::Status(status, headers))) => Answer::new(*status, *headers, ""),
            (true, _) => self.hub(&head, fault.as_ref()),
            (false, _) => {
                if !head.header("authorization").is_empty() {
                    self.leaks.lock().unwrap().push(noted);
                }
                if head.method == "PUT" {
                    return self
                        .pushed
                        .put(&head.path, head.body)
                        .send(stream, self.pace);
                }
                let name = head.path.split('?').next().unwrap_or_default();
                self.content(&head, name.trim_start_matches('/'), fault.as_ref())
            }
        };
        if head.method == "HEAD" {
            return Answer {
                drop: Some(0),
                ..answer
            }
            .send(stream, self.pace);
        }
        answer.send(stream, self.pace)
    }

    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let next = faults
            .iter_mut()
            .find(|planned| planned.left > 0 && path.contains(&planned.path))?;
        // The hub only passes on what the CDN spoils.
        let about_content = !matches!(next.fault, Fault::Status(..));
        if about_content && path.contains("/resolve/") && is_large(path) {
            return None;
        }
        next.left -= 1;
        Some(next.fault.clone())
    }

    fn hub(&self, head: &Head, fault: Option<&Fault>) -> Answer {
        let shown = head.header("authorization").strip_prefix("Bearer ");
        if self
            .token
            .as_deref()
            .is_some_and(|token| shown != Some(token))
        {
            return Answer::new(401, "", "");
        }
        let path = head.path.split('?').next().unwrap_or_default();
        if head.method == "POST" {
            return self
                .pushed
                .post(path, &head.body, (&self.endpoint, &self.cdn));
        }
        if path == "/api/models/org/name/revision/main" || path.ends_with(COMMIT) {
            return match fault {
                Some(Fault::Other(listing)) => Answer::new(200, "", listing.clone()),
                _ => Answer::json(&self.listing()),
            };
        }
        let files = format!("/org/name/resolve/{COMMIT}/");
        let Some(name) = path.strip_prefix(&files) else {
            return Answer::new(404, "x-error-code: RepoNotFound\r\n", "");
        };
        let Some(size) = self.files.lock().unwrap().get(name).map(Vec::len) else {
            return Answer::new(404, "x-error-code: EntryNotFound\r\n", "");
        };
        if is_large(name) {
            let digest = self.sha256(name);
            let headers = format!(
                "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{digest}\"\r\nx-linked-size: {size}\r\nlocation: {}/{name}?signature=1\r\n",
                self.cdn
            );
            return Answer::new(302, headers, "");
        }
        self.content(head, name, fault)
    }

    /// A file or the part of it that was asked for.
    fn content(&self, head: &Head, name: &str, fault: Option<&Fault>) -> Answer {
        let Some(bytes) = self.files.lock().unwrap().get(name).cloned() else {
            return Answer::new(404, "", "");
        };
        let tag = if is_large(name) {
            self.sha256(name)
        } else {
            git(&bytes)
        };
        let mut bytes = bytes;
        if let Some(Fault::Other(other)) = fault {
            bytes.clone_from(other);
        }
        let range = head.header("range").strip_prefix("bytes=");
        let range = range.and_then(|range| {
            let (start, last) = range.split_once('-')?;
            let last = last.parse().unwrap_or(usize::MAX);
            Some((start.parse::<usize>().ok()?, last))
        });
        let mut answer = match range.filter(|_| !matches!(fault, Some(Fault::Whole))) {
            Some((start, _)) if start >= bytes.len() => Answer::new(416, "", ""),
            Some((start, last)) => {
                let last = last.min(bytes.len() - 1);
                let headers = format!(
                    "etag: \"{tag}\"\r\ncontent-range: bytes {start}-{last}/{}\r\n",
                    bytes.len()
                );
                Answer::new(206, headers, &bytes[start..=last])
            }
            None => Answer::new(200, format!("etag: \"{tag}\"\r\n"), bytes),
        };
        match fault {
            Some(Fault::Drop(after)) => answer.drop = Some(*after),
            Some(Fault::Corrupt) => {
                let middle = answer.body.len() / 2;
                answer.body[middle] ^= 1;
            }
            _ => {}
        }
        answer
    }

    fn listing(&self) -> Value {
        let files = self.files.lock().unwrap();
        let siblings: Vec<Value> = files
            .iter()
            .map(|(name, bytes)| match (self.silent, is_large(name)) {
                (true, _) => json!({ "rfilename": name }),
                (false, false) => {
                    json!({ "rfilename": name, "size": bytes.len(), "blobId": git(bytes) })
                }
                (false, true) => {
                    let sha256 = hex(&Sha256::digest(bytes));
                    json!({ "rfilename": name, "size": bytes.len(), "blobId": git(b"pointer"),
                        "lfs": { "sha256": sha256, "size": bytes.len(), "pointerSize": 134 } })
                }
            })
            .collect();
        json!({ "id": "org/name", "sha": COMMIT, "siblings": siblings })
    }

    fn sha256(&self, name: &str) -> String {
        hex(&Sha256::digest(&self.files.lock().unwrap()[name]))
    }
}

/// Whether a file is stored outside Git.
pub(super) fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn git(bytes: &[u8]) -> String {
    let mut hash = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
