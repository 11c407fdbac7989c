//! `--search`: a plan that was looked for, stopped anywhere, told what it may
//! take, and refused where it could not help.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::program::{repository, Workshop};

/// Statistics of a golden checkpoint, and what plans from them.
struct Searching {
    workshop: Workshop,
    model: String,
    text: String,
    stats: String,
}

impl Searching {
    fn new(family: &str) -> Self {
        let workshop = Workshop::new();
        let searching = Self {
            model: repository(&format!("tests/golden/{family}")),
            text: format!("stories={}", repository("models/demo/held-out/stories.txt")),
            stats: workshop.arg("golden.stats"),
            workshop,
        };
        let args = ["calibrate", "-m", &searching.model, "-o", &searching.stats];
        let text = ["--calibration", &searching.text, "--seq-len", "32"];
        let tokens = ["--calibration-tokens", "4096", "--held-out", "0"];
        searching
            .workshop
            .succeed(&[&args[..], &text, &tokens].concat());
        searching
    }

    /// A search with time enough to end.
    fn plan<'a>(&'a self, search: &'a str, output: &'a str) -> Vec<&'a str> {
        let mut args = vec!["plan", &self.stats, "-m", &self.model];
        args.extend(["--calibration", &self.text, "--prune-experts", "0.5"]);
        args.extend(["--search", search, "--search-tokens", "1024"]);
        args.extend(["--search-time", "1h", "-o", output]);
        args
    }

    /// The file of measured candidates.
    fn journal(&self) -> Option<PathBuf> {
        let mut files = fs::read_dir(self.workshop.path("cache/searches")).ok()?;
        Some(files.next()?.ok()?.path())
    }

    /// Its whole lines.
    fn lines(&self) -> usize {
        let bytes = self.journal().and_then(|path| fs::read(path).ok());
        let bytes = bytes.unwrap_or_default();
        bytes.iter().filter(|&&byte| byte == b'\n').count()
    }
}

#[test]
fn a_killed_search_continues_and_ends_with_the_same_plan() {
    for search in ["evolution", "policy-gradient"] {
        let whole = Searching::new("phimoe");
        let output = whole.workshop.arg("x.plan.json");
        let said = whole.workshop.succeed(&whole.plan(search, &output));
        let expected = fs::read(&output).unwrap();
        assert!(said
            .stderr
            .contains(&format!("Searched    {search}: overlap")));
        assert!(said.stdout.contains("searched"), "{}", said.stdout);

        let torn = Searching::new("phimoe");
        let output = torn.workshop.arg("x.plan.json");
        let args = torn.plan(search, &output);
        let mut kills = 0;
        for wanted in [2, 9, 31] {
            let mut run = torn.workshop.start(&args);
            run.watch(|| torn.lines() >= wanted);
            run.kill();
            kills += usize::from(fs::read(&output).is_err());
        }
        assert!(kills > 0, "no kill came in the middle");
        // As if the last kill had come while a line was written.
        let journal = torn.journal().unwrap();
        let mut bytes = fs::read(&journal).unwrap();
        bytes.extend_from_slice(b"{\"keep\":\"00");
        fs::write(&journal, bytes).unwrap();
        let said = torn.workshop.succeed(&args).stderr;
        assert!(said.contains("candidates are in"), "{said}");
        assert!(fs::read(&output).unwrap() == expected, "{search}");
        // All of it is known now, so nothing is run.
        let said = torn.workshop.succeed(&args).stderr;
        assert!(!said.contains("Evaluating"), "{said}");
        assert!(fs::read(&output).unwrap() == expected, "{search}");
    }
}

#[test]
fn time_that_is_over_makes_a_plan_and_an_interruption_does_not() {
    let workshop = Workshop::new();
    let stats = workshop.arg("demo.stats");
    let tokens = ["--calibration-tokens", "4096", "--seq-len", "128"];
    workshop.succeed(&[&["calibrate", "-o", &stats][..], &tokens].concat());
    let output = workshop.arg("x.plan.json");
    let plan = ["plan", &stats, "--prune-experts", "0.5", "-o", &output];
    let search = ["--search", "evolution", "--search-tokens", "2048"];
    let within = |time: &'static str| [&plan[..], &search, &["--search-time", time]].concat();

    let mut run = workshop.start(&within("1h"));
    run.wait_for("Searching");
    run.interrupt();
    let (code, said) = run.finish();
    assert_eq!(code, Some(130), "{said}");
    let hint = "hint: what was measured is kept; the same command continues";
    assert!(said.contains(hint), "{said}");
    assert!(!workshop.path("x.plan.json").exists());

    workshop.succeed(&within("2s"));
    let first = fs::read(&output).unwrap();
    let read: Value = serde_json::from_slice(&first).unwrap();
    let search = &read["method"]["search"];
    assert_eq!(search["name"], "evolution");
    let overlap = |when: &str| search[when]["overlap"].as_f64().unwrap();
    assert!(overlap("after") >= overlap("before") && overlap("after") < 1.0);
    // Two seconds do not hold four hundred candidates, and the same ones again.
    assert!(search["candidates"].as_u64().unwrap() < 300, "{search}");
    let said = workshop.succeed(&within("2s")).stderr;
    assert!(!said.contains("Evaluating"), "{said}");
    assert!(fs::read(&output).unwrap() == first);
}

