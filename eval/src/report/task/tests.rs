//! Outcomes of known models, and reports that lie.

use serde_json::Value;

use super::*;
use crate::report::tests::sample;

/// Questions of which model m answers `right[m]` of every ten.
pub(in crate::report) fn asked(
    name: &str,
    items: usize,
    right: &[usize],
) -> (TaskSet, Vec<TaskOutcomes>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{name}.jsonl"));
    let lines: Vec<String> = (0..items)
        .map(|i| format!(r#"{{"query": "{i}", "choices": ["a", "b"], "gold": 0}}"#))
        .collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let set = TaskSet::read(path.to_str().unwrap(), None).unwrap();
    let outcomes = right
        .iter()
        .map(|&right| TaskOutcomes {
            task: name.to_owned(),
            items: (0..items)
                .map(|i| {
                    let hit = f64::from(u8::from(i % 10 < right));
                    vec![hit, hit, 3.0 - 0.1 * right as f64 + 0.01 * (i % 7) as f64]
                })
                .collect(),
        })
        .collect();
    (set, outcomes)
}

/// A report on text and on questions of two sets.
pub(in crate::report) fn with_questions() -> Report {
    let (easy, on_easy) = asked("easy", 100, &[9, 8, 2]);
    let (hard, on_hard) = asked("hard", 40, &[5, 5, 0]);
    let outcomes: Vec<Vec<TaskOutcomes>> = on_easy
        .into_iter()
        .zip(on_hard)
        .map(|(easy, hard)| vec![easy, hard])
        .collect();
    sample(&[("half", 0.4), ("quarter", 0.1)])
        .with_tasks(&[easy, hard], &outcomes)
        .unwrap()
}

#[test]
fn shares_and_changes_are_those_of_the_items() {
    let report = with_questions();
    let easy = &report.tasks[0];
    assert_eq!(
        (easy.name.as_str(), easy.kind.as_str(), easy.items),
        ("easy", "multiple_choice", 100)
    );
    let names: Vec<&str> = easy.models.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["original", "half", "quarter"]);
    let acc = |model: usize| &easy.models[model].metrics["acc"];
    assert_eq!(acc(0).estimate.value, 0.9);
    assert!(acc(0).change.is_none());
    let (low, high) = acc(0).estimate.interval().unwrap();
    assert!(low > 0.8 && low < 0.88 && high > 0.93 && high <= 1.0);

    let half = acc(1).change.as_ref().unwrap();
    assert!((half.estimate.value + 0.1).abs() < 1e-12);
    assert_eq!((half.better, half.worse), (0, 10));
    assert_eq!(half.sign.p, sign_test(0, 10));
    assert_eq!(half.sign.adjusted, half.sign.p, "the larger of two");
    let quarter = acc(2).change.as_ref().unwrap();
    assert_eq!((quarter.better, quarter.worse), (0, 70));
    assert_eq!(quarter.sign.adjusted, 2.0 * quarter.sign.p);

    let bits = |model: usize| &easy.models[model].metrics["gold_bits_per_byte"];
    let worse = bits(2).change.as_ref().unwrap();
    assert!((worse.estimate.value - 0.7).abs() < 1e-9);
    assert_eq!((worse.better, worse.worse), (0, 100), "lower is better");
}

#[test]
fn a_share_of_none_or_all_has_an_exact_interval() {
    let report = with_questions();
    let none = report.tasks[1].models[2].metrics["acc"].estimate;
    let far = 1.0 - 0.025f64.powf(1.0 / 40.0);
    assert_eq!((none.value, none.interval()), (0.0, Some((0.0, far))));
    assert!((far - 0.088).abs() < 1e-3, "as printed tables have it");
    let all = exact(
        Estimate {
            value: 1.0,
            low: None,
            high: None,
        },
        40,
        0.95,
    );
    assert_eq!(all.interval(), Some((1.0 - far, 1.0)));
}

#[test]
fn equal_answers_are_no_change() {
    let report = with_questions();
    let hard = report.tasks[1].models[1].metrics["acc"]
        .change
        .clone()
        .unwrap();
    assert_eq!((hard.better, hard.worse, hard.sign.p), (0, 0, 1.0));
    assert_eq!(hard.estimate.interval(), Some((0.0, 0.0)));
}

#[test]
fn outcomes_of_other_models_sets_and_items_are_refused() {
    let (set, outcomes) = asked("easy", 10, &[5]);
    let alone = || sample(&[]);
    let one = vec![outcomes.clone()];
    assert!(alone().with_tasks(std::slice::from_ref(&set), &one).is_ok());
    let error = alone()
        .with_tasks(std::slice::from_ref(&set), &[])
        .unwrap_err();
    assert!(error.to_string().contains("one list per model"), "{error}");
    let twice = [set.clone(), set.clone()];
    let both = vec![[outcomes.clone(), outcomes.clone()].concat()];
    let error = alone().with_tasks(&twice, &both).unwrap_err();
    assert!(error.to_string().contains("task `easy`"), "{error}");
    for edit in [
        (|outcomes: &mut TaskOutcomes| outcomes.task.push('2')) as fn(&mut TaskOutcomes),
        |outcomes| outcomes.items.truncate(9),
        |outcomes| outcomes.items[3].truncate(1),
        |outcomes| outcomes.items[3][0] = f64::NAN,
    ] {
        let mut wrong = outcomes.clone();
        edit(&mut wrong[0]);
        let error = alone()
            .with_tasks(std::slice::from_ref(&set), &[wrong])
            .unwrap_err();
        assert!(error.to_string().contains("0 that fit `easy`"), "{error}");
    }
}

fn read(report: &Value) -> Result<Report> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    std::fs::write(&path, report.to_string()).unwrap();
    Report::read(&path)
}

