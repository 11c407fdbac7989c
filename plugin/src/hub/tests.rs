//! A small hub on the loopback interface.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use router_stats::progress::Silent;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves `files` of `org/name` to whoever shows `token`, if there is one.
fn serve(files: BTreeMap<&'static str, Vec<u8>>, token: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            let headers: Vec<String> = lines
                .map_while(|line| line.ok().filter(|line| !line.is_empty()))
                .map(|line| line.to_lowercase())
                .collect();
            let header = |name: &str| {
                headers
                    .iter()
                    .find_map(|line| line.strip_prefix(name).map(str::trim))
            };
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let allowed = token.is_none_or(|token| header("authorization: bearer") == Some(token));
            let (status, extra, body) = if !allowed {
                ("401 Unauthorized", String::new(), Vec::new())
            } else if path.starts_with("/api/models/org/name/revision/main") {
                let siblings: Vec<Value> = files
                    .iter()
                    .map(|(name, bytes)| serde_json::json!({ "rfilename": name, "size": bytes.len() }))
                    .collect();
                let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
                ("200 OK", String::new(), body.to_string().into_bytes())
            } else if let Some(bytes) = path
                .strip_prefix(&format!("/org/name/resolve/{COMMIT}/"))
                .and_then(|f| files.get(f))
            {
                let range = header("range: bytes=").unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let from: usize = from.parse().unwrap();
                let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
                let extra = format!(
                    "etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {from}-{}/{}\r\n",
                    path.replace('/', "-"), to - 1, bytes.len()
                );
                ("206 Partial Content", extra, bytes[from..to].to_vec())
            } else {
                ("404 Not Found", String::new(), Vec::new())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream
                .write_all(&[head.as_bytes(), &body].concat())
                .unwrap();
        }
    });
    endpoint
}

fn hub(cache: &Path, endpoint: &str, token: Token, offline: bool) -> Hub {
    Hub {
        cache: hf_hub::Cache::new(cache.join("hub")),
        endpoint: Some(endpoint.to_owned()),
        token,
        offline,
    }
}

fn sharded() -> BTreeMap<&'static str, Vec<u8>> {
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"t\": 1}".to_vec()),
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("model-00001-of-00002.safetensors", vec![1; 5000]),
        ("model-00002-of-00002.safetensors", vec![2; 7000]),
        ("pytorch_model.bin", vec![3; 9000]),
    ])
}

fn failure(result: Result<Snapshot>) -> Failure {
    match result {
        Err(Error::Hub { failure, .. }) => failure,
        other => panic!("expected a hub failure, found {other:?}"),
    }
}

#[test]
fn downloads_what_a_checkpoint_needs_and_then_works_offline() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(sharded(), None);
    let online = hub(dir.path(), &endpoint, Token::Anonymous, false);
    let snapshot = online.snapshot("org/name", None, &Silent).unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    for (name, bytes) in sharded() {
        let path = snapshot.dir.join(name);
        assert_eq!(path.exists(), name != "pytorch_model.bin", "{name}");
        if path.exists() {
            assert_eq!(std::fs::read(path).unwrap(), bytes);
        }
    }
    let offline = hub(dir.path(), "http://127.0.0.1:9", Token::Anonymous, true);
    assert_eq!(
        offline.snapshot("org/name", None, &Silent).unwrap().dir,
        snapshot.dir
    );
    let unreachable = hub(dir.path(), "http://127.0.0.1:9", Token::Anonymous, false);
    assert_eq!(
        unreachable.snapshot("org/name", None, &Silent).unwrap().dir,
        snapshot.dir
    );
    assert!(matches!(
        failure(offline.snapshot("org/other", None, &Silent)),
        Failure::Offline(_)
    ));
    assert!(matches!(
        failure(unreachable.snapshot("org/other", None, &Silent)),
        Failure::Transport(_)
    ));
}

#[test]
fn an_interrupted_transfer_continues() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(sharded(), None);
    let hub = hub(dir.path(), &endpoint, Token::Anonymous, false);
    let blobs = dir.path().join("hub/models--org--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let name = "model-00001-of-00002.safetensors";
    let part = blobs
        .join(format!("-org-name-resolve-{COMMIT}-{name}"))
        .with_extension("part");
    std::fs::write(&part, vec![1; 1234]).unwrap();
    let snapshot = hub.snapshot("org/name", None, &Silent).unwrap();
    assert_eq!(
        std::fs::read(snapshot.dir.join(name)).unwrap(),
        vec![1; 5000]
    );
    assert!(!part.exists());
}

