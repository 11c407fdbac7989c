//! A small sweep, for the tests of this folder.

use super::*;
use crate::report::tests::sample;

/// A sweep of three points.
pub(crate) fn sweep() -> Sweep {
    sweep_of(vec![
        line(0.25, 0.0, 0.1),
        line(0.25, 1.0, 0.12),
        line(0.5, 0.0, 0.3),
    ])
}

/// A sweep of these points.
pub(crate) fn sweep_of(lines: Vec<Line>) -> Sweep {
    let settings = BTreeMap::from([("text".to_owned(), "c0ffee".to_owned())]);
    Sweep {
        header: Header {
            sweep: VERSION,
            settings,
            size: size(0.0),
            base: sample(&[]),
        },
        lines,
    }
}

/// A point that loses so many nats per token.
pub(crate) fn line(fraction: f64, seed: f64, loss: f64) -> Line {
    let point = Point::default()
        .number(axis::PRUNE_EXPERTS, fraction)
        .number(axis::SEED, seed);
    let name = point.label(&[]);
    let report = sample(&[(&name, loss)]);
    Line {
        variant: name,
        size: size(fraction),
        worst: Worst::of(&report),
        model: report.variants[0].clone(),
        point,
    }
}

fn size(fraction: f64) -> Size {
    let left = (1000.0 * (1.0 - fraction)) as u64;
    Size {
        parameters: left,
        active_parameters: 100,
        bytes: 2 * left,
    }
}

#[test]
fn lines_are_found_by_point_and_by_variant() {
    let sweep = sweep();
    let point = sweep.lines[1].point.clone();
    assert_eq!(sweep.at(&point), Some(&sweep.lines[1]));
    assert_eq!(sweep.at(&point.number(axis::SEED, 7.0)), None);
    assert_eq!(
        sweep.of_variant(&sweep.lines[2].variant),
        Some(&sweep.lines[2])
    );
    let worst = sweep.lines[0].worst.as_ref().unwrap();
    assert!(["code", "math"].contains(&worst.domain.as_str()));
    assert!(worst.estimates.contains_key("perplexity_change"));
}
