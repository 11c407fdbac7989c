use serde_json::json;

use super::*;

fn config(value: Value) -> Config {
    Config::new("config.json", value).unwrap()
}

#[test]
fn only_objects_are_configurations() {
    assert!(matches!(
        Config::new("c", json!([1])),
        Err(Error::Config { .. })
    ));
}

#[test]
fn counts_are_positive_and_bounded() {
    let config = config(
        json!({"a": 3, "b": 0, "c": -1, "d": 1u64 << 31, "e": "3", "f": null,
        "num_hidden_layers": 65_537}),
    );
    assert_eq!(config.count("a").unwrap(), 3);
    assert_eq!(config.count_or("f", 7).unwrap(), 7);
    assert_eq!(config.count_or("absent", 7).unwrap(), 7);
    for field in ["b", "c", "d", "e", "f", "absent"] {
        match config.count(field) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert!(config.layers().is_err());
}

#[test]
fn spellings_of_a_count_must_agree() {
    let count = |value| config(value).spelled_count(["a", "b"]);
    assert_eq!(count(json!({"b": 2})).unwrap(), 2);
    assert_eq!(count(json!({"a": 2, "b": 2})).unwrap(), 2);
    for (value, named) in [
        (json!({"a": 2, "b": 3}), "a"),
        (json!({"b": 0}), "b"),
        (json!({}), "a"),
    ] {
        match count(value) {
            Err(Error::Config { field, .. }) => assert_eq!(field, named),
            other => panic!("{named}: {other:?}"),
        }
    }
}

#[test]
fn errors_of_a_section_say_where_it_is() {
    let config = config(json!({"text": {"a": 0}, "b": 1}));
    match config.section("text").unwrap().count("a") {
        Err(Error::Config { field, found, .. }) => {
            assert_eq!((&*field, &*found), ("text.a", "0"));
        }
        other => panic!("{other:?}"),
    }
    assert!(config.section("b").is_err() && config.section("c").is_err());
}

#[test]
fn errors_quote_long_values_shortened() {
    let config = config(json!({"a": "ä".repeat(200)}));
    let Err(Error::Config { found, .. }) = config.count("a") else {
        panic!()
    };
    assert!(found.ends_with('…') && found.len() < 90);
}
