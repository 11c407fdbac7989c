//! The configuration file, below the environment, below flags.

use serde_json::Value;

use crate::program::Workshop;

/// What `doctor` found out about one thing.
fn finding(workshop: &Workshop, args: &[&str], variables: &[(&str, &str)], about: &str) -> String {
    let args = [&["doctor", "--json"], args].concat();
    let found = workshop.run_with(&args, variables).json();
    let findings = found["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["about"] == about);
    finding.unwrap()["found"].as_str().unwrap().to_owned()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let workshop = Workshop::new();
    let cache = |args: &[&str], variables: &[(&str, &str)]| {
        let found = finding(&workshop, args, variables, "cache");
        found.split(':').next().unwrap().to_owned()
    };
    let [file, environment, flag] = ["file", "environment", "flag"].map(|name| workshop.arg(name));
    workshop.configure(&format!("cache-dir = '{file}'\n"));
    let some = [("MISTRALRS_PRUNE_CACHE", environment.as_str())];
    assert_eq!(cache(&["--cache-dir", &flag], &some), flag);
    assert_eq!(cache(&[], &some), environment);
    let found = finding(&workshop, &[], &[], "configuration");
    assert_eq!(found, workshop.arg("config/mistralrs-prune/config.toml"));
}

#[test]
fn a_file_may_be_named() {
    let workshop = Workshop::new();
    let path = workshop.arg("other.toml");
    std::fs::write(&path, "[doctor]\nport = 0\njson = true\n").unwrap();
    let found: Value = workshop.succeed(&["doctor", "--config", &path]).json();
    assert!(found.to_string().contains("0 is free"), "{found}");
    let found = workshop.run_with(&["doctor"], &[("MISTRALRS_PRUNE_CONFIG", &path)]);
    assert_eq!(found.code, Some(0));
    found.json();
}

#[test]
fn what_is_required_may_be_in_the_file_and_a_flag_sets_aside_what_it_excludes() {
    let workshop = Workshop::new();
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let model = crate::program::repository("tests/golden/qwen3_moe");
    workshop.configure(&format!(
        "[plan]\nmodel-id = '{model}'\nprune-experts = 0.5\njson = true\n"
    ));
    let kept = |args: &[&str]| {
        let plan = workshop.succeed(&[&["plan", &stats], args].concat()).json();
        plan["after"]["experts_per_layer"][0].as_u64().unwrap()
    };
    let half = kept(&[]);
    assert_eq!(kept(&["--prune-experts", "0.25"]), half * 3 / 2);
    assert_eq!(kept(&["--keep-experts", "7"]), 7);
}
