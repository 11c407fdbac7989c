//! What `push` leaves on the hub.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mistralrs_prune::hub::{Failure, Hub, Push, Token};
use mistralrs_prune::{Error, Result};
use router_stats::progress::Silent;

use super::server::{Character, Fault, LoopbackHub};

const SECRET: &str = "hf_secret";

/// Small files, a large one that goes in one piece, and one in three.
fn directory() -> (tempfile::TempDir, BTreeMap<String, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let files: BTreeMap<String, Vec<u8>> = [
        ("README.md", b"# A model\n".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model-00001-of-00002.safetensors", vec![1; 5000]),
        (
            "model-00002-of-00002.safetensors",
            (0..700_000).map(|i| (i % 251) as u8).collect(),
        ),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into();
    for (name, bytes) in &files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join(".hidden"), "no").unwrap();
    fs::write(dir.path().join("ignored"), "no").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    (dir, files)
}

fn hub() -> LoopbackHub {
    LoopbackHub::new(
        BTreeMap::new(),
        Character {
            token: Some(SECRET),
            ..Character::default()
        },
    )
}

fn push(hub: &LoopbackHub, dir: &Path, token: &str) -> Result<String> {
    let client = Hub::from_variables(Token::Literal(token.to_owned()), &|name| {
        (name == "HF_ENDPOINT").then(|| hub.endpoint.clone())
    });
    let push = Push {
        id: "org/name",
        revision: None,
        private: true,
        summary: "Half of the experts",
    };
    client.push(dir, &push, &Silent)
}

fn failure(result: Result<String>) -> Failure {
    match result {
        Err(Error::Hub { failure, .. }) => *failure,
        other => panic!("expected a hub failure, found {other:?}"),
    }
}

#[test]
fn one_commit_holds_every_file() {
    let (dir, files) = directory();
    let hub = hub();
    let address = push(&hub, dir.path(), SECRET).unwrap();
    assert_eq!(address, "https://hub/org/name/commit/1");
    assert!(hub.pushed().commits() == [files.clone()]);
    assert_eq!(hub.pushed().verified().len(), 2);
    assert_eq!(
        hub.pushed().made(),
        [
            serde_json::json!({ "name": "name", "organization": "org", "type": "model", "private": true })
        ]
    );
    assert_eq!(hub.leaks(), [""; 0], "the token is for the hub");

    // What is there is not sent again.
    push(&hub, dir.path(), SECRET).unwrap();
    let puts = hub
        .requests()
        .iter()
        .filter(|it| it.starts_with("PUT"))
        .count();
    assert_eq!(puts, 4);
    assert!(hub.pushed().commits() == [files.clone(), files]);
}

#[test]
fn what_breaks_off_is_sent_again_and_commits_once() {
    let (dir, files) = directory();
    let hub = hub();
    hub.fault("/whole/", Fault::Status(503, "retry-after: 0\r\n"), 2);
    hub.fault("/piece/", Fault::Status(500, ""), 1);
    hub.fault("/batch", Fault::Status(429, "retry-after: 0\r\n"), 1);
    push(&hub, dir.path(), SECRET).unwrap();
    assert!(hub.pushed().commits() == [files]);
}

#[test]
fn a_push_that_fails_commits_nothing() {
    let (dir, _) = directory();
    let refused = hub();
    assert!(matches!(
        failure(push(&refused, dir.path(), "wrong")),
        Failure::Unauthorized
    ));
    let broken = hub();
    broken.fault("/piece/", Fault::Status(403, ""), 9);
    assert!(matches!(
        failure(push(&broken, dir.path(), SECRET)),
        Failure::Forbidden
    ));
    for hub in [refused, broken] {
        assert!(hub.pushed().commits().is_empty());
    }
}
