//! From a hub and an empty cache to an answer, as a user goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::server::{Character, LoopbackHub, COMMIT};
use crate::program::{repository, Workshop};
use crate::serve::Server;

/// Moments at which the way is cut off.
const KILLS: usize = 20;

/// The demo model, as the repository `org/name`.
fn demo() -> BTreeMap<String, Vec<u8>> {
    files("models/demo")
}

/// The files of a model in this repository.
pub(super) fn files(model: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(repository(model)).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// A folder whose runs see `hub` and nothing of this machine's own cache.
pub(super) fn beside(hub: &LoopbackHub) -> Workshop {
    let mut workshop = Workshop::new();
    let home = workshop.arg("hf");
    workshop.set("HF_HOME", home);
    workshop.set("HF_HUB_CACHE", String::new());
    workshop.set("HF_TOKEN", String::new());
    workshop.set("HF_HUB_OFFLINE", String::new());
    workshop.set("HF_ENDPOINT", hub.endpoint.clone());
    workshop
}

/// Arguments of `serve`, short work.
const HALF: [&str; 12] = [
    "-m",
    "org/name",
    "--prune-experts",
    "0.5",
    "--calibration-tokens",
    "8192",
    "--eval-tokens",
    "2048",
    "--seq-len",
    "128",
    "--batch-tokens",
    "1024",
];

/// The only checkpoint in the cache of `workshop`.
pub(super) fn pruned(workshop: &Workshop) -> Option<PathBuf> {
    let keys = fs::read_dir(workshop.path("cache/checkpoints")).ok()?;
    let names = keys.flat_map(|key| fs::read_dir(key.unwrap().path()).unwrap());
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let paths = names.map(|name| name.unwrap().path());
    let mut found = paths.filter(|path| !hidden(path));
    let first = found.next();
    assert_eq!(found.next(), None);
    first
}

pub(super) fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn a_model_is_served_from_its_id_however_often_it_is_killed() {
    let pace = Duration::from_millis(3);
    let slow = Character {
        pace,
        ..Character::default()
    };
    let hub = LoopbackHub::new(demo(), slow);
    let whole = beside(&hub);
    Server::start(&whole, &HALF, None).stop();
    let expected = contents(&pruned(&whole).unwrap());

    let killed = beside(&hub);
    let args = [&["serve", "--port", "0"], &HALF[..]].concat();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut on_the_way = 0;
    for _ in 0..KILLS {
        let run = killed.start(&args);
        std::thread::sleep(Duration::from_millis(random.random_range(20..600)));
        run.kill();
        match pruned(&killed) {
            None => on_the_way += 1,
            Some(dir) => assert!(contents(&dir) == expected),
        }
    }
    assert!(
        on_the_way > KILLS / 4,
        "{on_the_way} kills came before the end"
    );
    let server = Server::start(&killed, &HALF, None);
    let answer: serde_json::Value = server
        .post(
            "/v1/chat/completions",
            &json!({ "model": "name-reap-0.5", "max_tokens": 4,
                "messages": [{ "role": "user", "content": "Tell me a story." }] }),
        )
        .json()
        .unwrap();
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    server.stop();
    assert!(contents(&pruned(&killed).unwrap()) == expected);

    // From here on the hub is not needed.
    let mut offline = beside(&hub);
    offline.set("HF_HOME", killed.arg("hf"));
    offline.set("HF_HUB_OFFLINE", "1".to_owned());
    let requests = hub.requests().len();
    let pulled = offline.succeed(&["pull", "org/name", "--json"]).json();
    assert_eq!(pulled["commit"], COMMIT);
    assert_eq!(hub.requests().len(), requests);
}

#[test]
fn pull_says_where_the_files_are() {
    let hub = LoopbackHub::new(demo(), Character::default());
    let workshop = beside(&hub);
    for id in ["org/name", &format!("org/name@{COMMIT}")] {
        let pulled = workshop.succeed(&["pull", id]);
        let dir = PathBuf::from(pulled.stdout.trim());
        assert!(dir.ends_with(COMMIT), "{}", dir.display());
        let weights = "model.safetensors";
        assert!(fs::read(dir.join(weights)).unwrap() == demo()[weights]);
    }
    let twice = ["pull", "org/name@main", "--revision", "v1"];
    workshop
        .run(&twice)
        .expect_failure(2, &["--revision", "names main", "found v1"]);
    let nothing = workshop.run(&["pull", "org/nothing"]);
    nothing.expect_failure(1, &["no such model or revision", "hint:"]);
    let path = workshop.run(&["pull", "./dir"]);
    path.expect_failure(1, &["./dir", "hint:"]);
}

#[test]
fn a_pruned_checkpoint_is_pushed_with_its_card() {
    let hub = LoopbackHub::new(demo(), Character::default());
    let workshop = beside(&hub);
    let plan = workshop.plan("mixtral").display().to_string();
    let (model, out) = (repository("tests/golden/mixtral"), workshop.arg("out"));
    let prune = [
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &out,
        "--no-eval",
    ];
    workshop.succeed(&prune);
    let pushed = workshop.succeed(&["push", &out, "org/name"]);
    assert_eq!(pushed.stdout.trim(), "https://hub/org/name/commit/1");
    assert!(hub.pushed().commits() == [contents(Path::new(&out))]);
    let empty = workshop.arg("cache");
    workshop
        .run(&["push", &empty, "org/name"])
        .expect_failure(1, &[&empty, "No such file", "hint:"]);
}
