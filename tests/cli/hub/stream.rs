//! `prune --stream-prune`: what comes of it is what comes of pruning a model
//! that is here, however often it is cut off, and the disk never has the whole
//! model.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::journey::{self, beside, contents};
use super::server::{Character, Fault, LoopbackHub, COMMIT};
use super::sharded::{largest, shard, sharded, split, Files};
use crate::program::{repository, Workshop};

pub(super) const SHARDS: usize = 8;

/// Moments at which a pruning is cut off.
const KILLS: usize = 12;

pub(super) fn hub(pace: u64) -> LoopbackHub {
    let character = Character {
        pace: Duration::from_millis(pace),
        ..Character::default()
    };
    LoopbackHub::new(sharded(SHARDS), character)
}

/// A plan for the demo model that keeps half of its experts.
fn plan(workshop: &Workshop) -> String {
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let (stats, plan) = (workshop.arg("demo.stats"), workshop.arg("half.plan.json"));
    let mut args = vec!["calibrate", "--calibration", &text, "-o", &stats];
    args.extend(["--calibration-tokens", "1024", "--seq-len", "64"]);
    workshop.succeed(&args);
    workshop.succeed(&["plan", &stats, "--prune-experts", "0.5", "-o", &plan]);
    plan
}

/// Arguments that stream to `out`.
fn streamed<'a>(plan: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut args = vec!["prune", "-m", "org/name", "--plan", plan, "-o", out];
    args.push("--stream-prune");
    args
}

/// What plain pruning writes to `whole`.
fn plain(workshop: &Workshop, plan: &str, more: &[&str]) -> Files {
    let out = workshop.arg("whole");
    let mut args = vec!["prune", "-m", "org/name", "--plan", plan, "-o", &out];
    args.push("--no-eval");
    args.extend(more);
    workshop.succeed(&args);
    contents(Path::new(&out))
}

/// Nothing is left but what was there before and the result.
pub(super) fn nothing_hidden(workshop: &Workshop) {
    let entries = fs::read_dir(workshop.path("")).unwrap();
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name}");
    }
}

fn absent(workshop: &Workshop, out: &str) {
    assert!(!workshop.path(out).exists());
}

#[test]
fn every_layout_has_the_bytes_of_a_model_that_is_here() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    for layout in [
        &["--layout", "hf"][..],
        &["--layout", "engine"],
        &["--layout", "uqff"],
        &["--layout", "gguf"],
        &[
            "--layout",
            "uqff",
            "--uqff-weights",
            "q4k",
            "--uqff-device",
            "gpu",
        ],
    ] {
        let out = workshop.arg("out");
        let json = [&streamed(&plan, &out)[..], layout, &["--json"]].concat();
        let said = workshop.succeed(&json);
        assert!(
            said.stderr.contains("the loss is not measured"),
            "{}",
            said.stderr
        );
        let written = said.json();
        assert_eq!(written["commit"], COMMIT);
        assert_eq!(written["evaluation"], Value::Null);
        let found = contents(Path::new(&out));
        let expected = plain(&workshop, &plan, layout);
        assert!(found.keys().eq(expected.keys()), "{layout:?}");
        for (name, bytes) in &expected {
            assert!(found[name] == *bytes, "{layout:?}: {name}");
        }
        assert!(String::from_utf8_lossy(&found["README.md"]).contains("Not measured"));
        nothing_hidden(&workshop);
        for name in ["out", "whole"] {
            fs::remove_dir_all(workshop.path(name)).unwrap();
        }
    }
}

/// Experts in stacks and one by one, in blocks of fp8, and a bias whose values
/// decide what is written.
#[test]
fn families_that_are_stored_otherwise_stream_too() {
    for (family, layouts) in [
        ("deepseek_v3", &["hf", "engine"][..]),
        ("glm4_moe", &["engine"]),
        ("qwen3_vl_moe", &["hf", "engine"]),
        ("mixtral", &["hf", "uqff"]),
    ] {
        let files = split(journey::files(&format!("tests/golden/{family}")), 5);
        let hub = LoopbackHub::new(files, Character::default());
        let workshop = beside(&hub);
        let plan = workshop.plan(family).display().to_string();
        for layout in layouts {
            let out = workshop.arg(&format!("out-{layout}"));
            let layout = ["--layout", layout];
            workshop.succeed(&[&streamed(&plan, &out)[..], &layout].concat());
            let expected = plain(&workshop, &plan, &layout);
            assert!(contents(Path::new(&out)) == expected, "{family} {layout:?}");
            fs::remove_dir_all(workshop.path("whole")).unwrap();
        }
    }
}

