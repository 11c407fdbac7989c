use std::collections::BTreeSet;

use super::*;
use crate::plan::fixture::{self, Stored};

/// What `criterion` chooses where a model costs a nat for every layer and half
/// a nat for every sublayer that goes, the later ones a little less.
pub(super) fn choose(
    criterion: &dyn LayerCriterion,
    stats: &Stats,
    asked: [usize; 3],
    pinned: &[usize],
) -> Option<Vec<Removal>> {
    let fixture = fixture::model(Stored::Stacked);
    let mut wanted = Wanted::nothing(&fixture.topology, None);
    for (unit, count) in Unit::ALL.into_iter().zip(asked) {
        wanted.ask(unit, count);
    }
    for &layer in pinned {
        wanted.pin(layer);
    }
    let mut cost = |keep: &Keep| {
        let gone = |layer: usize| match keep.layers.contains(&layer) {
            false => 1.0,
            true => {
                let skip = keep.skip(layer);
                0.5 * f64::from(u8::from(skip.attention) + u8::from(skip.mlp))
            }
        };
        Ok((0..4)
            .map(|layer| gone(layer) * (1.0 - 0.1 * layer as f64))
            .sum())
    };
    let mut evidence = Evidence {
        stats,
        cost: criterion.measures().then_some(&mut cost as &mut Cost<'_>),
    };
    criterion
        .choose(&mut evidence, &stats.weights(), &wanted)
        .unwrap()
}

#[test]
fn every_criterion_chooses_as_much_as_asked_and_nothing_that_is_pinned() {
    let stats = fixture::stats("x");
    for criterion in LAYER_CRITERIA {
        for (which, unit) in Unit::ALL.into_iter().enumerate() {
            // Three of the four layers have experts.
            let there = if unit == Unit::Moe { 3 } else { 4 };
            for count in 0..there {
                let mut asked = [0; 3];
                asked[which] = count;
                let choose = |pinned: &[usize]| choose(*criterion, &stats, asked, pinned);
                let chosen = choose(&[]).unwrap();
                let can = criterion.units().contains(&unit);
                let name = criterion.name();
                assert_eq!(chosen.len(), if can { count } else { 0 }, "{name}");
                assert!(chosen.iter().all(|it| it.unit == unit), "{name}");
                let layers: BTreeSet<_> = chosen.iter().map(|it| it.layer).collect();
                assert_eq!(layers.len(), chosen.len(), "{name}");
                for layer in 0..4 {
                    let holds = |it: &Removal| it.layer == layer && it.unit != Unit::Attention;
                    let spared = choose(&[layer]);
                    assert!(
                        spared.is_none_or(|chosen| !chosen.iter().any(holds)),
                        "{name}"
                    );
                }
            }
        }
        let pinned = choose(*criterion, &stats, [1, 0, 0], &[0, 1, 2, 3]);
        assert_eq!(pinned, None, "{}", criterion.name());
    }
}

#[test]
fn kinds_are_chosen_together() {
    let stats = fixture::stats("x");
    for criterion in LAYER_CRITERIA {
        if criterion.units().len() < 3 {
            continue;
        }
        let chosen = choose(*criterion, &stats, [1, 2, 1], &[]).unwrap();
        let fixture = fixture::model(Stored::Stacked);
        let wanted = Wanted::nothing(&fixture.topology, None);
        let keep = wanted.keep(&chosen);
        keep.check(&fixture.topology).unwrap();
        assert_eq!(chosen.len(), 4, "{}", criterion.name());
    }
}

#[test]
fn names_are_unique_and_found() {
    let names: BTreeSet<_> = LAYER_CRITERIA.iter().map(|c| c.name()).collect();
    assert_eq!(names.len(), LAYER_CRITERIA.len());
    for name in names {
        assert_eq!(layer_criterion(name).unwrap().name(), name);
    }
    assert!(layer_criterion("depth").is_err());
}
