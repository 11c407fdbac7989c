//! `doctor`, and data for programs from every verb that prints some.

use std::net::TcpListener;

use serde_json::Value;

use crate::program::{repository, Workshop};

fn state(found: &Value, about: &str) -> String {
    let findings = found["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["about"] == about);
    finding.unwrap()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_machine_is_described_and_what_is_wrong_is_an_exit_code() {
    let workshop = Workshop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = workshop.succeed(&["doctor", "--port", &port]);
    assert!(said.stdout.contains("cores, ") || said.stdout.contains("core, "));
    assert!(
        said.stdout.contains("hint: another program listens there"),
        "{}",
        said.stdout
    );
    assert_eq!(said.stderr, "");
    assert!(!workshop.path("cache").exists(), "nothing is written");

    let model = workshop.copy_of("qwen3_moe").display().to_string();
    let found = workshop.succeed(&["doctor", "--json", "-m", &model]).json();
    assert_eq!(found["ok"], true);
    for (about, expected) in [
        ("calibrated", "ok"),
        ("served", "ok"),
        ("uqff", "ok"),
        ("chat template", "warning"),
    ] {
        assert_eq!(state(&found, about), expected, "{found:#}");
    }
    std::fs::remove_file(workshop.path("qwen3_moe/tokenizer.json")).unwrap();
    let failed = workshop.run(&["doctor", "--json", "-m", &model]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.json()["ok"], false);
    assert_eq!(state(&failed.json(), "calibrated"), "error");

    let olmoe = repository("tests/golden/olmoe");
    let found = workshop.succeed(&["doctor", "--json", "-m", &olmoe]).json();
    assert_eq!(state(&found, "served"), "warning");
    let lost = workshop
        .succeed(&["doctor", "--json", "-m", "org/name"])
        .json();
    assert_eq!(state(&lost, "model"), "warning");
}

#[test]
fn the_hub_is_asked_only_on_demand() {
    let workshop = Workshop::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let ask = |args: &[&str]| {
        let args = [&["doctor", "--json", "--token-source", "none"], args].concat();
        workshop.run_with(
            &args,
            &[("HF_ENDPOINT", &address), ("HF_HOME", &workshop.arg("hf"))],
        )
    };
    let quiet = ask(&[]);
    assert_eq!(quiet.code, Some(0));
    assert!(!quiet.stdout.contains("network"));
    let asked = ask(&["--network"]);
    assert_eq!(asked.code, Some(1));
    assert_eq!(state(&asked.json(), "network"), "error");
}

#[test]
fn calibrating_merging_and_reporting_print_json_for_programs() {
    let workshop = Workshop::new();
    let (model, text) = (
        repository("tests/golden/qwen3_moe"),
        repository("models/demo/held-out/stories.txt"),
    );
    let mut parts = Vec::new();
    for part in ["1/2", "2/2"] {
        let output = workshop.arg(&format!("{}.stats", &part[..1]));
        let mut args = vec!["calibrate", "-m", &model, "--calibration", &text, "--json"];
        args.extend([
            "--calibration-tokens",
            "1024",
            "--seq-len",
            "64",
            "--batch-tokens",
            "256",
            "--shard",
            part,
            "-o",
            &output,
        ]);
        let made = workshop.succeed(&args);
        assert_eq!(made.json()["output"], output.as_str());
        assert_eq!(made.json()["provenance"]["model"], "qwen3_moe");
        assert!(made.stderr.contains("Calibrated"));
        parts.push(output);
    }
    let all = workshop.arg("all.stats");
    let merged = workshop.succeed(&[
        "stats", "merge", &parts[0], &parts[1], "-o", &all, "--json", "-q",
    ]);
    assert!(merged.json()["tokens"].as_u64() > Some(900));
    assert_eq!(merged.stderr, "", "quiet");
    let page = workshop.arg("page.html");
    let made = workshop
        .succeed(&["report", "--stats", &all, "-o", &page, "--json"])
        .json();
    assert_eq!(made["output"], page.as_str());
    assert!(made["figures"].as_array().unwrap().len() > 1, "{made}");
}

#[test]
fn colour_is_for_terminals_or_if_it_is_forced() {
    let workshop = Workshop::new();
    let coloured = |variables: &[(&str, &str)]| {
        let said = workshop.run_with(&["inspect", "none"], variables).stderr;
        said.contains('\x1b')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
