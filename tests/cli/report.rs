//! The page that `report` makes, and what a browser makes of it.

use std::fs;

use crate::browser::Browser;
use crate::program::{repository, Workshop};

/// A workshop with statistics, a plan and an evaluation of a golden checkpoint,
/// and the flags that name them.
fn evidence() -> (Workshop, Vec<String>) {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let text = ["stories", "math"].map(|name| {
        let file = repository(&format!("models/demo/held-out/{name}.txt"));
        format!("{name}={file}")
    });
    let mut args = vec!["eval", "-m", &model, "--plan", &plan, "--quantize", "q8_0"];
    args.extend([
        "--eval-tokens",
        "1024",
        "--seq-len",
        "64",
        "--resamples",
        "200",
        "--json",
    ]);
    for text in &text {
        args.extend(["--text", text]);
    }
    fs::write(workshop.path("eval.json"), workshop.succeed(&args).stdout).unwrap();
    let flags = [
        "--stats",
        &workshop.arg("qwen3_moe.stats"),
        "--plan",
        &plan,
        "--eval",
        &workshop.arg("eval.json"),
    ]
    .map(str::to_owned)
    .to_vec();
    (workshop, flags)
}

fn report(workshop: &Workshop, flags: &[String], more: &[&str]) -> String {
    let page = workshop.arg("report.html");
    let mut args = vec!["report", "-o", &page];
    args.extend(flags.iter().map(String::as_str));
    args.extend(more);
    workshop.succeed(&args);
    page
}

#[test]
fn a_page_and_its_figures_are_made_of_what_there_is() {
    let (workshop, flags) = evidence();
    let model = repository("tests/golden/qwen3_moe");
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let folder = workshop.arg("figures");
    let mut more = vec!["--figures", &folder, "--load", "-m", &model];
    more.extend(["--text", &text, "--eval-tokens", "256"]);
    let page = fs::read_to_string(report(&workshop, &flags, &more)).unwrap();
    for name in ["heatmap", "influence", "load", "domains", "pareto"] {
        assert!(page.contains(&format!("data-name=\"{name}\"")), "no {name}");
        let svg = fs::read_to_string(workshop.path("figures").join(format!("{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN"));
    }
    assert!(page.contains("Routing load before and after"));
    assert!(page.contains("mistralrs-prune plan "));
    assert_eq!(fs::read_dir(workshop.path("figures")).unwrap().count(), 5);
}

#[test]
fn a_page_of_several_models_or_of_none_is_refused() {
    let workshop = Workshop::new();
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let stats = workshop.calibrate("mixtral", &[]).display().to_string();
    let page = workshop.arg("report.html");
    let mixed = ["report", "-o", &page, "--plan", &plan, "--stats", &stats];
    workshop.run(&mixed).expect_failure(
        1,
        &[
            "qwen3_moe.plan.json is of model",
            "mixtral.stats of",
            "hint: give files of one model",
        ],
    );
    assert!(!workshop.path("report.html").exists());
    workshop
        .run(&["report", "-o", &page])
        .expect_failure(2, &["--stats"]);
    let idle = ["report", "-o", &page, "--plan", &plan, "--text", "a.txt"];
    workshop.run(&idle).expect_failure(2, &["--text", "--load"]);
}

#[test]
fn sweeps_of_one_text_become_figures_together() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let texts = ["stories", "math"].map(|name| {
        let file = repository(&format!("models/demo/held-out/{name}.txt"));
        format!("{name}={file}")
    });
    let sweep = |name: &str, length: &str, more: &[&str]| {
        let output = workshop.arg(name);
        let mut args = vec!["eval", "sweep", "-m", &model, "-o", &output];
        args.extend(["--calibration-tokens", "1024", "--eval-tokens", "1024"]);
        args.extend(["--resamples", "100", "--seq-len", length]);
        for text in &texts {
            args.extend(["--calibration", text, "--text", text]);
        }
        args.extend(more);
        workshop.succeed(&args);
        output
    };
    let domains = ["--prune-experts", "0.25,0.5", "--calibrate-on", "mix,each"];
    let domains = sweep(
        "domains.jsonl",
        "64",
        &[&domains[..], &["--seeds", "1"]].concat(),
    );
    let cliff = sweep("cliff.jsonl", "64", &["--cliff", "--seeds", "2"]);
    let flags = ["--sweep", &domains, "--sweep", &cliff].map(str::to_owned);
    let page = fs::read_to_string(report(&workshop, &flags, &[])).unwrap();
    for name in ["pareto", "cliff", "matrix", "matrix-2"] {
        assert!(page.contains(&format!("data-name=\"{name}\"")), "no {name}");
    }
    assert!(
        page.contains("--calibrate-on mix,stories,math"),
        "the command"
    );
    let other = sweep(
        "other.jsonl",
        "32",
        &["--prune-experts", "0.25", "--seeds", "1"],
    );
    let args = [
        "report",
        "-o",
        &workshop.arg("b.html"),
        "--sweep",
        &domains,
        "--sweep",
        &other,
    ];
    workshop
        .run(&args)
        .expect_failure(2, &["--sweep: expected files of the same sequence length"]);
}

