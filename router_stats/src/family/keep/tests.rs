use super::*;
use crate::family::{
    AttentionSpec, GroupScore, GroupedQuery, Groups, MlpSpec, MoeSpec, NormSpec, RotarySpec,
    RouterRule,
};

/// Three layers: 4 experts top-2, dense, 4 experts top-2.
fn topology() -> Topology {
    let moe = MlpSpec::Moe(MoeSpec {
        experts: 4,
        intermediate: 8,
        router: RouterRule::softmax(2, true),
        shared: None,
    });
    Topology {
        hidden: 8,
        vocab: 16,
        max_positions: 32,
        norm: NormSpec::rms(1e-6),
        tied_head: true,
        head_bias: false,
        attention: AttentionSpec::grouped(
            GroupedQuery::plain(2, 1, 4),
            RotarySpec::plain(4, 1e4),
            vec![None; 3],
        ),
        prediction_layers: 0,
        mlps: vec![moe.clone(), MlpSpec::Dense { intermediate: 8 }, moe],
    }
}

fn check(layers: &[usize], experts: [&[usize]; 3]) -> Result<()> {
    let keep = Keep {
        layers: layers.to_vec(),
        experts: experts.into_iter().map(<[usize]>::to_vec).collect(),
        ..Keep::all(&topology())
    };
    keep.check(&topology())
}

#[test]
fn everything_is_the_identity() {
    let topology = topology();
    let keep = Keep::all(&topology);
    assert!(keep.is_identity(&topology));
    keep.check(&topology).unwrap();
    assert_eq!(keep.uniform_experts(&topology), Some(4));
}

#[test]
fn valid_cuts_pass() {
    check(&[0, 2], [&[0, 3], &[], &[1, 2, 3]]).unwrap();
    check(&[1, 2], [&[], &[], &[1, 2]]).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let all: &[usize] = &[0, 1, 2, 3];
    for (layers, experts, named) in [
        (&[2, 0][..], [all, &[], all], "kept layers"),
        (&[0, 0], [all, &[], all], "kept layers"),
        (&[0, 3], [all, &[], all], "kept layers"),
        (&[], [all, &[], all], "kept layers"),
        (&[1], [all, &[], all], "kept layers"),
        (&[0, 1], [all, &[0], all], "kept experts of layer 1"),
        (&[0], [&[1, 0], &[], all], "kept experts of layer 0"),
        (&[0], [&[0, 4], &[], all], "kept experts of layer 0"),
        (&[0], [&[0], &[], all], "kept experts of layer 0"),
    ] {
        match check(layers, experts) {
            Err(Error::Structure { what, .. }) => assert_eq!(what, named),
            other => panic!("{layers:?} {experts:?}: {other:?}"),
        }
    }
    let short = Keep {
        layers: vec![0],
        experts: vec![vec![0, 1]],
        ..Keep::all(&topology())
    };
    assert!(short.check(&topology()).is_err());
    let short = Keep {
        skipped: Vec::new(),
        ..Keep::all(&topology())
    };
    assert!(short.check(&topology()).is_err());
}

