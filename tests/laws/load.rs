//! Loads that a report counts are those of statistics, and after pruning those
//! of the masked model.

use mistralrs_prune::report::count;
use prune_tests::Golden;
use router_stats::observer::routing;
use router_stats::progress::Silent;

#[test]
fn loads_are_those_of_statistics_and_stay_with_what_is_kept() {
    for golden in Golden::all() {
        let (model, sequences, keep) = (&golden.model, golden.sequences(), golden.kept());
        let counted = count(model, &keep, &sequences, 24, &Silent).unwrap();
        let stats = crate::cut::measure(model, &sequences);
        let table = &stats.tables[routing::COUNT];
        let tokens = sequences.tokens.len() as f64;
        assert_eq!(counted.tokens as f64, tokens);
        for layer in 0..golden.layers() {
            let Some(moe) = model.topology().moe(layer) else {
                assert!(counted.before[layer].is_empty());
                continue;
            };
            let domains = 0..stats.provenance.domains.len();
            for (expert, &share) in counted.before[layer].iter().enumerate() {
                let count: f64 = domains
                    .clone()
                    .map(|d| table.row(&[d, layer])[expert])
                    .sum();
                assert!(
                    (share - count / tokens).abs() < 1e-12,
                    "{} {layer}",
                    golden.name
                );
            }
            let after = &counted.after[layer];
            if !keep.layers.contains(&layer) {
                assert!(after.is_empty(), "{} {layer}", golden.name);
                continue;
            }
            let top_k = moe.router.top_k as f64;
            for shares in [&counted.before[layer], after] {
                assert!((shares.iter().sum::<f64>() - top_k).abs() < 1e-9);
            }
            for (&share, kept) in after.iter().zip(keep.mask(model.topology(), layer)) {
                assert!(kept || share == 0.0, "{} {layer}", golden.name);
            }
        }
    }
}
