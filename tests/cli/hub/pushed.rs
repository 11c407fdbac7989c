//! The half of the loopback hub that takes what is pushed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use super::server::{hex, is_large, Answer};

/// Larger contents are taken in pieces of this many bytes.
pub(crate) const PIECE: usize = 300_000;

/// What was pushed.
#[derive(Default)]
pub(crate) struct Pushed {
    made: Mutex<Vec<Value>>,
    /// Pieces by where they were put.
    pieces: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Contents by their SHA-256.
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    verified: Mutex<Vec<String>>,
    commits: Mutex<Vec<Vec<Value>>>,
}

impl Pushed {
    /// Requests to make a repository.
    pub(crate) fn made(&self) -> Vec<Value> {
        self.made.lock().unwrap().clone()
    }

    /// SHA-256 of the contents that were checked once they had come.
    pub(crate) fn verified(&self) -> Vec<String> {
        self.verified.lock().unwrap().clone()
    }

    /// The files of every commit.
    pub(crate) fn commits(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        let commits = self.commits.lock().unwrap();
        let file = |line: &Value| {
            let value = &line["value"];
            let content = match line["key"].as_str()? {
                "file" => BASE64.decode(value["content"].as_str()?).unwrap(),
                "lfsFile" => {
                    let content = self.objects.lock().unwrap()[value["oid"].as_str()?].clone();
                    assert_eq!(content.len() as u64, value["size"]);
                    content
                }
                _ => return None,
            };
            Some((value["path"].as_str()?.to_owned(), content))
        };
        commits
            .iter()
            .map(|lines| lines.iter().filter_map(file).collect())
            .collect()
    }

    pub(super) fn put(&self, path: &str, body: Vec<u8>) -> Answer {
        match path.strip_prefix("/whole/") {
            Some(oid) if hex(&Sha256::digest(&body)) == oid => {
                self.objects.lock().unwrap().insert(oid.to_owned(), body);
                Answer::new(200, "", "")
            }
            Some(_) => Answer::new(400, "", ""),
            None => {
                let tag = format!("etag: \"{}\"\r\n", body.len());
                self.pieces.lock().unwrap().insert(path.to_owned(), body);
                Answer::new(200, tag, "")
            }
        }
    }

    /// Answers what is sent to the hub, whose address is the first of `at`.
    pub(super) fn post(&self, path: &str, body: &[u8], at: (&str, &str)) -> Answer {
        let json = || serde_json::from_slice::<Value>(body).unwrap();
        match path {
            "/api/repos/create" => {
                let mut made = self.made.lock().unwrap();
                made.push(json());
                Answer::new(if made.len() > 1 { 409 } else { 200 }, "", "{}")
            }
            "/api/models/org/name/preupload/main" => {
                let mode = |file: &Value| {
                    let name = file["path"].as_str().unwrap();
                    let mode = if is_large(name) { "lfs" } else { "regular" };
                    json!({ "path": name, "uploadMode": mode, "shouldIgnore": name == "ignored" })
                };
                let files: Vec<_> = json()["files"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(mode)
                    .collect();
                Answer::json(&json!({ "files": files }))
            }
            "/org/name.git/info/lfs/objects/batch" => self.batch(&json(), at),
            "/api/models/org/name/commit/main" => {
                let lines = std::str::from_utf8(body).unwrap().lines();
                let lines = lines.map(|line| serde_json::from_str(line).unwrap());
                self.commits.lock().unwrap().push(lines.collect());
                Answer::json(&json!({ "commitUrl": "https://hub/org/name/commit/1" }))
            }
            _ => match path.strip_prefix("/complete/") {
                Some(oid) => self.complete(oid, &json()),
                None if path == "/verify" => {
                    let oid = json()["oid"].as_str().unwrap().to_owned();
                    let known = self.objects.lock().unwrap().contains_key(&oid);
                    self.verified.lock().unwrap().push(oid);
                    Answer::new(if known { 200 } else { 404 }, "", "")
                }
                None => Answer::new(404, "", ""),
            },
        }
    }

    /// Says where contents go that are not there.
    fn batch(&self, asked: &Value, (hub, cdn): (&str, &str)) -> Answer {
        let known = self.objects.lock().unwrap();
        let object = |object: &Value| {
            let oid = object["oid"].as_str().unwrap();
            let size = object["size"].as_u64().unwrap() as usize;
            let verify = json!({ "href": format!("{hub}/verify") });
            let upload = if known.contains_key(oid) {
                return json!({ "oid": oid, "size": size });
            } else if size > PIECE {
                let mut header = json!({ "chunk_size": PIECE.to_string() });
                for piece in 1..=size.div_ceil(PIECE) {
                    header[format!("{piece:05}")] = json!(format!("{cdn}/piece/{oid}/{piece}"));
                }
                json!({ "href": format!("{hub}/complete/{oid}"), "header": header })
            } else {
                json!({ "href": format!("{cdn}/whole/{oid}") })
            };
            json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
        };
        let objects: Vec<_> = asked["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(object)
            .collect();
        Answer::json(&json!({ "objects": objects }))
    }

    fn complete(&self, oid: &str, told: &Value) -> Answer {
        let pieces = self.pieces.lock().unwrap();
        let mut whole = Vec::new();
        for part in told["parts"].as_array().unwrap() {
            let piece = &pieces[&format!("/piece/{oid}/{}", part["partNumber"])];
            if part["etag"] != format!("\"{}\"", piece.len()) {
                return Answer::new(400, "", "");
            }
            whole.extend_from_slice(piece);
        }
        if hex(&Sha256::digest(&whole)) != oid {
            return Answer::new(400, "", "");
        }
        self.objects.lock().unwrap().insert(oid.to_owned(), whole);
        Answer::new(200, "", "{}")
    }
}