#[test]
fn groups_keep_equally_many_and_enough() {
    let mut topology = topology();
    for mlp in &mut topology.mlps {
        if let MlpSpec::Moe(moe) = mlp {
            moe.experts = 9;
            moe.router.groups = Some(Groups {
                count: 3,
                chosen: 2,
                score: GroupScore::BestTwo,
            });
        }
    }
    Keep::all(&topology).check(&topology).unwrap();
    let message = |kept: &[usize]| {
        let mut keep = Keep::all(&topology);
        keep.experts[2] = kept.to_vec();
        keep.check(&topology).map_err(|error| error.to_string())
    };
    message(&[0, 2, 3, 4, 7, 8]).unwrap();
    for (kept, named) in [
        (
            &[0, 1, 3, 4, 6][..],
            "kept experts of layer 2: expected at least 6 (2 in each of 3 groups: \
             a group is chosen by its two best), found 5",
        ),
        (
            &[0, 1, 2, 3, 4, 5, 6],
            "kept experts of layer 2: expected a multiple of 3 (equally many of each group), found 7",
        ),
        (
            &[0, 1, 3, 4, 5, 6],
            "kept experts of layer 2 in group 1 of 3: expected 2 (equally many of each group), found 3",
        ),
    ] {
        let text = message(kept).unwrap_err();
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn masks_and_counts_follow_the_lists() {
    let topology = topology();
    let mut keep = Keep::all(&topology);
    keep.experts[0] = vec![1, 3];
    assert_eq!(keep.mask(&topology, 0), [false, true, false, true]);
    assert_eq!(keep.uniform_experts(&topology), None);
    keep.layers = vec![0, 1];
    assert_eq!(keep.uniform_experts(&topology), Some(2));
    keep.layers = vec![1];
    assert_eq!(keep.uniform_experts(&topology), None);
}

fn skipping(skips: [(bool, bool); 3]) -> Keep {
    Keep {
        skipped: skips
            .map(|(attention, mlp)| Skip { attention, mlp })
            .to_vec(),
        ..Keep::all(&topology())
    }
}

#[test]
fn one_sublayer_of_each_kind_stays() {
    let (none, attention, mlp) = ((false, false), (true, false), (false, true));
    for skips in [
        [none, none, mlp],
        [mlp, mlp, none],
        [attention, none, attention],
        [attention, mlp, none],
    ] {
        skipping(skips).check(&topology()).unwrap();
    }
    for (skips, named) in [
        ([mlp, none, mlp], "kept MoE sublayers"),
        ([attention; 3], "kept attention sublayers"),
        ([(true, true), none, none], "skipped sublayers of layer 0"),
    ] {
        match skipping(skips).check(&topology()) {
            Err(Error::Structure { what, .. }) => assert_eq!(what, named),
            other => panic!("{skips:?}: {other:?}"),
        }
    }
    let mut keep = skipping([mlp, none, none]);
    keep.experts[0] = vec![0];
    keep.check(&topology()).unwrap();
    assert_eq!(keep.uniform_experts(&topology()), Some(4));
    assert!(keep.moe(&topology(), 0).is_none());
    assert!(!keep.is_identity(&topology()));
}

#[test]
fn a_block_without_both_sublayers_is_a_dropped_block() {
    let none = (false, false);
    let keep = skipping([none, (true, true), (true, false)]).normalized();
    assert_eq!(keep.layers, [0, 2]);
    assert_eq!(keep.skipped[1], Skip::default());
    assert!(keep.skip(2).attention);
    keep.check(&topology()).unwrap();
    let dropped = Keep {
        layers: vec![0, 1],
        ..skipping([none, none, (false, true)])
    };
    assert_eq!(dropped.normalized().skipped, [Skip::default(); 3]);
}

#[test]
fn fewer_experts_a_token_lower_the_floor() {
    let mut keep = Keep {
        top_k: Some(1),
        ..Keep::all(&topology())
    };
    keep.experts[0] = vec![2];
    keep.check(&topology()).unwrap();
    assert_eq!(keep.routed(&topology()).moe(2).unwrap().router.top_k, 1);
    for (top_k, found) in [(0, "found 0"), (2, "found 2"), (3, "found 3")] {
        keep.top_k = Some(top_k);
        let text = keep.check(&topology()).unwrap_err().to_string();
        let expected = "experts per token: expected 1 to 1, fewer than the model's 2";
        assert!(text.contains(expected) && text.contains(found), "{text}");
    }
    let mut mixer = topology();
    for mlp in &mut mixer.mlps {
        if let MlpSpec::Moe(moe) = mlp {
            moe.router.scoring = Scoring::SparseMixer { jitter: 0.01 };
        }
    }
    keep.top_k = Some(1);
    let text = keep.check(&mixer).unwrap_err().to_string();
    assert!(text.contains("a sparse mixer takes no fewer"), "{text}");
}
