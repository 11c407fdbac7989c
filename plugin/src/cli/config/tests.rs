use std::ffi::OsString;

use super::apply::Parsed;
use super::*;
use crate::cli::command;

/// Parses words with a configuration file.
fn parsed(file: &str, words: &str) -> Result<Parsed, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let mut argv: Vec<OsString> = vec!["mistralrs-prune".into(), "--config".into(), path.into()];
    argv.extend(words.split(' ').map(OsString::from));
    parse(command(), &argv).map_err(|refused| match refused {
        Refused::Config(error) => format!("{error}\n{}", error.hint().unwrap_or_default()),
        Refused::Usage(error, note) => format!("{error}\n{}", note.unwrap_or_default()),
    })
}

/// What a flag of the last verb is.
fn value<T: Clone + Send + Sync + 'static>(parsed: &Parsed, id: &str) -> Option<T> {
    let mut matches = &parsed.matches;
    while let Some((_, under)) = matches.subcommand() {
        matches = under;
    }
    matches.get_one::<T>(id).cloned()
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "[serve]\nport = 7000\nhost = \"::1\"\n";
    let port = |words: &str| value::<u16>(&parsed(file, words).unwrap(), "port");
    assert_eq!(port("serve"), Some(7000));
    assert_eq!(port("serve --port 8000"), Some(8000));
    assert_eq!(port("-q serve -p 8000"), Some(8000));
    let found = parsed(file, "serve --port 8000").unwrap();
    assert_eq!(value::<String>(&found, "host").unwrap(), "::1");
    assert_eq!(found.decided.iter().collect::<Vec<_>>(), ["host"]);
}

#[test]
fn flags_of_every_verb_are_at_the_top() {
    let found = parsed("quiet = true\ncache-dir = \"/tmp/c\"", "inspect x").unwrap();
    assert_eq!(value::<bool>(&found, "quiet"), Some(true));
    assert_eq!(
        value::<PathBuf>(&found, "cache_dir").unwrap(),
        Path::new("/tmp/c")
    );
    let found = parsed("verbose = 2", "inspect x").unwrap();
    assert_eq!(value::<u8>(&found, "verbose"), Some(2));
}

#[test]
fn what_a_given_flag_excludes_is_set_aside() {
    let file = "[plan]\nprune-experts = 0.5\n[eval]\njson = true";
    let found = parsed(file, "plan x --keep-experts 4").unwrap();
    assert_eq!(value::<f64>(&found, "prune_experts"), None);
    assert!(found.decided.is_empty());
    let found = parsed(file, "plan x --nested 0.5").unwrap();
    assert_eq!(value::<f64>(&found, "prune_experts"), None);
    let found = parsed(file, "eval --markdown").unwrap();
    assert_eq!(value::<bool>(&found, "json"), Some(false));
}

#[test]
fn what_excludes_one_another_is_refused_where_it_is_used() {
    let file = "[serve]\nprune-experts = 0.5\nkeep-experts = 4\nno-eval = false\neval-tokens = 9";
    let said = parsed(file, "serve").err().unwrap();
    assert!(
        said.contains("serve.keep-experts and serve.prune-experts"),
        "{said}"
    );
    assert!(parsed(file, "serve --drop-layers 1").is_err());
    assert!(parsed(file, "serve --plan x").is_ok());
    assert!(parsed(file, "inspect x").is_ok());
}

#[test]
fn what_is_required_may_come_from_the_file() {
    let file =
        "[plan]\nprune-experts = 0.5\n[prune]\nplan = \"p.json\"\noutput = \"o\"\nforce = true";
    let found = parsed(file, "plan x").unwrap();
    assert_eq!(value::<f64>(&found, "prune_experts"), Some(0.5));
    let found = parsed(file, "plan x --criterion ean").unwrap();
    assert_eq!(value::<f64>(&found, "prune_experts"), Some(0.5));
    let found = parsed(file, "prune").unwrap();
    assert_eq!(value::<PathBuf>(&found, "output").unwrap(), Path::new("o"));
    assert_eq!(value::<bool>(&found, "force"), Some(true));
    assert!(found.decided.contains("plan"));
}

#[test]
fn what_would_do_nothing_is_not_in_the_way() {
    let file = "[serve]\ncriterion = \"ean\"\nprotect = [\"0:1\", \"2:3\"]\ncalibration-tokens = 9";
    let found = parsed(file, "serve").unwrap();
    assert_eq!(value::<String>(&found, "criterion").unwrap(), "ean");
    assert_eq!(value::<usize>(&found, "calibration_tokens"), Some(9));
}

#[test]
fn tables_are_of_verbs_under_verbs_too() {
    let file = "[eval]\nprune-experts = 0.25\n[eval.sweep]\nseeds = [1, 2]\nprune-experts = 0.5";
    let found = parsed(file, "eval sweep -o x").unwrap();
    let (_, eval) = found.matches.subcommand().unwrap();
    let (_, sweep) = eval.subcommand().unwrap();
    let seeds: Vec<u64> = sweep.get_many("seeds").unwrap().copied().collect();
    assert_eq!(seeds, [1, 2]);
    assert!(found.decided.contains("prune_experts"));
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    for (file, key, nearest) in [
        (
            "[serve]\nprot = 1",
            "`serve.prot`",
            "did you mean `serve.port`?",
        ),
        ("[serv]\nport = 1", "`serv`", "did you mean `serve`?"),
        (
            "[eval.sweep]\nseedz = 1",
            "`eval.sweep.seedz`",
            "`eval.sweep.seeds`",
        ),
        ("quite = true", "`quite`", "did you mean `quiet`?"),
        ("port = 1", "`port`", "`mistralrs-prune --help` lists"),
        (
            "[serve]\nconfig = \"x\"",
            "`serve.config`",
            "`mistralrs-prune serve --help`",
        ),
    ] {
        let said = parsed(file, "inspect x").err().unwrap();
        assert!(said.contains(key) && said.contains(nearest), "{said}");
    }
}

#[test]
fn values_are_of_the_kind_that_the_flag_takes() {
    for (file, expected) in [
        (
            "[serve]\nport = true",
            "serve.port: expected a string or a number, found true or false",
        ),
        (
            "[serve]\nno-eval = 1",
            "serve.no-eval: expected true or false, found a number",
        ),
        (
            "[serve]\ncalibration = [[]]",
            "an array of them, found an array",
        ),
        ("verbose = -1", "expected a number of times"),
        ("[serve", "TOML parse error at line 1"),
    ] {
        let said = parsed(file, "inspect x").err().unwrap();
        assert!(said.contains(expected), "{said}");
    }
    let said = parsed("[serve]\nport = 70000", "serve").err().unwrap();
    assert!(
        said.contains("70000") && said.contains("gives --port"),
        "{said}"
    );
}

#[test]
fn the_file_is_under_the_folder_for_configurations() {
    let path = |variables: &[(&str, &str)]| {
        default_path(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    };
    let xdg = path(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]).unwrap();
    assert_eq!(xdg, Path::new("/x/mistralrs-prune/config.toml"));
    let home = path(&[("XDG_CONFIG_HOME", ""), ("HOME", "/h")]).unwrap();
    assert_eq!(home, Path::new("/h/.config/mistralrs-prune/config.toml"));
    assert_eq!(path(&[]), None);
}