#[test]
fn a_streamed_pruning_ends_with_the_same_bytes_however_often_it_is_killed() {
    let hub = hub(2);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let expected = plain(&workshop, &plan, &[]);
    let out = workshop.arg("killed");
    let args = streamed(&plan, &out);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let mut on_the_way = 0;
    for _ in 0..KILLS {
        let run = workshop.start(&args);
        std::thread::sleep(Duration::from_millis(random.random_range(20..400)));
        run.kill();
        if workshop.path("killed").exists() {
            assert!(contents(Path::new(&out)) == expected);
            fs::remove_dir_all(&out).unwrap();
        } else {
            on_the_way += 1;
        }
    }
    assert!(
        on_the_way > KILLS / 3,
        "{on_the_way} kills came before the end"
    );
    workshop.succeed(&args);
    assert!(contents(Path::new(&out)) == expected);
    nothing_hidden(&workshop);
}

#[test]
fn finished_shards_are_not_fetched_again() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let out = workshop.arg("out");
    let args = streamed(&plan, &out);
    // The header comes, the shard does not.
    let fifth = shard(5, SHARDS);
    hub.fault(&fifth, Fault::Drop(1 << 16), 1);
    hub.fault(&fifth, Fault::Status(403, ""), 1);
    let refused = workshop.run(&args);
    refused.expect_failure(1, &["does not give access", "hint:"]);
    absent(&workshop, "out");
    let before = hub.requests().len();
    let resumed = workshop.succeed(&args);
    assert!(
        resumed.stderr.contains("from shard 5 on"),
        "{}",
        resumed.stderr
    );
    let requests = hub.requests().split_off(before);
    let fetched = |number| {
        let name = shard(number, SHARDS);
        requests.iter().any(|request| request.contains(&name))
    };
    for number in 1..=4 {
        assert!(!fetched(number), "{number}: {requests:?}");
    }
    for number in 5..=SHARDS {
        assert!(fetched(number), "{number}");
    }
    assert!(contents(Path::new(&out)) == plain(&workshop, &plan, &[]));
}

#[test]
fn an_interrupted_stream_says_how_to_go_on() {
    let hub = hub(5);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let out = workshop.arg("out");
    let mut run = workshop.start(&streamed(&plan, &out));
    run.wait_for("Streaming");
    run.interrupt();
    let (code, said) = run.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("hint: finished shards are kept"), "{said}");
    assert!(workshop.path(".out.streaming").exists());
    absent(&workshop, "out");
}

#[test]
fn a_spoilt_shard_is_never_used() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let out = workshop.arg("out");
    let args = streamed(&plan, &out);
    let third = shard(3, SHARDS);
    let size = sharded(SHARDS)[&third].len();
    for (fault, times, said) in [
        (Fault::Corrupt, 99, "expected sha256"),
        (Fault::Other(vec![7; size]), 99, "header"),
        (Fault::Other(vec![7; size + 1]), 99, "bytes, found"),
    ] {
        hub.fault(&third, fault, times);
        let refused = workshop.run(&args);
        refused.expect_failure(1, &[said]);
        absent(&workshop, "out");
        hub.heal();
    }
    // What breaks off is taken up.
    hub.fault(&third, Fault::Drop(100_000), 3);
    workshop.succeed(&args);
    assert!(contents(Path::new(&out)) == plain(&workshop, &plan, &[]));
}

#[test]
fn a_shard_with_another_header_than_came_first_is_refused_and_then_planned_with() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let out = workshop.arg("out");
    let args = streamed(&plan, &out);
    let third = shard(3, SHARDS);
    // A header as long and as sound, of which two tensors have changed places.
    let whole = sharded(SHARDS)[&third].clone();
    let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let text = std::str::from_utf8(&whole[8..8 + length]).unwrap();
    let swapped = text
        .replace("gate_proj", "????_proj")
        .replace(".up_proj", ".gate_proj")
        .replace("????_proj", "up_proj");
    assert_eq!(swapped.len(), text.len());
    assert_ne!(swapped, text);
    let other = [&whole[..8], swapped.as_bytes(), &whole[8 + length..]].concat();
    hub.fault(&third, Fault::Other(other), 1);
    let refused = workshop.run(&args);
    refused.expect_failure(1, &["its header as it came first", "hint:"]);
    absent(&workshop, "out");
    workshop.succeed(&args);
    assert!(contents(Path::new(&out)) == plain(&workshop, &plan, &[]));
}

#[test]
fn a_plan_of_another_model_leaves_nothing() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let out = workshop.arg("out");
    // Another family is seen at once, another model of one shape at the end.
    let other = workshop.plan("mixtral").display().to_string();
    let refused = workshop.run(&streamed(&other, &out));
    refused.expect_failure(1, &["mixtral"]);
    let path = plan(&workshop);
    let mut edited: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edited["model"]["fingerprint"] = "5e".repeat(32).into();
    fs::write(&path, edited.to_string()).unwrap();
    let refused = workshop.run(&streamed(&path, &out));
    refused.expect_failure(1, &["was made for model 5e5e", "hint:"]);
    absent(&workshop, "out");
    nothing_hidden(&workshop);
}

