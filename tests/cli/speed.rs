//! `eval --speed`: every model in processes of its own, in turn.

use serde_json::Value;

use crate::program::Workshop;

#[test]
fn speed_is_measured_against_the_original() {
    let workshop = Workshop::new();
    let mut args = vec!["eval", "--speed", "--no-text", "--json"];
    args.extend(["--speed-rounds", "2", "--speed-prompt", "48"]);
    args.extend(["--speed-tokens", "8"]);
    args.extend(["--prune-experts", "0.5", "--calibration-tokens", "4096"]);
    let report = workshop.succeed(&args).json();
    let models = report["speed"]["models"].as_array().unwrap();
    let names: Vec<&Value> = models.iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["demo", "reap 0.5"]);
    for (index, model) in models.iter().enumerate() {
        for quantity in ["prefill", "decode", "first_token"] {
            let median = &model[quantity]["median"];
            assert!(median["value"].as_f64() > Some(0.0), "{model}");
            // Two rounds are too few for an interval.
            assert!(median["low"].is_null(), "{model}");
            assert_eq!(model[quantity]["ratio"].is_null(), index == 0, "{model}");
        }
        let rounds = model["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_eq!(round["timings"].as_array().unwrap().len(), 3);
            assert_eq!(round["timings"][0]["prompt"], 48);
        }
        assert!(model["peak_resident"].as_u64() > model["weights"].as_u64());
    }
    assert!(models[1]["weights"].as_u64() < models[0]["weights"].as_u64());
    assert!(report["tasks"].is_null(), "{report}");

    let refused = workshop.run(&["eval", "--speed-rounds", "2"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    // No text is as long.
    let refused = workshop.run(&["eval", "--speed", "--no-text", "--speed-prompt", "9999999"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--speed-prompt"),
        "{}",
        refused.stderr
    );
}
