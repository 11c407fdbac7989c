use super::*;

fn too_few(fraction: f64, left: usize, experts: usize, floor: usize) -> Error {
    Error::TooFewExperts {
        budget: ExpertBudget::Fraction(fraction),
        left,
        experts,
        floor,
        groups: 1,
    }
}

#[test]
fn an_impossible_fraction_names_what_is_left_and_the_most_that_can_go() {
    let error = too_few(0.95, 7, 128, 8);
    assert_eq!(
        error.to_string(),
        "--prune-experts 0.95 would leave 7 of 128 experts, but the model routes each token to 8"
    );
    assert_eq!(
        error.hint().unwrap(),
        "the most this model can lose is 0.9375 (8 experts stay); try 0.5"
    );
    assert!(error.is_usage());
    assert_eq!(
        too_few(0.9, 1, 4, 3).hint().unwrap(),
        "the most this model can lose is 0.25 (3 experts stay)"
    );
    assert!(too_few(0.5, 2, 4, 4)
        .hint()
        .unwrap()
        .contains("none can be removed"));
}

#[test]
fn another_model_is_named_with_both_fingerprints() {
    let other = |found: &str| Error::OtherModel {
        what: "half.plan.json was".into(),
        fingerprint: "5f1c0000aaaa".into(),
        name: "Qwen3-30B-A3B".into(),
        found: found.into(),
        found_name: "Qwen3-Coder-30B-A3B".into(),
    };
    assert_eq!(
        other("9b02ffff").to_string(),
        "half.plan.json was made for model 5f1c… (Qwen3-30B-A3B), this is 9b02… (Qwen3-Coder-30B-A3B)"
    );
    assert!(other("5f1c1111bbbb")
        .to_string()
        .contains("5f1c0000… (Qwen3-30B-A3B), this is 5f1c1111…"));
    assert!(!other("9b02ffff").is_usage());
}
