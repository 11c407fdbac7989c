//! A small report, for the tests of this folder, and what it must answer.

use std::collections::BTreeSet;

use super::*;
use crate::compare::sign_test;

/// A report on two domains of 8 documents each; variants lose `losses` nats per token, and a
/// little more on some sequences than on others.
pub(crate) fn sample(losses: &[(&str, f64)]) -> Report {
    let names = ["code", "math", "empty"];
    let sequences = 24u32;
    let predictions = Predictions {
        domains: (0..sequences)
            .map(|sequence| u16::from(sequence % 3 == 0))
            .collect(),
        documents: (0..sequences).map(|sequence| sequence / 3).collect(),
        tokens: (100..100 + sequences).collect(),
    };
    let column = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        predictions
            .tokens
            .iter()
            .enumerate()
            .map(|(i, &n)| f64::from(n) * f(i as f64))
            .collect()
    };
    let difficulty = |i: f64| 2.0 + 0.3 * (i * 1.9).sin();
    let model = |name: &str, sums: Vec<(&str, Vec<f64>)>| Model {
        name: name.to_owned(),
        fingerprint: format!("{:064x}", name.len()),
        masked: name != "original",
        quantization: None,
        bytes: None,
        all: Estimates::new(),
        domains: BTreeMap::new(),
        sums: sums
            .into_iter()
            .map(|(name, sums)| (name.to_owned(), sums))
            .collect(),
    };
    let variants = losses
        .iter()
        .map(|&(name, loss)| {
            let lost = |i: f64| difficulty(i) + loss * (1.0 + 0.2 * (i * 0.7).cos());
            let diverged = |i: f64| loss * (0.5 + 0.1 * i.cos());
            let agreed = |i: f64| (-loss).exp() * (0.95 + 0.05 * i.sin());
            model(
                name,
                vec![
                    ("nll", column(&lost)),
                    ("top1", column(&agreed)),
                    ("overlap", column(&agreed)),
                    ("kl", column(&diverged)),
                ],
            )
        })
        .collect();
    let domains = names
        .iter()
        .zip([0.75, 0.25, 0.0])
        .enumerate()
        .map(|(index, (name, weight))| {
            let own = |&(_, &domain): &(&u32, &u16)| usize::from(domain) == index;
            let tokens = || {
                predictions
                    .tokens
                    .iter()
                    .zip(&predictions.domains)
                    .filter(own)
            };
            Domain {
                name: (*name).to_owned(),
                weight,
                sequences: tokens().count() as u64,
                documents: tokens().count().min(8) as u64,
                tokens: tokens().map(|(&n, _)| u64::from(n)).sum(),
            }
        })
        .collect();
    let provenance = Provenance {
        created_by: "prune-eval test".to_owned(),
        corpus: "c0ffee".to_owned(),
        seq_len: 128,
        bootstrap: Bootstrap {
            resamples: 500,
            confidence: 0.95,
            seed: 1,
        },
        domains,
    };
    let reference = model("original", vec![("nll", column(&difficulty))]);
    Report::new(provenance, predictions.clone(), reference, variants)
}

#[test]
fn rows_hold_what_each_model_can_have() {
    let report = sample(&[("half", 0.4)]);
    assert_eq!(report.reference.all.len(), 2);
    assert_eq!(report.reference.estimate("perplexity_change", None), None);
    let half = &report.variants[0];
    assert_eq!(half.all.len(), evaluator::metrics().count());
    assert_eq!(half.domains.keys().collect::<Vec<_>>(), ["code", "math"]);
    let change = half.estimate("perplexity_change", Some("math")).unwrap();
    let ratio = half.estimate("perplexity", Some("math")).unwrap().value
        / report
            .reference
            .estimate("perplexity", Some("math"))
            .unwrap()
            .value;
    assert!((change.value - (ratio - 1.0)).abs() < 1e-12);
    assert!(change.excludes_zero());
}

#[test]
fn all_is_the_mixture_by_weight() {
    let report = sample(&[("half", 0.4)]);
    let nll = |domain| report.variants[0].estimate("nll", domain).unwrap().value;
    assert!((nll(None) - (0.75 * nll(Some("code")) + 0.25 * nll(Some("math")))).abs() < 1e-12);
    let perplexity = report.variants[0]
        .estimate("perplexity", None)
        .unwrap()
        .value;
    assert!((perplexity - nll(None).exp()).abs() < 1e-9);
}

#[test]
fn differences_compare_variants() {
    let report = sample(&[("half", 0.4), ("same", 0.4), ("quarter", 0.1)]);
    let same = report.difference(0, 1, "nll", None).unwrap();
    assert_eq!((same.value, same.interval()), (0.0, Some((0.0, 0.0))));
    assert!(!same.excludes_zero());
    let worse = report.difference(0, 2, "perplexity", None).unwrap();
    assert!(worse.value > 0.0 && worse.excludes_zero());
    assert_eq!(
        worse,
        report.difference(0, 2, "perplexity_change", None).unwrap()
    );
    assert!(
        report
            .difference(0, 2, "overlap", Some("code"))
            .unwrap()
            .value
            < 0.0
    );
    assert!(matches!(
        report.difference(0, 3, "nll", None),
        Err(Error::UnknownVariant { count: 3, found: 3 })
    ));
    assert!(matches!(
        report.difference(0, 1, "speed", None),
        Err(Error::UnknownMetric { .. })
    ));
    let error = report.difference(0, 1, "nll", Some("empty")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "domain: expected one of code, math, found `empty`"
    );
}

