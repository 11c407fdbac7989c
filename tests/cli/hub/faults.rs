//! Everything that can go wrong between the hub and the cache: each fault ends
//! in the right files or in a clear error, never in wrong ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mistralrs_prune::hub::{Failure, Hub, Snapshot, Token};
use mistralrs_prune::{Error, Result};
use router_stats::progress::Silent;

use super::server::{Character, Fault, LoopbackHub, COMMIT};

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SECRET: &str = "hf_secret";

fn files() -> BTreeMap<String, Vec<u8>> {
    let index = serde_json::json!({ "weight_map": { "a": FIRST, "b": SECOND } });
    let noise = |n: u32| -> Vec<u8> {
        (0..n)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    };
    [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"t\": 1}".to_vec()),
        (INDEX, index.to_string().into_bytes()),
        (FIRST, noise(700_000)),
        (SECOND, noise(900_001)),
        ("pytorch_model.bin", vec![3; 9000]),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// A hub, and a cache for one test.
struct Case {
    hub: LoopbackHub,
    dir: tempfile::TempDir,
}

impl Case {
    fn new(character: Character) -> Self {
        Self {
            hub: LoopbackHub::new(files(), character),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn plain() -> Self {
        Self::new(Character::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Access to a hub at `endpoint`, with variables of the environment.
    fn client(&self, endpoint: &str, token: Token, more: &[(&str, &str)]) -> Hub {
        Hub::from_variables(token, &|name| {
            let given = more.iter().find(|(given, _)| *given == name);
            match name {
                _ if given.is_some() => given.map(|(_, value)| (*value).to_owned()),
                "HF_HOME" => Some(self.path("home").display().to_string()),
                "HF_ENDPOINT" => Some(endpoint.to_owned()),
                _ => None,
            }
        })
    }

    fn get(&self) -> Result<Snapshot> {
        self.get_with(Token::Anonymous)
    }

    fn get_with(&self, token: Token) -> Result<Snapshot> {
        self.client(&self.hub.endpoint, token, &[])
            .snapshot("org/name", None, &Silent)
    }

    fn blobs(&self) -> PathBuf {
        self.path("home/hub/models--org--name/blobs")
    }

    /// What has come of the file whose whole has `digest`.
    fn part(&self, name: &str) -> PathBuf {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(&files()[name]);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.blobs().join(format!("{digest}.incomplete"))
    }

    /// Requests to the CDN of `name`.
    fn fetched(&self, name: &str) -> Vec<String> {
        let all = self.hub.requests();
        all.into_iter()
            .filter(|request| request.starts_with(&format!("GET /{name}")))
            .collect()
    }
}

/// All files are there and right, and nothing unfinished is.
fn whole(case: &Case, snapshot: &Snapshot) {
    assert_eq!(snapshot.commit, COMMIT);
    for (name, bytes) in files() {
        let path = snapshot.dir.join(&name);
        assert_eq!(path.exists(), name != "pytorch_model.bin", "{name}");
        if path.exists() {
            assert!(fs::read(path).unwrap() == bytes, "{name}");
        }
    }
    assert_eq!(unfinished(&case.blobs()), 0);
}

fn unfinished(blobs: &Path) -> usize {
    let entries = fs::read_dir(blobs).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some())
        .count()
}

fn failure(result: Result<Snapshot>) -> Failure {
    match result {
        Err(Error::Hub { failure, .. }) => *failure,
        other => panic!("expected a hub failure, found {other:?}"),
    }
}

#[test]
fn what_a_checkpoint_needs_is_downloaded_and_then_works_offline() {
    let case = Case::plain();
    let snapshot = case.get().unwrap();
    whole(&case, &snapshot);
    let requests = case.hub.requests().len();
    whole(&case, &case.get().unwrap());
    assert_eq!(
        case.hub.requests().len(),
        requests + 1,
        "a second time only lists"
    );

    let nobody = "http://127.0.0.1:9";
    let unreachable = case.client(nobody, Token::Anonymous, &[]);
    let again = unreachable.snapshot("org/name", None, &Silent).unwrap();
    assert_eq!(again.dir, snapshot.dir);
    let offline = case.client(nobody, Token::Anonymous, &[("HF_HUB_OFFLINE", "1")]);
    for revision in [None, Some(COMMIT)] {
        let here = offline.snapshot("org/name", revision, &Silent).unwrap();
        assert_eq!(here.dir, snapshot.dir);
    }
    let other = |hub: &Hub| failure(hub.snapshot("org/other", None, &Silent));
    assert!(matches!(other(&offline), Failure::Offline(_)));
    assert!(matches!(other(&unreachable), Failure::Transport(_)));
}

#[test]
fn a_token_is_shown_to_the_hub_and_to_nobody_else() {
    let case = Case::new(Character {
        token: Some(SECRET),
        ..Character::default()
    });
    assert!(matches!(failure(case.get()), Failure::Unauthorized));
    let wrong = Token::Literal("wrong".to_owned());
    assert!(matches!(
        failure(case.get_with(wrong)),
        Failure::Unauthorized
    ));
    let snapshot = case.get_with(Token::Literal(SECRET.to_owned())).unwrap();
    whole(&case, &snapshot);
    assert!(!case.fetched(FIRST).is_empty());
    assert_eq!(case.hub.leaks(), [""; 0]);
}

#[test]
fn the_login_is_found_wherever_the_cache_is() {
    let case = Case::new(Character {
        token: Some(SECRET),
        ..Character::default()
    });
    fs::create_dir(case.path("home")).unwrap();
    fs::write(case.path("home/token"), format!("{SECRET}\n")).unwrap();
    // What lies beside the cache is no login.
    fs::write(case.path("token"), "another").unwrap();
    let cache = case.path("cache").display().to_string();
    let with = |token, variable| {
        let more = [("HF_HUB_CACHE", cache.as_str()), ("HF_TOKEN", variable)];
        let hub = case.client(&case.hub.endpoint, token, &more);
        hub.snapshot("org/name", None, &Silent)
    };
    for refused in [
        with(Token::Anonymous, SECRET),
        with(Token::Ambient, "wrong"),
        with(Token::Literal("wrong".to_owned()), SECRET),
    ] {
        assert!(matches!(failure(refused), Failure::Unauthorized));
    }
    let snapshot = with(Token::Ambient, "").unwrap();
    assert!(snapshot.dir.starts_with(case.path("cache")));
}

#[test]
fn refusals_are_told_apart() {
    type Is = fn(&Failure) -> bool;
    let listing = "/api/models/";
    let refusals: [(u16, &str, Is); 7] = [
        (401, "", |it| matches!(it, Failure::Unauthorized)),
        (401, "x-error-code: GatedRepo\r\n", |it| {
            matches!(it, Failure::Gated(401))
        }),
        (401, "x-error-code: RepoNotFound\r\n", |it| {
            matches!(it, Failure::NotFound(401))
        }),
        (403, "x-error-code: GatedRepo\r\n", |it| {
            matches!(it, Failure::Gated(403))
        }),
        (403, "", |it| matches!(it, Failure::Forbidden)),
        (404, "x-error-code: RevisionNotFound\r\n", |it| {
            matches!(it, Failure::NotFound(404))
        }),
        (418, "", |it| matches!(it, Failure::Status(418))),
    ];
    for (status, headers, expected) in refusals {
        let case = Case::plain();
        case.hub.fault(listing, Fault::Status(status, headers), 1);
        let refused = failure(case.get());
        assert!(expected(&refused), "{status} {headers}: {refused:?}");
        assert!(!refused.hint().is_empty());
        assert_eq!(
            case.hub.requests().len(),
            1,
            "{status}: asking again is no use"
        );
    }
    // The terms may be asked for with the files only.
    let case = Case::plain();
    case.hub
        .fault(FIRST, Fault::Status(403, "x-error-code: GatedRepo\r\n"), 9);
    assert!(matches!(failure(case.get()), Failure::Gated(403)));
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    let case = Case::plain();
    case.hub
        .fault("/api/models/", Fault::Status(429, "retry-after: 1\r\n"), 1);
    case.hub
        .fault(SECOND, Fault::Status(503, "retry-after: 0\r\n"), 2);
    case.hub.fault("tokenizer.json", Fault::Status(500, ""), 1);
    let began = std::time::Instant::now();
    whole(&case, &case.get().unwrap());
    assert!(began.elapsed().as_secs_f64() > 1.0);

    let case = Case::plain();
    case.hub.fault(
        "/api/models/",
        Fault::Status(429, "retry-after: 3600\r\n"),
        9,
    );
    let busy = failure(case.get());
    assert!(matches!(
        busy,
        Failure::Busy {
            status: 429,
            seconds: 3600
        }
    ));
    assert_eq!(case.hub.requests().len(), 1, "nobody waits for an hour");
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let case = Case::plain();
    case.hub.fault(FIRST, Fault::Drop(100_000), 3);
    case.hub.fault("config.json", Fault::Drop(1), 1);
    whole(&case, &case.get().unwrap());
    let fetched = case.fetched(FIRST);
    assert_eq!(fetched.len(), 4, "{fetched:?}");
    assert!(fetched[3].ends_with("bytes=300000-"), "{fetched:?}");
}

#[test]
fn a_connection_that_never_brings_anything_is_given_up() {
    let case = Case::plain();
    case.hub.fault(FIRST, Fault::Drop(0), 99);
    assert!(matches!(failure(case.get()), Failure::Transport(_)));
    assert_eq!(case.fetched(FIRST).len(), 5);
}

#[test]
fn another_process_takes_up_what_one_left() {
    let case = Case::plain();
    fs::create_dir_all(case.blobs()).unwrap();
    let bytes = &files()[FIRST];
    fs::write(case.part(FIRST), &bytes[..123_456]).unwrap();
    whole(&case, &case.get().unwrap());
    let fetched = case.fetched(FIRST);
    assert!(fetched[0].ends_with("bytes=123456-"), "{fetched:?}");
    assert_eq!(fetched.len(), 1);
}

#[test]
fn a_part_that_is_wrong_is_fetched_anew() {
    for left in [vec![9; 123_456], vec![9; 700_000], vec![9; 700_001]] {
        let case = Case::plain();
        fs::create_dir_all(case.blobs()).unwrap();
        fs::write(case.part(FIRST), left).unwrap();
        whole(&case, &case.get().unwrap());
    }
}

#[test]
fn a_host_that_knows_no_ranges_sends_all_again() {
    let case = Case::plain();
    case.hub.fault(FIRST, Fault::Drop(100_000), 1);
    case.hub.fault(FIRST, Fault::Whole, 1);
    whole(&case, &case.get().unwrap());
}

#[test]
fn content_that_came_wrong_once_is_fetched_anew() {
    for fault in [
        Fault::Corrupt,
        Fault::Other(vec![1; 5]),
        Fault::Other(vec![1; 999_999]),
    ] {
        let case = Case::plain();
        case.hub.fault(FIRST, fault, 1);
        case.hub.fault("tokenizer.json", Fault::Corrupt, 1);
        whole(&case, &case.get().unwrap());
    }
}

#[test]
fn content_that_stays_wrong_is_refused_and_not_kept() {
    let same_size = vec![1; files()[FIRST].len()];
    for fault in [
        Fault::Corrupt,
        Fault::Other(same_size),
        Fault::Other(vec![1; 5]),
    ] {
        let case = Case::plain();
        case.hub.fault(FIRST, fault, 99);
        match failure(case.get()) {
            Failure::Corrupted {
                file,
                expected,
                found,
            } => {
                assert_eq!(file, FIRST);
                assert_ne!(expected, found);
            }
            other => panic!("{other:?}"),
        }
        assert!(!case.part(FIRST).exists() && !case.part(FIRST).with_extension("").exists());
        let snapshot = case
            .path("home/hub/models--org--name/snapshots")
            .join(COMMIT);
        assert!(!snapshot.join(FIRST).exists());
    }
}

#[test]
fn a_listing_without_digests_is_made_up_for() {
    let case = Case::new(Character {
        silent: true,
        ..Character::default()
    });
    whole(&case, &case.get().unwrap());
    let case = Case::new(Character {
        silent: true,
        ..Character::default()
    });
    case.hub.fault(FIRST, Fault::Corrupt, 99);
    assert!(matches!(failure(case.get()), Failure::Corrupted { .. }));
}

#[test]
fn what_is_no_checkpoint_is_refused_before_anything_comes() {
    for absent in ["config.json", INDEX] {
        let mut bare = files();
        bare.remove(absent);
        let case = Case {
            hub: LoopbackHub::new(bare, Character::default()),
            dir: tempfile::tempdir().unwrap(),
        };
        assert!(
            matches!(failure(case.get()), Failure::NoCheckpoint(_)),
            "{absent}"
        );
        assert_eq!(case.hub.requests().len(), 1);
    }
    let mut other = files();
    other.remove(INDEX);
    other.insert("model.Q4_K_M.gguf".to_owned(), b"GGUF".to_vec());
    let case = Case {
        hub: LoopbackHub::new(other, Character::default()),
        dir: tempfile::tempdir().unwrap(),
    };
    assert!(matches!(failure(case.get()), Failure::OnlyGguf(file) if file == "model.Q4_K_M.gguf"));
    let mut short = files();
    short.remove(SECOND);
    let case = Case {
        hub: LoopbackHub::new(short, Character::default()),
        dir: tempfile::tempdir().unwrap(),
    };
    assert!(matches!(failure(case.get()), Failure::Malformed(reason) if reason.contains(SECOND)));
}

#[test]
fn a_model_that_the_disk_has_no_room_for_is_refused_before_it_comes() {
    let case = Case::plain();
    let exbibyte = 1u64 << 60;
    let mut siblings: Vec<_> = files()
        .keys()
        .map(|name| serde_json::json!({ "rfilename": name }))
        .collect();
    siblings.retain(|file| file["rfilename"] != FIRST);
    siblings.push(serde_json::json!({ "rfilename": FIRST, "size": exbibyte,
        "lfs": { "sha256": "5e".repeat(32), "size": exbibyte } }));
    let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
    let listing = Fault::Other(listing.to_string().into_bytes());
    case.hub.fault("/api/models/", listing, 1);
    match failure(case.get()) {
        Failure::Space { path, expected, .. } => {
            assert!(path.ends_with("home/hub"), "{path}");
            assert!(expected.starts_with("1152922 TB"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
    assert!(case.fetched(FIRST).is_empty() && case.fetched(SECOND).is_empty());
}

#[test]
fn one_file_goes_before_an_index() {
    let mut files = files();
    files.insert("model.safetensors".to_owned(), vec![4; 3000]);
    let case = Case {
        hub: LoopbackHub::new(files.clone(), Character::default()),
        dir: tempfile::tempdir().unwrap(),
    };
    let snapshot = case.get().unwrap();
    assert!(snapshot.dir.join("model.safetensors").exists());
    for absent in [INDEX, FIRST] {
        assert!(!snapshot.dir.join(absent).exists(), "{absent}");
    }
    // An index that another program left asks for no shards.
    fs::write(snapshot.dir.join(INDEX), &files[INDEX]).unwrap();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let offline = case.client("http://127.0.0.1:9", Token::Anonymous, &offline);
    offline.snapshot("org/name", None, &Silent).unwrap();
}

#[test]
fn what_is_no_hub_is_said_to_be_none() {
    let case = Case::plain();
    for (endpoint, path) in [
        ("ftp://x", ""),
        ("nothing", ""),
        (case.hub.endpoint.as_str(), "/x"),
    ] {
        let hub = case.client(&format!("{endpoint}{path}"), Token::Anonymous, &[]);
        let refused = failure(hub.snapshot("org/name", None, &Silent));
        assert!(
            matches!(refused, Failure::Malformed(_) | Failure::NotFound(404)),
            "{refused:?}"
        );
    }
    case.hub.fault(
        "/api/models/",
        Fault::Status(301, "location: /api/models/\r\n"),
        99,
    );
    assert!(matches!(failure(case.get()), Failure::Malformed(_)));
}
