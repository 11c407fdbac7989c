//! The verbs one after another, and that their JSON is JSON.

use std::fs;
use std::path::Path;

use router_stats::stats::Stats;

use crate::program::{repository, Workshop};

#[test]
fn from_statistics_to_a_smaller_checkpoint() {
    for (family, before, after) in [("qwen3_moe", 8, 4), ("mixtral", 6, 3)] {
        let workshop = Workshop::new();
        let model = repository(&format!("tests/golden/{family}"));

        let stats = workshop.calibrate(family, &[]).display().to_string();
        let shown = workshop.succeed(&["inspect", &stats, "--json"]).json();
        assert_eq!(shown["kind"], "stats");
        assert_eq!(shown["provenance"]["domains"][0]["tokens"], 1024);
        let table = workshop.succeed(&["inspect", &stats]).stdout;
        assert!(table.contains("stories"), "{table}");

        let plan = workshop.arg("half.plan.json");
        let asked = ["--prune-experts", "0.5", "--json", "-o", &plan];
        let args = [&["plan", &stats, "-m", &model][..], &asked].concat();
        let printed = workshop.succeed(&args).json();
        assert_eq!(printed["after"]["experts_per_layer"][0], after);
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
        assert_eq!(printed, read);
        assert_eq!(workshop.succeed(&["inspect", &plan, "--json"]).json(), read);

        let out = workshop.arg("half");
        let args = ["prune", "-m", &model, "--plan", &plan, "-o", &out];
        let written = workshop.succeed(&[&args[..], &["--no-eval", "--json"]].concat());
        assert_eq!(written.json()["bytes"], printed["after"]["bytes"]);
        for (directory, experts) in [(&model, before), (&out, after)] {
            let shown = workshop.succeed(&["inspect", directory, "--json"]).json();
            assert_eq!(shown["kind"], "checkpoint");
            assert_eq!(shown["family"], family);
            assert_eq!(shown["size"]["experts_per_layer"][0], experts);
        }
        // A second time, only when asked for.
        let again = [&args[..], &["--no-eval"]].concat();
        let refused = workshop.run(&again);
        refused.expect_failure(1, &["already exists", "hint: --force"]);
        workshop.succeed(&[&again[..], &["--force"]].concat());
    }
}

#[test]
fn a_size_is_met_and_one_expert_more_would_not_fit() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let plan = |asked: &[&str]| {
        let args = [&["plan", &stats, "-m", &model, "--json"], asked].concat();
        workshop.succeed(&args).json()
    };
    let keeping = |kept: &str| plan(&["--keep-experts", kept])["after"].clone();
    let (five, six) = (keeping("5"), keeping("6"));
    let bytes = |size: &serde_json::Value| size["bytes"].as_u64().unwrap();
    let target = bytes(&six) - 1;

    let file = workshop.arg("small.plan.json");
    let made = plan(&["--target-size", &target.to_string(), "-o", &file]);
    assert_eq!(made["after"], five);
    assert_eq!(made["method"]["asked"]["target"]["bytes"], target);
    assert_eq!(made["method"]["asked"]["experts"]["keep"], 5);
    let parameters = five["parameters"].to_string();
    assert_eq!(plan(&["--target-params", &parameters])["after"], five);

    let out = workshop.path("small");
    let args = ["prune", "-m", &model, "--plan", &file, "--no-eval", "-o"];
    workshop.succeed(&[&args[..], &[&workshop.arg("small")]].concat());
    let stored = fs::metadata(out.join("model.safetensors")).unwrap().len();
    let header = stored - bytes(&five);
    assert!(bytes(&five) <= target && header < 64 << 10, "{header}");

    let whole = ["plan", &stats, "-m", &model, "--target-size", "1GB"];
    let kept = workshop.succeed(&whole);
    assert!(
        kept.stderr.contains("no expert has to go"),
        "{}",
        kept.stderr
    );
    let small = ["plan", &stats, "-m", &model, "--target-size", "1kB"];
    workshop.run(&small).expect_failure(
        2,
        &["the smallest this model can be is", "hint: drop layers"],
    );
}

#[test]
fn a_loss_is_not_exceeded_and_one_expert_fewer_would() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let plan = |most: &str| {
        let args = ["plan", &stats, "-m", &model, "--max-loss", most, "--json"];
        workshop.succeed(&[&args[..], &["--text", &text, "--eval-tokens", "512"]].concat())
    };
    let all = plan("1000");
    assert_eq!(all.json()["after"]["experts_per_layer"][0], 2);
    assert_eq!(all.json()["method"]["asked"]["max_loss"], 1000.0);
    assert_eq!(all.json()["method"]["asked"]["experts"]["keep"], 2);
    // What the last step measured is the loss of this plan: just below it, more
    // stays.
    let said = all
        .stderr
        .lines()
        .find(|line| line.contains("2 experts a layer"));
    let percent = said.unwrap().split("perplexity ").nth(1).unwrap();
    let percent: f64 = percent.split('%').next().unwrap().parse().unwrap();
    let less = plan(&(percent / 100.0 - 0.0002).max(0.0).to_string());
    let kept = less.json()["after"]["experts_per_layer"][0].as_u64();
    assert!(kept.unwrap() > 2, "{percent}: {}", less.stderr);
    assert!(less.stderr.contains("beyond"), "{}", less.stderr);
}

