use serde_json::json;

use super::*;

fn config(value: Value) -> Config {
    Config::new("config.json", value).unwrap()
}

#[test]
fn the_base_is_read_from_either_place() {
    let theta = |value| base(&config(value), 1e4);
    assert_eq!(theta(json!({})).unwrap(), 1e4);
    assert_eq!(theta(json!({"rope_theta": 5e5})).unwrap(), 5e5);
    let nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
    assert_eq!(theta(nested).unwrap(), 1e6);
    assert_eq!(
        theta(json!({"rope_theta": 2.0, "rope_parameters": null})).unwrap(),
        2.0
    );
    assert!(theta(json!({"rope_parameters": {"rope_theta": -1.0}})).is_err());
    assert!(theta(json!({"rope_theta": "big"})).is_err());
}

#[test]
fn scaled_positions_are_not_plain() {
    let plain = |value| plain(&config(value), 8, 1e4).is_ok();
    assert!(plain(json!({})));
    assert!(plain(json!({"rope_scaling": null})));
    assert!(plain(
        json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})
    ));
    assert!(plain(
        json!({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}})
    ));
    assert!(!plain(
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}})
    ));
    assert!(!plain(
        json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}})
    ));
    assert!(!plain(
        json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})
    ));
    assert!(!plain(json!({"rope_scaling": "linear"})));
}

#[test]
fn a_fraction_turns() {
    let fraction = |value| partial(&config(value), 16, 1.0, 1e4).map(|rotary| rotary.dim);
    assert_eq!(fraction(json!({})).unwrap(), 16);
    assert_eq!(fraction(json!({"partial_rotary_factor": 0.5})).unwrap(), 8);
    // 5.6 dimensions are 5, and 4.8 are 4.
    assert_eq!(fraction(json!({"partial_rotary_factor": 0.3})).unwrap(), 4);
    assert!(fraction(json!({"partial_rotary_factor": 0.35})).is_err());
    let nested = json!({"rope_parameters": {"partial_rotary_factor": 0.25}});
    assert_eq!(fraction(nested).unwrap(), 4);
    assert!(fraction(json!({"partial_rotary_factor": 1.5})).is_err());
    assert!(fraction(json!({"partial_rotary_factor": 0.01})).is_err());
}

#[test]
fn what_is_said_twice_or_not_understood_is_refused() {
    let refused = |value: Value, named: &str| match plain(&config(value.clone()), 8, 1e4) {
        Err(crate::Error::Config { field, .. }) => assert_eq!(field, named),
        other => panic!("{value}: {other:?}"),
    };
    let kind = json!({"rope_type": "default"});
    refused(
        json!({"rope_parameters": kind, "rope_scaling": kind}),
        "rope_scaling",
    );
    refused(json!({"rope_scaling": {"type": 5}}), "rope_scaling");
    refused(
        json!({"partial_rotary_factor": 0.5}),
        "partial_rotary_factor",
    );
    refused(
        json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
        "rope_parameters.partial_rotary_factor",
    );
}

