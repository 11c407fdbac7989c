//! `calibrate --stream-calibrate`, `plan --stream-plan` and `serve
//! --stream-prune`: a model that is never here whole is measured, planned for,
//! pruned and served, to the same bytes.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use serde_json::{json, Value};

use super::journey::{beside, contents, pruned};
use super::sharded::{largest, shard, sharded};
use super::stream::{hub, nothing_hidden, taken, SHARDS};
use crate::program::{repository, Workshop};
use crate::serve::Server;

/// Short work.
const SHORT: [&str; 6] = [
    "--calibration-tokens",
    "4096",
    "--seq-len",
    "128",
    "--batch-tokens",
    "1024",
];

/// Arguments that calibrate the hub's model to `out`.
fn calibration<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["calibrate", "-m", "org/name", "-o", out][..],
        &SHORT,
        more,
    ]
    .concat()
}

/// What calibrating a whole copy gives.
fn whole(workshop: &Workshop) -> Vec<u8> {
    let out = workshop.arg("whole.stats");
    workshop.succeed(&calibration(&out, &[]));
    fs::read(out).unwrap()
}

#[test]
fn statistics_are_those_of_a_whole_copy_and_every_shard_comes_once() {
    let hub = hub(1);
    let workshop = beside(&hub);
    let out = workshop.arg("streamed.stats");
    let args = calibration(&out, &["--stream-calibrate"]);
    let peak = Cell::new(0);
    let mut run = workshop.start(&args);
    run.watch(|| {
        peak.set(
            peak.get()
                .max(taken(&workshop.path(".streamed.stats.streaming"))),
        );
        false
    });
    let (code, said) = run.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("each once; at most"), "{said}");
    for number in 1..=SHARDS {
        assert_eq!(hub.downloads(&shard(number, SHARDS)), 1, "{number}");
    }
    // Shards and what belongs to the small files.
    let bound = 2 * largest(&sharded(SHARDS)) + (1 << 20);
    assert!(peak.get() <= bound, "{} of {bound}", peak.get());
    nothing_hidden(&workshop);
    assert!(!workshop.path("streamed.stats.partial").exists());
    assert!(fs::read(&out).unwrap() == whole(&workshop));
}

#[test]
fn a_killed_stream_goes_on_with_the_block_it_was_at() {
    let hub = hub(2);
    let workshop = beside(&hub);
    let expected = whole(&workshop);
    let before: Vec<usize> = downloads(&hub);
    let out = workshop.arg("killed.stats");
    let args = calibration(&out, &["--stream-calibrate"]);
    let depth = || -> Option<u64> {
        let mark = fs::read(workshop.path("killed.stats.partial/run.json")).ok()?;
        serde_json::from_slice::<Value>(&mark).ok()?["depth"].as_u64()
    };
    let mut kills = 0;
    for wanted in [0, 2, 4, 5] {
        let mut run = workshop.start(&args);
        run.watch(|| depth() >= Some(wanted));
        run.kill();
        kills += usize::from(!workshop.path("killed.stats").exists());
    }
    assert!(kills > 2, "{kills} kills came before the end");
    workshop.succeed(&args);
    assert!(fs::read(&out).unwrap() == expected);
    nothing_hidden(&workshop);
    // Each kill cost the shards of one block at most.
    let again: usize = downloads(&hub)
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before - 1)
        .sum();
    assert!(again <= 3 * 4, "{again} shards came again");
}

fn downloads(hub: &super::server::LoopbackHub) -> Vec<usize> {
    (1..=SHARDS)
        .map(|number| hub.downloads(&shard(number, SHARDS)))
        .collect()
}

#[test]
fn plans_need_no_weights() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let (stats, plan) = (workshop.arg("a.stats"), workshop.arg("a.plan.json"));
    workshop.succeed(&calibration(&stats, &["--stream-calibrate"]));
    let came = downloads(&hub);
    let args = ["plan", &stats, "-m", "org/name", "--prune-experts", "0.5"];
    let streamed = [&args[..], &["--stream-plan", "-o", &plan]].concat();
    workshop.succeed(&streamed);
    assert_eq!(downloads(&hub), came);
    let local = workshop.arg("b.plan.json");
    workshop.succeed(&[&args[..], &["-o", &local]].concat());
    assert!(fs::read(&plan).unwrap() == fs::read(local).unwrap());

    let other = workshop.calibrate("mixtral", &[]).display().to_string();
    let mut wrong = streamed.clone();
    wrong[1] = &other;
    workshop
        .run(&wrong)
        .expect_failure(1, &["statistics disagree on the family of the model"]);
    let measuring = [
        &streamed[..],
        &["--drop-layers", "1", "--layer-criterion", "greedy"],
    ];
    workshop
        .run(&measuring.concat())
        .expect_failure(1, &["found only the header", "hint:"]);
    let model = repository("models/demo");
    let mut here = streamed.clone();
    here[3] = &model;
    workshop
        .run(&here)
        .expect_failure(2, &["--stream-plan", "a model on the hub"]);
}

/// Arguments of `serve`, short work.
fn half<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["-m", "org/name", "--prune-experts", "0.5"];
    args.extend(SHORT);
    args.extend(more);
    args
}

#[test]
fn a_model_is_served_that_was_never_here_whole() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let args = half(&["--stream-prune"]);
    let server = Server::start(&workshop, &args, None);
    let answer: Value = server
        .post(
            "/v1/chat/completions",
            &json!({ "model": "name-reap-0.5", "max_tokens": 4,
                "messages": [{ "role": "user", "content": "Tell me a story." }] }),
        )
        .json()
        .unwrap();
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    server.stop();
    assert_eq!(downloads(&hub), [2; SHARDS], "to calibrate, then to prune");
    assert!(!workshop.path("hf").exists());
    let streams = taken(&workshop.path("cache/streams"));
    assert!(streams < 2 << 20, "{streams} bytes are left");
    let streamed = contents(&pruned(&workshop).unwrap());

    // What is there is there.
    Server::start(&workshop, &args, None).stop();
    assert_eq!(downloads(&hub), [2; SHARDS]);

    let other = beside(&hub);
    Server::start(&other, &half(&["--no-eval"]), None).stop();
    assert!(contents(&pruned(&other).unwrap()) == streamed);

    let refused = workshop.run(&[&["serve", "--port", "0"], &args[..], &["--fit", "1GB"]].concat());
    assert_ne!(refused.code, Some(0));
}

#[test]
fn with_a_plan_every_shard_comes_once_to_be_served() {
    let hub = hub(0);
    let workshop = beside(&hub);
    let (stats, plan) = (workshop.arg("a.stats"), workshop.arg("a.plan.json"));
    workshop.succeed(&calibration(&stats, &["--stream-calibrate"]));
    let args = ["plan", &stats, "-m", "org/name", "--prune-experts", "0.5"];
    workshop.succeed(&[&args[..], &["--stream-plan", "-o", &plan]].concat());
    let args = ["-m", "org/name", "--plan", &plan, "--stream-prune"];
    Server::start(&workshop, &args, None).stop();
    assert_eq!(downloads(&hub), [2; SHARDS]);
    assert!(Path::new(&pruned(&workshop).unwrap())
        .join("README.md")
        .exists());
    let bare = ["serve", "--port", "0", "-m", "org/name", "--stream-prune"];
    workshop
        .run(&bare)
        .expect_failure(2, &["--stream-prune", "--plan"]);
}