#[test]
fn a_plan_costs_what_its_checkpoint_costs() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    // A report names plans and checkpoints by their files.
    let plan = workshop.arg("masked.plan.json");
    fs::rename(workshop.plan("qwen3_moe"), &plan).unwrap();
    let out = workshop.arg("sliced");
    workshop.succeed(&[
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &out,
        "--no-eval",
    ]);
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let mut args = vec!["eval", "-m", &model, "--plan", &plan, "--checkpoint", &out];
    args.extend([
        "--text",
        &text,
        "--eval-tokens",
        "512",
        "--seq-len",
        "64",
        "--json",
    ]);
    let evaluated = workshop.succeed(&args);
    let report = evaluated.json();
    let perplexity = |index: usize| {
        let variant = &report["variants"][index]["all"]["perplexity"];
        variant["value"].as_f64().unwrap()
    };
    assert!(perplexity(0) > 1.0);
    assert!((perplexity(0) / perplexity(1) - 1.0).abs() < 1e-5);
    let path = workshop.path("report.json");
    fs::write(&path, &evaluated.stdout).unwrap();
    let shown = workshop.succeed(&["inspect", &workshop.arg("report.json"), "--json"]);
    assert_eq!(shown.json(), report);
}

#[test]
fn a_measured_loss_stays_with_the_checkpoint() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let (out, report) = (
        workshop.arg("half"),
        workshop.path("half/pruning_report.json"),
    );
    let args = ["prune", "-m", &model, "--plan", &plan, "-o", &out, "--json"];
    let measured = ["--text", &text, "--eval-tokens", "512"];
    let written = workshop.succeed(&[&args[..], &measured].concat()).json();
    let stored: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert!(stored["variants"][0]["all"]["perplexity_change"].is_object());
    assert_eq!(written["evaluation"], stored);
    // Another checkpoint in its place has its own loss, or none.
    workshop.succeed(&[&args[..], &["--no-eval", "--force"]].concat());
    assert!(!report.exists());
}

#[test]
fn merged_shards_are_one_run() {
    let workshop = Workshop::new();
    let small = ["--batch-tokens", "128"];
    let shard = |part: &str| {
        let path = workshop.calibrate("mixtral", &[&small[..], &["--shard", part]].concat());
        let kept = workshop.path(&part.replace('/', "of"));
        fs::rename(path, &kept).unwrap();
        kept.display().to_string()
    };
    let (first, second) = (shard("1/2"), shard("2/2"));
    let merged = workshop.arg("merged.stats");
    workshop.succeed(&["stats", "merge", &second, &first, "-o", &merged]);
    let merged = Stats::read(Path::new(&merged)).unwrap();
    let whole = Stats::read(workshop.calibrate("mixtral", &small)).unwrap();
    assert_eq!(merged.provenance, whole.provenance);
    for (name, table) in &whole.tables {
        for (a, b) in table.values.iter().zip(&merged.tables[name].values) {
            let close = (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            assert!(close, "{name}: {a} and {b}");
        }
    }
    let twice = workshop.run(&[
        "stats",
        "merge",
        &first,
        &first,
        "-o",
        &workshop.arg("twice"),
    ]);
    twice.expect_failure(1, &["overlap", "hint:"]);
    assert!(!workshop.path("twice").exists());
}

#[test]
fn nested_plans_are_written_and_compared() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let family = workshop.arg("family");
    let asked = ["--nested", "0.25,0.5", "-o", &family];
    let args = [&["plan", &stats, "-m", &model][..], &asked].concat();
    let table = workshop.succeed(&args).stdout;
    assert!(
        table.contains("reap-0.25") && table.contains("reap-0.5"),
        "{table}"
    );
    let plans = workshop.succeed(&[&args[..], &["--json"]].concat()).json();
    let file = |name: &str| workshop.arg(&format!("family/reap-{name}.plan.json"));
    let (quarter, half) = (file("0.25"), file("0.5"));
    for (index, path) in [&quarter, &half].into_iter().enumerate() {
        let written: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(plans[index], written);
    }

    let diff = ["plan", "diff", &quarter, &half];
    let text = workshop.succeed(&diff).stdout;
    assert!(text.contains("--prune-experts 0.25") && text.contains("only reap-0.25"));
    assert!(
        text.contains("reap-0.25 keeps all that reap-0.5 keeps, and 6 experts more"),
        "{text}"
    );
    let found = workshop.succeed(&[&diff[..], &["--json"]].concat()).json();
    assert_eq!(found["relation"], "second_within_first");
    assert_eq!(found["layers"][0]["kept"], serde_json::json!([6, 4]));
    assert_eq!(found["layers"][0]["only_second"], serde_json::json!([]));
    let same = workshop.succeed(&["plan", "diff", &half, &half]).stdout;
    assert!(same.contains("both keep the same") && same.contains("decided in the same way"));

    let other = workshop.plan("mixtral").display().to_string();
    let refused = workshop.run(&["plan", "diff", &half, &other]);
    refused.expect_failure(1, &["mixtral.plan.json was made for model", "hint:"]);
}