/// Looks at a page, moves over a heat map and saves a picture.
const PROBE: &str = "const root = document.documentElement, found = {};
const all = (query) => [...document.querySelectorAll(query)];
const shown = (e) => e.getClientRects().length > 0 && e.getBoundingClientRect().width > 0;
const inside = (e) => {
  const a = e.getBoundingClientRect(), b = e.ownerSVGElement.getBoundingClientRect();
  return a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
};
const texts = all('svg text').filter(shown);
found.overflow = root.scrollWidth - root.clientWidth;
found.width = root.clientWidth;
found.figures = all('figure').map((e) => e.dataset.name);
found.shown = all('figure svg').filter(shown).length;
found.described = all('figure svg').every((e) => e.getAttribute('aria-labelledby').split(' ').every((id) => document.getElementById(id).textContent.length > 0));
found.text = Math.min(...texts.map((e) => Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) * parseFloat(getComputedStyle(e).fontSize)));
found.outside = texts.filter((e) => !inside(e)).map((e) => e.textContent);
found.paper = getComputedStyle(document.body).backgroundColor;
found.tools = all('.tools').filter(shown).length;
const map = all('svg[data-grid]').find(shown);
const [x, y, width, height] = map.dataset.grid.split(' ').map(Number);
const at = new DOMPoint(x + width / 2, y + height / 2).matrixTransform(map.getScreenCTM());
map.dispatchEvent(new PointerEvent('pointermove', { clientX: at.x, clientY: at.y }));
found.value = $('#value').textContent;
found.saved = await new Promise((done) => {
  URL.createObjectURL = (blob) => { done([blob.type, blob.size]); return '#'; };
  $('[data-save=png]').click();
});
return found;";

#[test]
#[ignore = "needs Chromium"]
fn a_browser_shows_every_figure_at_every_width_and_asks_for_nothing() {
    let (workshop, flags) = evidence();
    let page = report(&workshop, &flags, &[]);
    let address = format!("file://{page}");
    let mut browser = Browser::start(&workshop.path(""));
    let papers = [(1280, false), (375, false), (375, true)].map(|(width, dark)| {
        browser.open(&address, width, dark);
        let found = browser.run(PROBE);
        assert_eq!(browser.errors(), [""; 0]);
        let mut requests = browser.requests();
        // Drawings become pictures by way of an address that holds them.
        requests.retain(|asked| {
            *asked != address && *asked != "about:blank" && !asked.starts_with("data:")
        });
        assert_eq!(requests, [""; 0]);
        let what = format!("{width} px: {found:#}");
        let names = ["heatmap", "influence", "domains", "pareto", "load"];
        assert_eq!(found["figures"], serde_json::json!(names), "{what}");
        assert_eq!(found["shown"], names.len(), "{what}");
        assert_eq!(found["tools"], names.len(), "{what}");
        assert_eq!(found["described"], true, "{what}");
        assert_eq!(found["overflow"], 0, "{what}");
        assert_eq!(found["width"], width, "{what}");
        assert_eq!(found["outside"], serde_json::json!([]), "{what}");
        assert!(found["text"].as_f64().unwrap() >= 10.0, "{what}");
        assert!(
            found["value"]
                .as_str()
                .unwrap()
                .starts_with("layer 0, expert 0: "),
            "{what}"
        );
        assert_eq!(found["saved"][0], "image/png", "{what}");
        assert!(found["saved"][1].as_u64().unwrap() > 2000, "{what}");
        found["paper"].clone()
    });
    assert_eq!(papers[0], papers[1]);
    assert_ne!(papers[1], papers[2], "a dark page is dark");
}