#[test]
fn the_work_of_another_plan_is_not_gone_on_with() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    let out = workshop.arg("out");
    let args = streamed(&plan, &out);
    hub.fault(&shard(7, SHARDS), Fault::Drop(1 << 16), 1);
    hub.fault(&shard(7, SHARDS), Fault::Status(403, ""), 1);
    assert_ne!(workshop.run(&args).code, Some(0));
    let other = [&args[..], &["--layout", "engine"]].concat();
    let refused = workshop.run(&other);
    refused.expect_failure(1, &["layout engine", "layout hf", "--force"]);
    let forced = workshop.succeed(&[&other[..], &["--force"]].concat());
    assert!(forced.stderr.contains("Discarded"), "{}", forced.stderr);
    assert!(contents(Path::new(&out)) == plain(&workshop, &plan, &["--layout", "engine"]));
}

#[test]
fn what_cannot_be_streamed_is_refused_before_anything_comes() {
    let hub = hub(0);
    let mut workshop = beside(&hub);
    let plan = plan(&workshop);
    let (out, model) = (workshop.arg("out"), repository("models/demo"));
    let mut local = streamed(&plan, &out);
    local[2] = &model;
    let refused = workshop.run(&local);
    refused.expect_failure(2, &["--stream-prune", "a model on the hub", &model]);
    let measured = [&streamed(&plan, &out)[..], &["--eval-tokens", "512"]].concat();
    assert_eq!(workshop.run(&measured).code, Some(2));
    assert_eq!(hub.requests(), [""; 0]);

    let mut index: Value =
        serde_json::from_slice(&sharded(SHARDS)["model.safetensors.index.json"]).unwrap();
    let exbibyte = 1u64 << 60;
    let names = index["weight_map"].as_object_mut().unwrap();
    let siblings: Vec<Value> = names
        .values()
        .chain(&["config.json".into(), "model.safetensors.index.json".into()])
        .map(|name| {
            serde_json::json!({ "rfilename": name, "size": exbibyte,
                "lfs": { "sha256": "5e".repeat(32), "size": exbibyte } })
        })
        .map(|mut file| {
            if file["rfilename"].as_str().unwrap().ends_with(".json") {
                file = serde_json::json!({ "rfilename": file["rfilename"] });
            }
            file
        })
        .collect();
    let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
    let listing = Fault::Other(listing.to_string().into_bytes());
    hub.fault("/api/models/", listing, 1);
    let refused = workshop.run(&streamed(&plan, &out));
    refused.expect_failure(1, &["of free space", "1152922 TB", "hint:"]);

    for (fault, said) in [
        (Fault::Status(401, ""), "wants a token"),
        (Fault::Status(404, ""), "no such model or revision"),
    ] {
        hub.fault("/api/models/", fault, 1);
        workshop
            .run(&streamed(&plan, &out))
            .expect_failure(1, &[said, "hint:"]);
    }
    workshop.set("HF_HUB_OFFLINE", "1".to_owned());
    workshop
        .run(&streamed(&plan, &out))
        .expect_failure(1, &["HF_HUB_OFFLINE is set"]);
    absent(&workshop, "out");
    nothing_hidden(&workshop);
}

/// Bytes of the blocks of all files in a folder that changes meanwhile.
pub(super) fn taken(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => taken(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(|entry| entry.ok().map(of)).sum()
}

#[test]
fn the_disk_never_has_more_than_the_result_and_two_shards() {
    let hub = hub(1);
    let workshop = beside(&hub);
    let plan = plan(&workshop);
    for layout in ["hf", "engine"] {
        let out = workshop.arg(&format!("out-{layout}"));
        let before = taken(&workshop.path(""));
        let peak = Cell::new(0);
        let args = [&streamed(&plan, &out)[..], &["--layout", layout]].concat();
        let mut run = workshop.start(&args);
        run.watch(|| {
            peak.set(peak.get().max(taken(&workshop.path(""))));
            false
        });
        let (code, said) = run.finish();
        assert_eq!(code, Some(0), "{said}");
        let (peak, result) = (peak.get() - before, taken(Path::new(&out)));
        let bound = result + 2 * largest(&sharded(SHARDS));
        assert!(peak <= bound, "{layout}: {peak} of {bound}");
        // The measure sees what is there: shards come whole.
        assert!(peak > result, "{layout}: {peak} of {result}");
    }
}