#[test]
fn an_uneven_plan_is_evaluated_but_not_written_in_a_layout_with_one_count() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let plan = workshop.arg("uneven.plan.json");
    let asked = [
        "--prune-experts",
        "0.5",
        "--allocation",
        "lamp",
        "--protect",
    ];
    let some = ["0:1", "-o", &plan, "--json"];
    let args = [&["plan", &stats, "-m", &model][..], &asked, &some].concat();
    let mut made = workshop.succeed(&args).json();
    assert_eq!(made["method"]["constraints"]["protected"][0], "0:1");
    // Whatever the statistics say: one expert more in the first layer.
    let back = made["layers"][0]["removed"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    let kept = made["layers"][0]["kept"].as_array_mut().unwrap();
    kept.push(back);
    kept.sort_by_key(serde_json::Value::as_u64);
    let counts: Vec<_> = made["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["kept"].as_array().unwrap().len())
        .collect();
    assert!(
        counts.windows(2).any(|pair| pair[0] != pair[1]),
        "{counts:?}"
    );
    fs::write(&plan, made.to_string()).unwrap();

    let text = repository("models/demo/held-out/stories.txt");
    let mut args = vec!["eval", "-m", &model, "--plan", &plan, "--text", &text];
    args.extend(["--eval-tokens", "256", "--seq-len", "64", "--json"]);
    let report = workshop.succeed(&args).json();
    assert_eq!(report["variants"][0]["name"], "uneven");
    for layout in ["hf", "engine"] {
        let out = workshop.arg(layout);
        let args = ["prune", "-m", &model, "--plan", &plan, "-o", &out];
        let refused = workshop.run(&[&args[..], &["--layout", layout, "--no-eval"]].concat());
        refused.expect_failure(1, &["one number of experts", "hint: --layout uqff"]);
        assert!(!workshop.path(layout).exists());
    }
}

#[test]
fn eval_names_the_allocators_it_compares() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let stats = workshop.calibrate("mixtral", &[]).display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let mut args = vec!["eval", "-m", &model, "--stats", &stats, "--text", &text];
    args.extend(["--prune-experts", "0.5", "--allocation", "all", "--json"]);
    args.extend(["--eval-tokens", "256", "--seq-len", "64"]);
    let report = workshop.succeed(&args).json();
    let variants = report["variants"].as_array().unwrap().iter();
    let names: Vec<_> = variants
        .map(|variant| variant["name"].as_str().unwrap())
        .collect();
    let expected =
        ["", " lamp", " alpha-coverage", " knapsack"].map(|name| format!("reap{name} 0.5"));
    assert_eq!(names, expected);
}

#[test]
fn eval_rounds_the_model_and_every_plan() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let text = ["--text", &text, "--eval-tokens", "256", "--seq-len", "64"];
    let mut args = vec!["eval", "-m", &model, "--stats", &stats, "--quantize"];
    args.extend(["q8_0,q2k", "--prune-experts", "0.5"]);
    let report = workshop.succeed(&[&args[..], &text, &["--json"]].concat());
    let report = report.json();
    let variants = report["variants"].as_array().unwrap();
    let names = ["q8_0", "q2k", "reap 0.5", "reap 0.5 q8_0", "reap 0.5 q2k"];
    assert!(variants.iter().map(|variant| &variant["name"]).eq(names));
    let bytes = |variant: &serde_json::Value| variant["bytes"].as_u64().unwrap();
    let shown = workshop.succeed(&["inspect", &model, "--json"]).json();
    assert_eq!(bytes(&report["reference"]), shown["size"]["bytes"]);
    for [more, less] in [[0, 1], [0, 3], [2, 3], [3, 4]] {
        assert!(bytes(&variants[more]) > bytes(&variants[less]));
    }
    assert_eq!(variants[4]["quantization"], "q2k");
    assert!(variants[2]["quantization"].is_null());
    let table = workshop.succeed(&[&args[..], &text].concat()).stdout;
    assert!(table.contains("of the reference"), "{table}");

    let narrow = repository("tests/golden/glm4_moe");
    let refused =
        workshop.run(&[&["eval", "-m", &narrow, "--quantize", "q4k"], &text[..]].concat());
    refused.expect_failure(
        1,
        &["a multiple of 256 elements", "hint: types that end in `_0`"],
    );
}