#[test]
fn a_variant_does_not_depend_on_its_neighbours() {
    let alone = sample(&[("half", 0.4)]);
    let last = sample(&[("quarter", 0.1), ("half", 0.4)]);
    assert_eq!(alone.variants[0], last.variants[1]);
}

#[test]
fn the_worst_domain_is_that_of_the_largest_change() {
    let mut report = sample(&[("half", 0.4)]);
    let (name, worst) = report.worst_domain(0).unwrap();
    let other = if name == "code" { "math" } else { "code" };
    assert!(
        worst.value
            > report.variants[0]
                .estimate("perplexity_change", Some(other))
                .unwrap()
                .value
    );
    assert_eq!(report.worst_domain(1), None);
    report.provenance.domains.truncate(1);
    assert_eq!(report.worst_domain(0), None);
}

#[test]
fn comparisons_are_corrected_within_their_family() {
    let report = sample(&[("half", 0.4), ("same", 0.4), ("quarter", 0.1)]);
    assert_eq!(report.best().unwrap().name, "quarter");
    // Three variants with the reference and two with the best, on three texts.
    assert_eq!(report.comparisons.len(), 15);
    let compared = |model, against, domain| report.comparison(model, against, domain).unwrap();
    for domain in [None, Some("code"), Some("math")] {
        let half = compared("half", "quarter", domain);
        let value = half.bootstrap.unwrap();
        assert!(
            value.p < 0.01 && value.adjusted == 2.0 * value.p,
            "{half:?}"
        );
        assert_eq!(
            half.bootstrap,
            compared("same", "quarter", domain).bootstrap
        );
        let clusters = if domain.is_none() { 16 } else { 8 };
        assert_eq!((half.worse, half.better), (clusters, 0));
        assert_eq!(half.sign.p, sign_test(clusters, 0));
        assert_eq!(half.sign.adjusted, 2.0 * half.sign.p);
        let lost = compared("half", "original", domain);
        assert_eq!(lost.sign.adjusted, 3.0 * half.sign.p);
    }
    assert_eq!(report.comparison("quarter", "half", None), None);
    assert!(sample(&[]).comparisons.is_empty() && sample(&[]).best().is_none());
}

#[test]
fn equal_models_are_not_distinguishable() {
    let report = sample(&[("half", 0.4), ("same", 0.4), ("free", 0.0)]);
    let free = report.comparison("free", "original", None).unwrap();
    assert_eq!(free.bootstrap.unwrap().p, 1.0);
    assert_eq!((free.worse, free.better, free.sign.p), (0, 0, 1.0));
}

#[test]
fn large_families_are_resampled_finely_enough() {
    let names: Vec<String> = (0..30).map(|index| format!("v{index}")).collect();
    let losses: Vec<(&str, f64)> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (name.as_str(), 0.3 + 0.1 * index as f64))
        .collect();
    let report = sample(&losses);
    let least = 2.0 / (report.provenance.bootstrap.resamples + 1) as f64;
    assert!(30.0 * least > 0.05, "the report's own draws are too few");
    let last = report.comparison("v29", "original", None).unwrap();
    assert!(last.bootstrap.unwrap().adjusted < 0.05, "{last:?}");
}

#[test]
fn documents_are_resampled_not_sequences() {
    let report = sample(&[("half", 0.4)]);
    let width = |report: &Report| {
        let change = report.variants[0].estimate("nll_change", Some("code"));
        let (low, high) = change.unwrap().interval().unwrap();
        high - low
    };
    let again = |documents: &dyn Fn(u32) -> u32| {
        let mut predictions = report.predictions.clone();
        predictions.documents = (0..24).map(documents).collect();
        let mut provenance = report.provenance.clone();
        for (index, domain) in provenance.domains.iter_mut().enumerate() {
            let own =
                (0..24).filter(|&sequence| usize::from(predictions.domains[sequence]) == index);
            let own: BTreeSet<u32> = own
                .map(|sequence| predictions.documents[sequence])
                .collect();
            domain.documents = own.len() as u64;
        }
        let (reference, variants) = (report.reference.clone(), report.variants.clone());
        Report::new(provenance, predictions, reference, variants)
    };
    // The loss of a sequence has a period of nine: thirds of it are alike.
    let alike = again(&|sequence| sequence % 9 / 3);
    assert!(width(&alike) > 1.5 * width(&again(&|sequence| sequence)));
    let one = again(&|_| 0);
    let code = one.variants[0].estimate("nll_change", Some("code"));
    assert_eq!(code.unwrap().interval(), None);
    let text = one.to_text(100);
    assert!(
        text.contains("[?]: no interval from a single cluster: code, math; nor has all"),
        "{text}"
    );
    assert_eq!(one.comparisons[0].bootstrap, None);
}
