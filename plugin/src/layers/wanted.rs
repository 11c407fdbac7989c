//! How much is to go from layers as a whole, and what may.

use router_stats::family::{Keep, Topology};

use super::Unit;

/// One thing that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Removal {
    /// What.
    pub unit: Unit,
    /// From which layer, by its original index.
    pub layer: usize,
}

/// What a [`LayerCriterion`](super::LayerCriterion) has to choose.
///
/// Nothing goes twice: a layer that goes takes its sublayers along, and one that
/// has lost a sublayer does not go whole. Both sublayers of one may go.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    topology: &'a Topology,
    /// Experts that each token takes, if fewer than the model's.
    top_k: Option<usize>,
    /// How many of each [`Unit`] go.
    counts: [usize; 3],
    /// Of each unit, one flag per layer: whether it may go.
    free: [Vec<bool>; 3],
}

impl<'a> Wanted<'a> {
    /// Nothing of a model whose tokens take `top_k` experts, or as many as it
    /// says.
    pub fn nothing(topology: &'a Topology, top_k: Option<usize>) -> Self {
        let layers = || 0..topology.layers();
        let any = || vec![true; topology.layers()];
        Self {
            topology,
            top_k,
            counts: [0; 3],
            free: [
                any(),
                any(),
                layers().map(|it| topology.moe(it).is_some()).collect(),
            ],
        }
    }

    /// Asks for `count` of `unit`.
    pub fn ask(&mut self, unit: Unit, count: usize) {
        self.counts[unit as usize] = count;
    }

    /// Keeps the experts of `layer` from going, and so the layer.
    pub fn pin(&mut self, layer: usize) {
        for unit in [Unit::Layer, Unit::Moe] {
            self.free[unit as usize][layer] = false;
        }
    }

    /// How many of `unit` go.
    pub fn count(&self, unit: Unit) -> usize {
        self.counts[unit as usize]
    }

    /// How many go in all.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// How many of `unit` have to go beside those of `gone`.
    pub fn left(&self, unit: Unit, gone: &[Removal]) -> usize {
        let went = gone.iter().filter(|it| it.unit == unit).count();
        self.count(unit).saturating_sub(went)
    }

    /// Layers whose `unit` may go once `gone` has gone, ascending.
    pub fn candidates(&self, unit: Unit, gone: &[Removal]) -> Vec<usize> {
        let clash = |layer: usize| {
            gone.iter().any(|it| {
                it.layer == layer && (it.unit == unit || [it.unit, unit].contains(&Unit::Layer))
            })
        };
        let free = self.free[unit as usize].iter().enumerate();
        free.filter(|&(layer, &free)| free && !clash(layer))
            .map(|(layer, _)| layer)
            .collect()
    }

    /// What stays of the model without `gone`.
    pub fn keep(&self, gone: &[Removal]) -> Keep {
        let mut keep = Keep {
            top_k: self.top_k,
            ..Keep::all(self.topology)
        };
        for removal in gone {
            match removal.unit {
                Unit::Layer => keep.layers.retain(|&layer| layer != removal.layer),
                Unit::Attention => keep.skipped[removal.layer].attention = true,
                Unit::Moe => keep.skipped[removal.layer].mlp = true,
            }
        }
        keep.normalized()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, Stored};

    #[test]
    fn nothing_goes_twice() {
        let fixture = fixture::model(Stored::Stacked);
        let mut wanted = Wanted::nothing(&fixture.topology, None);
        wanted.ask(Unit::Moe, 2);
        wanted.pin(3);
        let gone = [
            Removal {
                unit: Unit::Layer,
                layer: 0,
            },
            Removal {
                unit: Unit::Moe,
                layer: 2,
            },
        ];
        assert_eq!(wanted.candidates(Unit::Moe, &[]), [0, 2]);
        assert_eq!(wanted.candidates(Unit::Moe, &gone), [] as [usize; 0]);
        assert_eq!(wanted.candidates(Unit::Attention, &gone), [1, 2, 3]);
        assert_eq!(wanted.candidates(Unit::Layer, &gone), [1]);
        assert_eq!(wanted.left(Unit::Moe, &gone), 1);
        assert_eq!((wanted.total(), wanted.count(Unit::Layer)), (2, 0));
        let keep = wanted.keep(&gone);
        assert_eq!(keep.layers, [1, 2, 3]);
        assert!(keep.skip(2).mlp && !keep.skip(2).attention);
    }

    #[test]
    fn a_layer_that_loses_both_sublayers_goes() {
        let fixture = fixture::model(Stored::Stacked);
        let wanted = Wanted::nothing(&fixture.topology, Some(1));
        let both = [Unit::Attention, Unit::Moe].map(|unit| Removal { unit, layer: 2 });
        let keep = wanted.keep(&both);
        assert_eq!(
            (keep.layers.as_slice(), keep.top_k),
            (&[0, 1, 3][..], Some(1))
        );
        keep.check(&fixture.topology).unwrap();
    }
}