#[test]
fn refusals_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(sharded(), Some("secret"));
    let with = |token| hub(dir.path(), &endpoint, token, false);
    assert!(matches!(
        failure(with(Token::Anonymous).snapshot("org/name", None, &Silent)),
        Failure::Unauthorized
    ));
    let right = with(Token::Literal("secret".to_owned()));
    assert!(matches!(
        failure(right.snapshot("org/nothing", None, &Silent)),
        Failure::NotFound
    ));
    assert!(matches!(
        failure(right.snapshot("org/name", Some("v9"), &Silent)),
        Failure::NotFound
    ));
    right.snapshot("org/name", None, &Silent).unwrap();

    let endpoint = serve(BTreeMap::from([("config.json", b"{}".to_vec())]), None);
    let bare = hub(dir.path(), &endpoint, Token::Anonymous, false);
    assert!(matches!(
        failure(bare.snapshot("org/name", None, &Silent)),
        Failure::NoCheckpoint(_)
    ));
}

#[test]
fn one_file_goes_before_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = sharded();
    files.insert(WEIGHTS, vec![4; 3000]);
    let endpoint = serve(files, None);
    let online = hub(dir.path(), &endpoint, Token::Anonymous, false);
    let snapshot = online.snapshot("org/name", None, &Silent).unwrap();
    assert!(snapshot.dir.join(WEIGHTS).exists());
    for absent in [INDEX, "model-00001-of-00002.safetensors"] {
        assert!(!snapshot.dir.join(absent).exists(), "{absent}");
    }
    // An index that another program left asks for no shards.
    std::fs::write(snapshot.dir.join(INDEX), &sharded()[INDEX]).unwrap();
    let offline = hub(dir.path(), "http://127.0.0.1:9", Token::Anonymous, true);
    offline.snapshot("org/name", None, &Silent).unwrap();
}

#[test]
fn the_login_is_found_wherever_the_cache_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let endpoint = serve(sharded(), Some("secret"));
    std::fs::create_dir(path("home")).unwrap();
    std::fs::write(path("home/token"), "secret\n").unwrap();
    // What lies beside the cache is no login.
    std::fs::write(path("token"), "another").unwrap();
    let with = |token, variable: Option<&str>| {
        Hub::from_variables(token, &|name| match name {
            "HF_HOME" => Some(path("home")),
            "HF_HUB_CACHE" => Some(path("cache")),
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_TOKEN" => variable.map(str::to_owned),
            _ => None,
        })
        .snapshot("org/name", None, &Silent)
    };
    for refused in [
        with(Token::Anonymous, Some("secret")),
        with(Token::Ambient, Some("wrong")),
        with(Token::Literal("wrong".to_owned()), Some("secret")),
    ] {
        assert!(matches!(failure(refused), Failure::Unauthorized));
    }
    let snapshot = with(Token::Ambient, Some("")).unwrap();
    assert!(snapshot.dir.starts_with(path("cache")));

    let home = |name: &str| (name == "HF_HOME").then(|| path("home"));
    let hub = Hub::from_variables(Token::Ambient, &home);
    assert_eq!(hub.cache.path(), &dir.path().join("home/hub"));
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join(INDEX);
    for name in ["../x.safetensors", "a/b.safetensors", "x.bin", ""] {
        std::fs::write(
            &index,
            serde_json::json!({ "weight_map": { "t": name } }).to_string(),
        )
        .unwrap();
        assert!(shards(&index).is_err(), "{name}");
    }
}

#[test]
fn ids_are_told_from_paths() {
    for id in ["org/name", "Qwen/Qwen3-30B-A3B", "a/b_c.d"] {
        assert!(is_id(id), "{id}");
    }
    for path in [
        "",
        "name",
        "./name",
        "../name",
        "/abs/name",
        "org/name/more",
        "org/",
        "~/name",
        "a b/c",
    ] {
        assert!(!is_id(path), "{path}");
    }
}