#[test]
fn yarn_moves_its_magnitude_into_the_softmax() {
    // DeepSeek-V3's own numbers.
    let yarn = |value| yarn(&config(value), 64, 1e4).unwrap();
    let scaling = json!({"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096});
    let (rotary, softmax) = yarn(json!({"rope_scaling": scaling}));
    let magnitude = 0.1 * 40f64.ln() + 1.0;
    assert!((softmax - magnitude * magnitude).abs() < 1e-12);
    assert_eq!(rotary.pairs, Pairs::Adjacent);
    let Scaling::Yarn(scaled) = rotary.scaling else {
        panic!("{rotary:?}")
    };
    assert_eq!((scaled.factor, scaled.original), (40.0, 4096));
    assert_eq!(scaled.magnitude, 1.0);
    // Without the two, the magnitude is in cosines and sines.
    let (rotary, softmax) = yarn(json!({"rope_parameters": {"rope_type": "yarn",
        "factor": 40, "original_max_position_embeddings": 4096}}));
    assert_eq!(softmax, 1.0);
    assert!(matches!(rotary.scaling, Scaling::Yarn(Yarn { magnitude: m, .. }) if m == magnitude));
}

#[test]
fn long_rope_has_a_divisor_for_each_frequency() {
    let scaling = |short| {
        json!({"original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope",
            "short_factor": short, "long_factor": [2.0, 3.0], "short_mscale": 1.1,
            "long_mscale": 1.3}})
    };
    let rotary = long(&config(scaling(vec![1.0, 1.5])), 4, 1e4).unwrap();
    let expected = LongRope {
        original: 4096,
        short: vec![1.0, 1.5],
        long: vec![2.0, 3.0],
        short_magnitude: 1.1,
        long_magnitude: 1.3,
    };
    assert_eq!(rotary.scaling, Scaling::Long(expected));
    assert!(long(&config(scaling(vec![1.0])), 4, 1e4).is_err());
    let mut other = scaling(vec![1.0, 1.5]);
    other["rope_scaling"]["original_max_position_embeddings"] = 8192.into();
    assert!(long(&config(other), 4, 1e4).is_err());
    assert!(long(&config(json!({"rope_scaling": {"type": "yarn"}})), 4, 1e4).is_err());
}

#[test]
fn flattening_keeps_what_is_said() {
    let mut nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn",
        "factor": 4.0, "partial_rotary_factor": 0.5}});
    flatten(&mut nested);
    let flat = json!({"rope_theta": 1e6, "partial_rotary_factor": 0.5,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0}});
    assert_eq!(nested, flat);
    flatten(&mut nested);
    assert_eq!(nested, flat);
    let mut plain = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
    flatten(&mut plain);
    assert_eq!(plain, json!({"rope_theta": 1e6, "rope_scaling": null}));
    let mut images = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default",
        "mrope_section": [2, 1, 1]}});
    flatten(&mut images);
    let mut default = json!({"rope_scaling": {"type": "default", "rope_type": "default"}});
    flatten(&mut default);
    assert_eq!(default, json!({"rope_scaling": null}));
    let flat = json!({"rope_theta": 1e6,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}});
    assert_eq!(images, flat);
}

#[test]
fn what_the_engine_requires_means_the_same() {
    let read =
        |value: &Value| super::super::latent::attention(&config(value.clone()), 1, 1e4).unwrap();
    let shape = json!({"num_attention_heads": 2, "q_lora_rank": null, "kv_lora_rank": 4,
        "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 6});
    for scaling in [
        json!({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64}),
        json!({"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64,
            "mscale": 0.707, "mscale_all_dim": 0.5}),
        json!({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64,
            "mscale_all_dim": 1.0, "attention_factor": 1.5, "beta_fast": 16}),
        json!({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64,
            "mscale": 0.0, "mscale_all_dim": 1.0}),
        json!({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64,
            "mscale": 0.7, "mscale_all_dim": null}),
    ] {
        let mut value = shape.clone();
        value["rope_scaling"] = scaling;
        let before = read(&value);
        spell_yarn(&mut value, &before);
        let fields = value["rope_scaling"].as_object_mut().unwrap();
        for field in ["beta_fast", "beta_slow", "mscale", "mscale_all_dim", "type"] {
            assert!(fields.contains_key(field), "{field}");
        }
        // The engine's formulas.
        let magnitude = |field: &str| {
            let scale = fields[field].as_f64().unwrap();
            0.1 * scale * fields["factor"].as_f64().unwrap().ln() + 1.0
        };
        let softmax = magnitude("mscale_all_dim").powi(2);
        assert!((before.scale * 10f64.sqrt() / softmax - 1.0).abs() < 1e-12);
        let Scaling::Yarn(yarn) = &before.rotary.scaling else {
            panic!()
        };
        let found = magnitude("mscale") / magnitude("mscale_all_dim");
        assert!((yarn.magnitude / found - 1.0).abs() < 1e-12);
        assert_eq!(fields["beta_fast"].as_f64(), Some(yarn.beta_fast));
        assert_eq!(fields["beta_slow"].as_f64(), Some(yarn.beta_slow));
        let after = read(&value);
        assert!((before.scale / after.scale - 1.0).abs() < 1e-12);
        assert_eq!(after.rotary.dim, before.rotary.dim);
    }
}
