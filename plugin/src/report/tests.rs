//! What a report says of which files.

use std::path::PathBuf;

use prune_eval::page::{Page, Part};

use super::*;
use crate::plan::fixture;

fn source<T>(path: &str, content: T) -> Option<Source<T>> {
    Some(Source {
        path: PathBuf::from(path),
        content,
    })
}

fn inputs() -> Inputs {
    let plan = fixture::half().plan().clone();
    Inputs {
        stats: source("tiny.stats", fixture::stats(&plan.model.fingerprint)),
        plan: source("half.plan.json", plan),
        command: "mistralrs-prune report -o report.html".to_owned(),
        ..Inputs::default()
    }
}

fn names(page: &Page) -> Vec<&str> {
    page.figures().map(|figure| figure.name.as_str()).collect()
}

fn commands(page: &Page) -> Vec<String> {
    let parts = page.sections.iter().flat_map(|section| &section.parts);
    let lines = parts.filter_map(|part| match part {
        Part::Lines(lines) => Some(lines.clone()),
        _ => None,
    });
    lines.flatten().collect()
}

#[test]
fn a_plan_and_its_statistics_say_what_goes_and_how_to_repeat_it() {
    let page = page(&inputs()).unwrap();
    assert_eq!(names(&page), ["heatmap", "influence", "load"]);
    assert!(
        page.title.ends_with("with 9 of 18 experts"),
        "{}",
        page.title
    );
    assert_eq!(page.facts[0].name, "bytes of weights");
    assert!(page.facts[0].value.starts_with('−'));
    let commands = commands(&page);
    assert_eq!(
        commands[0].split(" -m ").next(),
        Some("mistralrs-prune calibrate"),
        "{commands:?}"
    );
    for flags in [
        "plan tiny.stats",
        "--prune-experts 0.5",
        "--criterion reap",
        "-o half.plan.json",
    ] {
        assert!(commands[1].contains(flags), "{flags} in {}", commands[1]);
    }
    assert_eq!(commands[2], "mistralrs-prune report -o report.html");
}

#[test]
fn figures_follow_from_the_files() {
    let without = |edit: fn(&mut Inputs)| {
        let mut inputs = inputs();
        edit(&mut inputs);
        page(&inputs).unwrap()
    };
    let plan_alone = without(|inputs| inputs.stats = None);
    assert_eq!(names(&plan_alone), ["heatmap", "influence"]);
    let stats_alone = without(|inputs| inputs.plan = None);
    assert_eq!(names(&stats_alone), ["heatmap", "influence", "load"]);
    assert_eq!(stats_alone.title, "tiny");
    assert!(stats_alone.facts.is_empty());
    let layers_of = |page: &Page, name: &str| {
        let figure = page.figures().find(|figure| figure.name == name);
        figure.unwrap().table.rows.len()
    };
    assert_eq!(
        layers_of(&plan_alone, "heatmap"),
        3,
        "a dense layer has no experts"
    );
    assert_eq!(layers_of(&plan_alone, "influence"), 4);
}

#[test]
fn load_after_is_told_only_if_it_was_counted() {
    let mut inputs = inputs();
    let html = page(&inputs).unwrap().to_html();
    assert!(html.contains("report --load"));
    let layers = inputs.plan().unwrap().layers.clone();
    let before: Vec<Vec<f64>> = layers
        .iter()
        .map(|l| vec![1.0 / 3.0; l.scores.len()])
        .collect();
    let after = layers.iter().map(|layer| {
        let share = |expert: usize| {
            if layer.kept.contains(&expert) {
                2.0 / 3.0
            } else {
                0.0
            }
        };
        (0..layer.scores.len()).map(share).collect()
    });
    inputs.counted = Some(Counted {
        tokens: 12,
        after: after.collect(),
        before,
    });
    let page = page(&inputs).unwrap();
    let load = page.figures().find(|figure| figure.name == "load").unwrap();
    assert_eq!(load.title, "Routing load before and after");
    assert!(load.description.contains("12 tokens of held-out text"));
    assert!(
        load.description.contains("took 50.0% of the routing"),
        "{}",
        load.description
    );
    assert!(!page.to_html().contains("report --load"));
}

#[test]
fn files_of_two_models_are_refused_by_name() {
    let mut inputs = inputs();
    inputs.stats = source("other.stats", fixture::stats("0ddba11"));
    let error = page(&inputs).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("half.plan.json is of model "), "{text}");
    assert!(text.contains("other.stats of 0ddb… (tiny)"), "{text}");
    assert_eq!(error.hint().as_deref(), Some("give files of one model"));
    let none = page(&Inputs::default()).unwrap_err();
    assert!(none.is_usage() && none.to_string().contains("--stats"));
}

#[test]
fn a_hostile_name_is_text() {
    let mut inputs = inputs();
    if let Some(plan) = &mut inputs.plan {
        plan.content.model.name = "<script>alert(1)</script>".to_owned();
        plan.content.method.criterion = "\"><svg onload=x>".to_owned();
    }
    let html = page(&inputs).unwrap().to_html();
    assert_eq!(html.matches("<script").count(), 1, "the page's own");
    assert!(!html.contains("<svg onload"));
}
