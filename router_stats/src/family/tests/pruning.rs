//! A rewritten configuration means what is kept.

use super::{either_spelling, Case};
use crate::family::{Keep, MlpSpec, Topology};

/// All layers, or some of them, with all or half the experts of each group.
fn cuts(topology: &Topology) -> Vec<Keep> {
    let all = Keep::all(topology);
    let mut half = all.clone();
    for (kept, mlp) in half.experts.iter_mut().zip(&topology.mlps) {
        if let MlpSpec::Moe(moe) = mlp {
            let ranges = moe.router.group_ranges(moe.experts);
            *kept = ranges
                .flat_map(|range| {
                    let least = moe.router.floor() / moe.router.group_count();
                    let each = (range.len() / 2).max(least);
                    range.skip(1).take(each)
                })
                .collect();
        }
    }
    let without_first = (1..topology.layers()).collect::<Vec<_>>();
    let every_other = (0..topology.layers()).step_by(2).collect::<Vec<_>>();
    let mut cuts = vec![half.clone()];
    for layers in [without_first, every_other] {
        for keep in [&all, &half] {
            cuts.push(Keep {
                layers: layers.clone(),
                ..keep.clone()
            });
        }
    }
    cuts
}

/// What `keep` leaves of `topology`.
fn cut(topology: &Topology, keep: &Keep) -> Topology {
    let mut left = topology.clone();
    left.mlps = keep
        .layers
        .iter()
        .map(|&layer| {
            let mut mlp = topology.mlps[layer].clone();
            if let MlpSpec::Moe(moe) = &mut mlp {
                moe.experts = keep.experts[layer].len();
            }
            mlp
        })
        .collect();
    let windows = &topology.attention.windows;
    left.attention.windows = keep.layers.iter().map(|&layer| windows[layer]).collect();
    left.prediction_layers = 0;
    left
}

#[test]
fn a_rewritten_configuration_means_what_is_kept() {
    for case in either_spelling() {
        for keep in cuts(&case.topology) {
            keep.check(&case.topology).unwrap();
            let mut rewritten = case.value.clone();
            case.family
                .rewrite_config(&mut rewritten, &case.topology, &keep);
            let expected = cut(&case.topology, &keep);
            assert_eq!(case.read(&rewritten), expected, "{}", case.name);
        }
    }
}

#[test]
fn experts_that_no_group_size_divides_are_no_obstacle_where_all_groups_are_open() {
    for Case {
        name,
        value,
        family,
        topology,
    } in either_spelling()
    {
        if topology.moes().any(|moe| moe.router.groups.is_some()) {
            continue;
        }
        let mut keep = Keep::all(&topology);
        keep.experts.iter_mut().for_each(|kept| {
            kept.pop();
        });
        let mut rewritten = value;
        family.rewrite_config(&mut rewritten, &topology, &keep);
        let config = crate::family::Config::new(&name, rewritten).unwrap();
        let after = family.topology(&config).unwrap();
        assert_eq!(after, cut(&topology, &keep), "{name}");
    }
}

#[test]
fn keeping_everything_only_drops_prediction_layers() {
    for case in either_spelling() {
        let mut rewritten = case.value.clone();
        let keep = Keep::all(&case.topology);
        case.family
            .rewrite_config(&mut rewritten, &case.topology, &keep);
        let mut expected = case.value.clone();
        if case.topology.prediction_layers > 0 {
            expected["num_nextn_predict_layers"] = 0.into();
        }
        assert_eq!(rewritten, expected, "{}", case.name);
    }
}
