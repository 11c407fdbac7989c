//! What is said to those who ask for something wrong: `errors.txt` beside this
//! file, a command and its answer after another.

use std::fs;
use std::path::Path;

use crate::program::{repository, Workshop};

/// Commands that are wrong, one of every kind. `DIR` is a folder with a plan, a
/// file that is none, and configuration files.
const WRONG: &[&str] = &[
    // Said by clap.
    "prnue",
    "serve --prot 1",
    "serve --port lots",
    "serve --prune-experts 0.5 --keep-experts 4",
    "serve --prune-experts 0.5 --criterion reapp",
    "prune --plan DIR/config.toml",
    "-q -v inspect DIR/model.stats",
    "serve --hf-revision main",
    // Would do nothing, or cannot be.
    "prune --plan p --output x --layout hf --uqff-device gpu",
    "serve --token-source secret",
    "serve --target-size small",
    "serve -m MODEL --prune-experts 0.95",
    "serve -m MODEL --keep-experts 9",
    "serve -m MODEL --prune-experts 0.01",
    "serve -m MODEL --drop-layers 9",
    "serve -m MODEL --target-size 1kB",
    "plan DIR/model.stats -m MODEL --prune-experts 0.5 --protect 9:9",
    "prune --plan DIR/config.toml -m MODEL -o DIR/out --no-eval",
    "man plann",
    // Named what is not there.
    "serve -m no/such/model",
    "inspect DIR/nothing",
    // A configuration file that is wrong.
    "serve --config DIR/nothing.toml",
    "serve --config DIR/config.toml",
    "serve --config DIR/syntax.toml",
    "serve --config DIR/kind.toml",
    "serve --config DIR/value.toml",
];

#[test]
fn wrong_commands_are_answered_as_written_down() {
    let workshop = Workshop::new();
    workshop.calibrate("qwen3_moe", &[]);
    fs::rename(
        workshop.path("qwen3_moe.stats"),
        workshop.path("model.stats"),
    )
    .unwrap();
    for (name, text) in [
        ("config.toml", "[serve]\nprune-expert = 0.5\n"),
        ("syntax.toml", "[serve]\nport = \n"),
        ("kind.toml", "[serve]\nspill = 1\n"),
        ("value.toml", "[serve]\nport = 70000\nhost = \"::1\"\n"),
    ] {
        fs::write(workshop.path(name), text).unwrap();
    }
    let (folder, model) = (workshop.arg(""), repository("tests/golden/qwen3_moe"));
    let folder = folder.trim_end_matches('/');
    let mut said = String::new();
    for line in WRONG {
        let words = line.replace("DIR", folder).replace("MODEL", &model);
        let words: Vec<&str> = words.split(' ').collect();
        let finished = workshop.run(&words);
        assert_eq!(finished.stdout, "", "{line}");
        let answer = finished
            .stderr
            .replace(folder, "DIR")
            .replace(&model, "MODEL");
        let code = finished.code.unwrap();
        said.push_str(&format!(
            "$ mistralrs-prune {line}\n{}\nexit {code}\n\n",
            answer.trim_end()
        ));
    }
    let written = repository("tests/cli/errors.txt");
    if fs::read_to_string(&written).unwrap_or_default() != said {
        let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("errors.txt");
        fs::write(&found, said).unwrap();
        panic!(
            "answers differ: `diff {written} {}`, and copy it if it is better",
            found.display()
        );
    }
}