#[test]
fn tasks_survive_their_file_with_and_without_text() {
    let report = with_questions();
    let good: Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(read(&good).unwrap(), report);

    let subject = |name: &str| Subject {
        name: name.to_owned(),
        fingerprint: "http://127.0.0.1:1".to_owned(),
        masked: false,
        quantization: None,
        bytes: None,
    };
    let (set, outcomes) = asked("easy", 20, &[9, 3]);
    let outcomes: Vec<Vec<TaskOutcomes>> = outcomes.into_iter().map(|o| vec![o]).collect();
    let bootstrap = report.provenance.bootstrap;
    let without = Report::of_tasks(subject("served"), vec![subject("pruned")], bootstrap)
        .with_tasks(&[set], &outcomes)
        .unwrap();
    let value: Value = serde_json::from_str(&without.to_json()).unwrap();
    assert_eq!(read(&value).unwrap(), without);

    let neither = Report::of_tasks(subject("served"), Vec::new(), bootstrap);
    let value: Value = serde_json::from_str(&neither.to_json()).unwrap();
    assert!(read(&value).is_err(), "neither text nor tasks");
}

#[test]
fn tasks_that_lie_are_refused() {
    let good: Value = serde_json::from_str(&with_questions().to_json()).unwrap();
    for (edit, reason) in [
        (
            (|v: &mut Value| v["tasks"][1]["name"] = "easy".into()) as fn(&mut Value),
            "task `easy`: expected unique names",
        ),
        (
            |v| v["tasks"][0]["kind"] = "riddle".into(),
            "expected a known kind, found `riddle`",
        ),
        (
            |v| v["tasks"][0]["items"] = 99.into(),
            "expected 99 outcomes of `acc`, found 100",
        ),
        (|v| v["tasks"][0]["items"] = 0.into(), "at least 1 item"),
        (
            |v| v["tasks"][0]["models"][1]["name"] = "third".into(),
            "expected the models",
        ),
        (
            |v| v["tasks"][0]["models"][2]["metrics"]["acc"]["change"] = Value::Null,
            "expected a change of `acc` for variants alone",
        ),
        (|v| v["tasks"][0]["more"] = 1.into(), "unknown field `more`"),
    ] {
        let mut value = good.clone();
        edit(&mut value);
        let error = read(&value).unwrap_err().to_string();
        assert!(error.contains(reason), "expected `{reason}` in: {error}");
    }
}
