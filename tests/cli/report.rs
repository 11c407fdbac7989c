//! The page that `report` makes, and what a browser makes of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

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

/// What a browser finds in a page, in a frame of this width.
fn browse(page: &str, width: u32, dark: bool) -> Value {
    /// Looks into the frame once it is loaded, moves over a heat map and saves a
    /// picture.
    const PROBE: &str = r#"<!DOCTYPE html><meta charset="utf-8"><iframe id="f" style="border:0;height:900px"></iframe><pre id="out"></pre>
<script>
const f = document.getElementById('f');
f.style.width = 'WIDTHpx';
f.onload = async () => {
  const w = f.contentWindow, d = f.contentDocument, found = {};
  const root = d.documentElement;
  const shown = (e) => e.getClientRects().length > 0 && e.getBoundingClientRect().width > 0;
  found.overflow = root.scrollWidth - root.clientWidth;
  found.width = root.clientWidth;
  found.figures = Array.from(d.querySelectorAll('figure')).map((e) => e.dataset.name);
  found.shown = Array.from(d.querySelectorAll('figure svg')).filter(shown).length;
  found.described = Array.from(d.querySelectorAll('figure svg')).every((e) => e.getAttribute('aria-labelledby').split(' ').every((id) => d.getElementById(id).textContent.length > 0));
  found.text = Math.min(...Array.from(d.querySelectorAll('svg text')).filter(shown).map((e) => Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) * parseFloat(w.getComputedStyle(e).fontSize)));
  found.outside = Array.from(d.querySelectorAll('svg text')).filter(shown).filter((e) => { const a = e.getBoundingClientRect(), b = e.ownerSVGElement.getBoundingClientRect(); return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1; }).map((e) => e.textContent);
  found.requests = w.performance.getEntriesByType('resource').map((e) => e.name);
  found.paper = w.getComputedStyle(d.body).backgroundColor;
  found.tools = Array.from(d.querySelectorAll('.tools')).filter(shown).length;
  const map = Array.from(d.querySelectorAll('svg[data-grid]')).find(shown);
  const [x, y, cw, ch] = map.dataset.grid.split(' ').map(Number);
  const at = new w.DOMPoint(x + cw / 2, y + ch / 2).matrixTransform(map.getScreenCTM());
  map.dispatchEvent(new w.PointerEvent('pointermove', { clientX: at.x, clientY: at.y }));
  found.value = d.getElementById('value').textContent;
  found.saved = await new Promise((done) => {
    w.URL.createObjectURL = (blob) => { done([blob.type, blob.size]); return '#'; };
    d.querySelector('[data-save=png]').click();
    setTimeout(() => done(['none', 0]), 4000);
  });
  document.getElementById('out').textContent = 'FOUND' + JSON.stringify(found) + 'END';
};
f.src = 'PAGE';
</script>"#;
    let folder = Path::new(page).parent().unwrap();
    let name = Path::new(page).file_name().unwrap().to_str().unwrap();
    let probe = folder.join("probe.html");
    let text = PROBE
        .replace("WIDTH", &width.to_string())
        .replace("PAGE", name);
    fs::write(&probe, text).unwrap();
    let scheme = if dark { "0" } else { "1" };
    let run = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--window-size=1400,1000", "--allow-file-access-from-files"])
        .args([
            "--virtual-time-budget=8000",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!(
            "--user-data-dir={}",
            folder.join("browser").display()
        ))
        .arg(format!("file://{}", probe.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let console: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert!(console.is_empty(), "{console:#?}");
    let dom = String::from_utf8_lossy(&run.stdout);
    let found = dom
        .split("FOUND")
        .filter_map(|rest| rest.split_once("END"))
        .find_map(|(json, _)| {
            serde_json::from_str(
                &json
                    .replace("&amp;", "&")
                    .replace("&lt;", "<")
                    .replace("&gt;", ">"),
            )
            .ok()
        });
    found.unwrap_or_else(|| panic!("nothing found in {dom}\n{said}"))
}

#[test]
#[ignore = "needs Chromium"]
fn a_browser_shows_every_figure_at_every_width_and_asks_for_nothing() {
    let (workshop, flags) = evidence();
    let page = report(&workshop, &flags, &[]);
    let papers = [(1280, false), (375, false), (375, true)].map(|(width, dark)| {
        let found = browse(&page, width, dark);
        let what = format!("{width} px: {found:#}");
        let names = ["heatmap", "influence", "domains", "pareto", "load"];
        assert_eq!(found["figures"], serde_json::json!(names), "{what}");
        assert_eq!(found["shown"], names.len(), "{what}");
        assert_eq!(found["tools"], names.len(), "{what}");
        assert_eq!(found["described"], true, "{what}");
        assert_eq!(found["overflow"], 0, "{what}");
        assert_eq!(found["width"], width, "{what}");
        assert_eq!(found["requests"], serde_json::json!([]), "{what}");
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
