//! What README.md says of families is what the code says.

use std::path::Path;

use prune_tests::Golden;
use router_stats::family::{Family, FAMILIES};

/// The cells of every row of the table of families.
fn rows() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| family |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// Whether the engine takes the golden checkpoints of a family.
fn served(family: &dyn Family) -> &'static str {
    let takes: Vec<bool> = Golden::all()
        .filter(|golden| golden.model.family().model_type() == family.model_type())
        .map(|golden| family.serving(golden.model.topology()).layout().is_some())
        .collect();
    match (takes.contains(&true), takes.contains(&false)) {
        (true, false) => "yes",
        (true, true) => "partly",
        (false, true) => "no",
        (false, false) => panic!("no golden checkpoint of {}", family.model_type()),
    }
}

/// The other cells are held by the other laws, which run for every golden
/// checkpoint.
#[test]
fn the_table_has_every_family_and_how_it_is_served() {
    let rows = rows();
    assert_eq!(rows.len(), FAMILIES.len());
    for (row, family) in rows.iter().zip(FAMILIES) {
        let [name, calibrate, prune, drop, serve] = &row[..] else {
            panic!("{row:?}")
        };
        assert!(
            name.contains(&format!("`{}`", family.architectures()[0])),
            "{name}"
        );
        assert_eq!([calibrate, prune, drop], ["yes", "yes", "yes"], "{name}");
        let found = serve.split([',', ':']).next().unwrap_or_default();
        assert_eq!(found, served(*family), "{name}");
    }
}
