//! Greedy by loss: of all that may go, that without which the model assigns most
//! probability to calibration text, c* = argmin_c −(1/T) Σ log p(x_t | x_{<t};
//! without what is gone and c); then the next one, without that. In nats a token.
//!
//! SLEB (arXiv 2402.09025) for whole layers; BlockPruner (arXiv 2406.10594) for
//! attention and feed-forward sublayers. What goes first changes what the rest is
//! worth, which no statistic of the whole model knows: it takes one forward pass
//! over the text per candidate and step, O(L) for each thing that goes.

use super::{Evidence, LayerCriterion, Removal, Unit, Wanted};
use crate::check::expect_finite;
use crate::error::{Error, Result};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Greedy;

impl LayerCriterion for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn about(&self) -> &'static str {
        "one after the other, that without which calibration text is most likely: a forward pass per candidate"
    }

    fn source(&self) -> &'static str {
        "SLEB (arXiv 2402.09025), BlockPruner (arXiv 2406.10594)"
    }

    fn measures(&self) -> bool {
        true
    }

    fn choose(
        &self,
        evidence: &mut Evidence<'_, '_>,
        _: &[f64],
        wanted: &Wanted<'_>,
    ) -> Result<Option<Vec<Removal>>> {
        if wanted.total() == 0 {
            return Ok(Some(Vec::new()));
        }
        let Some(cost) = evidence.cost.as_deref_mut() else {
            return Err(Error::Option {
                option: "--layer-criterion",
                expected: "one that statistics decide, where there is no text to measure on"
                    .to_owned(),
                found: self.name().to_owned(),
            });
        };
        let mut gone: Vec<Removal> = Vec::with_capacity(wanted.total());
        while gone.len() < wanted.total() {
            let mut best: Option<(f64, Removal)> = None;
            for unit in Unit::ALL {
                if wanted.left(unit, &gone) == 0 {
                    continue;
                }
                for layer in wanted.candidates(unit, &gone) {
                    let removal = Removal { unit, layer };
                    gone.push(removal);
                    let nats = cost(&wanted.keep(&gone))?;
                    gone.pop();
                    expect_finite(&[nats], |_| format!("loss without the {unit} {layer}"))?;
                    // Of equal ones the later goes, as with other criteria.
                    if best.is_none_or(|(least, _)| nats <= least) {
                        best = Some((nats, removal));
                    }
                }
            }
            match best {
                Some((_, removal)) => gone.push(removal),
                None => return Ok(None),
            }
        }
        Ok(Some(gone))
    }
}

#[cfg(test)]
mod tests {
    use router_stats::family::Keep;

    use super::super::tests::choose;
    use super::*;
    use crate::plan::fixture::{self, Stored};

    fn removal(unit: Unit, layer: usize) -> Removal {
        Removal { unit, layer }
    }

    #[test]
    fn the_cheapest_goes_first_whatever_its_kind() {
        let stats = fixture::stats("x");
        let chosen = choose(&Greedy, &stats, [1, 1, 1], &[]).unwrap();
        // The last layer costs least, its sublayers half of it each.
        let expected = [
            removal(Unit::Moe, 3),
            removal(Unit::Attention, 3),
            removal(Unit::Layer, 2),
        ];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn what_went_before_changes_what_goes_next() {
        let stats = fixture::stats("x");
        let fixture = fixture::model(Stored::Stacked);
        let mut wanted = Wanted::nothing(&fixture.topology, None);
        wanted.ask(Unit::Layer, 2);
        let mut passes = 0;
        // Without layer 1, layer 2 is worth more than any other.
        let mut cost = |keep: &Keep| {
            passes += 1;
            let gone = |layer: usize| !keep.layers.contains(&layer);
            let alone: f64 = [3.0, 1.0, 1.1, 2.0]
                .into_iter()
                .enumerate()
                .map(|(layer, nats)| if gone(layer) { nats } else { 0.0 })
                .sum();
            Ok(alone + if gone(1) && gone(2) { 9.0 } else { 0.0 })
        };
        let mut evidence = Evidence {
            stats: &stats,
            cost: Some(&mut cost),
        };
        let chosen = Greedy.choose(&mut evidence, &[], &wanted).unwrap().unwrap();
        assert_eq!(chosen, [removal(Unit::Layer, 1), removal(Unit::Layer, 3)]);
        assert_eq!(passes, 4 + 3);
    }

    #[test]
    fn without_text_it_says_so() {
        let stats = fixture::stats("x");
        let fixture = fixture::model(Stored::Stacked);
        let mut wanted = Wanted::nothing(&fixture.topology, None);
        wanted.ask(Unit::Attention, 1);
        let error = Greedy
            .choose(&mut (&stats).into(), &[], &wanted)
            .unwrap_err();
        assert!(error.is_usage());
        assert!(
            error.to_string().contains("no text to measure on"),
            "{error}"
        );
    }
}