#[test]
fn a_sweep_compares_searches_with_allocations() {
    let searching = Searching::new("phimoe");
    let output = searching.workshop.arg("sweep.jsonl");
    let mut args = vec!["eval", "sweep", "-m", &searching.model, "-o", &output];
    let text = ["--calibration", &searching.text, "--text", &searching.text];
    args.extend(text);
    args.extend(["--calibration-tokens", "512", "--eval-tokens", "256"]);
    args.extend(["--seq-len", "32", "--prune-experts", "0.5"]);
    args.extend(["--allocation", "uniform,lamp", "--seeds", "2", "--json"]);
    args.extend(["--search", "all", "--search-tokens", "64"]);
    let summary = searching.workshop.succeed(&args).json();
    let cells = summary["cells"].as_array().unwrap();
    let names: Vec<&str> = cells
        .iter()
        .filter_map(|cell| cell["point"]["allocation"].as_str())
        .collect();
    assert_eq!(
        names,
        ["lamp", "evolution", "policy-gradient"],
        "{summary:#}"
    );
    assert!(cells.iter().all(|cell| cell["seeds"] == 2));
    // As many experts stay, whoever chose them.
    let bytes = |cell: &Value| cell["size"]["bytes"].as_u64().unwrap();
    assert!(cells.iter().all(|cell| bytes(cell) == bytes(&cells[0])));
    // A file goes on with other limits of a search, as other points.
    args.extend(["--search-time", "1h"]);
    let summary = searching.workshop.succeed(&args).json();
    assert_eq!(summary["cells"].as_array().unwrap().len(), cells.len() + 2);
}

#[test]
fn what_a_search_cannot_do_is_refused() {
    let searching = Searching::new("phimoe");
    let workshop = &searching.workshop;
    let refused = |more: &[&str], said: &[&str]| {
        let args = [
            &["plan", &searching.stats, "-m", &searching.model][..],
            more,
        ]
        .concat();
        workshop.run(&args).expect_failure(2, said);
        assert_eq!(searching.lines(), 0);
    };
    let half = ["--prune-experts", "0.5"];
    refused(&["--search", "evolution"], &["--prune-experts"]);
    let many = ["--search", "evolution", "--nested", "0.25,0.5"];
    refused(&many, &["--search: expected one budget", "found --nested"]);
    let loss = ["--search", "evolution", "--max-loss", "0.1"];
    refused(
        &loss,
        &["--search: expected a budget of experts", "--max-loss 0.1"],
    );
    refused(&[&half[..], &["--search", "best"]].concat(), &["evolution"]);
    refused(
        &[&half[..], &["--search-time", "5m"]].concat(),
        &["--search"],
    );
    let never = ["--search", "evolution", "--search-time", "0s"];
    refused(&[&half[..], &never].concat(), &["such as 90s, 5m or 2h"]);
    let layers = ["--drop-layers", "1", "--search", "evolution"];
    refused(&layers, &["--prune-experts"]);

    let until = ["calibrate", "--until-stable", "-o", "x.stats"];
    let until = [&until[..], &half, &["--search", "evolution"]].concat();
    let said = ["--search: expected a budget that statistics decide"];
    workshop.run(&until).expect_failure(2, &said);
}

#[test]
fn what_could_not_be_served_is_not_searched_for() {
    let searching = Searching::new("olmoe");
    let mut args = vec!["serve", "-m", &searching.model, "--port", "0"];
    args.extend(["--calibration", &searching.text, "--seq-len", "32"]);
    args.extend(["--calibration-tokens", "512", "--prune-experts", "0.25"]);
    args.extend(["--search", "evolution"]);
    let finished = searching.workshop.run(&args);
    finished.expect_failure(1, &["cannot be served", "hint: "]);
    assert_eq!(searching.lines(), 0);
}
