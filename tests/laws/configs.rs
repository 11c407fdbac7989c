//! Real configurations mean what is published of their models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use router_stats::family::{detect, Config, Family, MlpSpec, Topology};
use router_stats::Error;
use serde::Deserialize;

/// What is published of a model; see `tests/configs/README.md`.
#[derive(Deserialize)]
struct Published {
    layers: usize,
    experts: usize,
    top_k: usize,
    dense_layers: usize,
    shared_width: usize,
    total_parameters: u64,
    /// Parameters in that total that are no part of the language model.
    #[serde(default)]
    apart: BTreeMap<String, u64>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

fn read(path: &Path) -> Config {
    let text = std::fs::read(path).unwrap();
    Config::new(path, serde_json::from_slice(&text).unwrap()).unwrap()
}

fn published() -> BTreeMap<String, Published> {
    let text = std::fs::read(directory().join("published.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn parse(name: &str) -> (&'static dyn Family, Topology) {
    let config = read(&directory().join(format!("{name}.json")));
    let family = detect(&config).unwrap();
    (family, family.topology(&config).unwrap())
}

#[test]
fn structures_and_sizes_are_the_published_ones() {
    let models = published();
    assert!(models.len() >= 20);
    for (name, published) in models {
        let (family, topology) = parse(&name);
        assert_eq!(topology.layers(), published.layers, "{name}");
        let dense = |mlp: &&MlpSpec| matches!(mlp, MlpSpec::Dense { .. });
        let dense = topology.mlps.iter().filter(dense).count();
        assert_eq!(dense, published.dense_layers, "{name}");
        let moes = (0..topology.layers()).filter_map(|layer| topology.moe(layer));
        for moe in moes {
            assert_eq!(moe.experts, published.experts, "{name}");
            assert_eq!(moe.router.top_k, published.top_k, "{name}");
            let shared = moe.shared.map_or(0, |shared| shared.intermediate);
            assert_eq!(shared, published.shared_width, "{name}");
        }
        let expected = published.total_parameters - published.apart.values().sum::<u64>();
        let found = topology.parameters(family.names());
        let off = found.abs_diff(expected) as f64 / expected as f64;
        assert!(
            off <= 0.005,
            "{name}: expected {expected} parameters, found {found}"
        );
    }
}

#[test]
fn every_family_has_a_real_configuration() {
    let families: Vec<_> = published()
        .keys()
        .map(|name| parse(name).0.model_type())
        .collect();
    for family in router_stats::family::FAMILIES {
        assert!(families.contains(&family.model_type()), "{family:?}");
    }
}

#[test]
fn families_that_are_not_known_are_named() {
    let mut found = 0;
    for file in std::fs::read_dir(directory().join("unknown")).unwrap() {
        let config = read(&file.unwrap().path());
        let architecture = config.architecture().unwrap().to_owned();
        match detect(&config) {
            Err(Error::UnknownFamily { found, .. }) => assert_eq!(found, architecture),
            other => panic!("{other:?}"),
        }
        found += 1;
    }
    assert_eq!(found, 2);
}
