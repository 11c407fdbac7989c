//! Completions and pages of the manual.

use std::fs;
use std::process::{Command, Stdio};

use crate::program::Workshop;

#[test]
fn every_shell_gets_completions_that_know_every_verb() {
    let workshop = Workshop::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = workshop.succeed(&["completions", shell]).stdout;
        for known in ["calibrate", "doctor", "prune-experts"] {
            assert!(script.contains(known), "{shell}: {known}");
        }
    }
    let script = workshop.succeed(&["completions", "bash"]).stdout;
    let path = workshop.path("completions.bash");
    // What bash offers after `mistralrs-prune do`.
    let asked = "COMP_WORDS=(mistralrs-prune do); COMP_CWORD=1; _mistralrs__prune mistralrs-prune do mistralrs-prune; echo \"${COMPREPLY[@]}\"";
    fs::write(&path, format!("{script}\n{asked}\n")).unwrap();
    let bash = Command::new("bash")
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    assert_eq!(String::from_utf8(bash.unwrap().stdout).unwrap(), "doctor\n");
    workshop
        .run(&["completions", "tcsh"])
        .expect_failure(2, &["bash"]);
}

#[test]
fn pages_are_printed_one_by_one_or_written_together() {
    let workshop = Workshop::new();
    let page = workshop.succeed(&["man"]).stdout;
    assert!(page.contains(".TH mistralrs-prune 1"));
    assert!(
        !page.contains("mistralrs\\-prune\\-time"),
        "hidden verbs have no page"
    );
    let page = workshop.succeed(&["man", "plan", "diff"]).stdout;
    assert!(page.contains("Show how two plans for one model differ"));
    workshop
        .run(&["man", "plann"])
        .expect_failure(2, &["VERB", "serve", "`plann`"]);
    let folder = workshop.arg("man/man1");
    workshop.succeed(&["man", "-o", &folder]);
    let pages: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|page| page.unwrap().file_name())
        .collect();
    assert!(pages.len() > 12, "{pages:?}");
    assert!(pages
        .iter()
        .any(|page| page == "mistralrs-prune-eval-sweep.1"));
}
