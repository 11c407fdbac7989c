//! What stays of a model.

use crate::family::{MoeSpec, Topology};
use crate::{Error, Result};

/// The layers and experts that stay, by their original indices.
///
/// The same value masks a forward pass, slices a checkpoint and rewrites a
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Kept layers, ascending.
    pub layers: Vec<usize>,
    /// Kept experts of every *original* layer, ascending; empty for dense
    /// layers. Entries of dropped layers are ignored.
    pub experts: Vec<Vec<usize>>,
}

impl Keep {
    /// Everything stays.
    pub fn all(topology: &Topology) -> Self {
        Self {
            layers: (0..topology.layers()).collect(),
            experts: topology
                .experts()
                .into_iter()
                .map(|n| (0..n).collect())
                .collect(),
        }
    }

    /// Whether everything stays.
    pub fn is_identity(&self, topology: &Topology) -> bool {
        *self == Self::all(topology)
    }

    /// One flag per expert of `layer`, true if it stays.
    pub fn mask(&self, topology: &Topology, layer: usize) -> Vec<bool> {
        let mut mask = vec![false; topology.experts()[layer]];
        for &expert in &self.experts[layer] {
            mask[expert] = true;
        }
        mask
    }

    /// Kept experts of the kept MoE layers if they all keep the same number,
    /// which a single count in `config.json` needs; `None` if they differ or
    /// there is no MoE layer.
    pub fn uniform_experts(&self, topology: &Topology) -> Option<usize> {
        let mut counts = self
            .layers
            .iter()
            .filter(|&&layer| topology.moe(layer).is_some())
            .map(|&layer| self.experts[layer].len());
        let first = counts.next()?;
        counts.all(|n| n == first).then_some(first)
    }

    /// Checks that a model of this structure can be cut so.
    ///
    /// # Errors
    /// [`Error::Structure`] if indices are out of range or out of order, no
    /// layer or no MoE layer would be left, a layer would keep fewer experts
    /// than its router chooses from, or its groups would keep different
    /// numbers of them.
    pub fn check(&self, topology: &Topology) -> Result<()> {
        ascending_below("kept layers", &self.layers, topology.layers())?;
        if !self
            .layers
            .iter()
            .any(|&layer| topology.moe(layer).is_some())
        {
            return Err(structure("kept layers", "at least one MoE layer", "none"));
        }
        if self.experts.len() != topology.layers() {
            return Err(structure(
                "expert lists",
                &format!("one per layer ({})", topology.layers()),
                &self.experts.len().to_string(),
            ));
        }
        for &layer in &self.layers {
            let kept = &self.experts[layer];
            let what = format!("kept experts of layer {layer}");
            match topology.moe(layer) {
                None if kept.is_empty() => {}
                None => {
                    return Err(structure(
                        &what,
                        "none (the layer is dense)",
                        &kept.len().to_string(),
                    ))
                }
                Some(moe) => {
                    ascending_below(&what, kept, moe.experts)?;
                    routable(&what, kept, moe)?;
                }
            }
        }
        Ok(())
    }
}

/// Fails unless the router of a layer can choose among the experts it keeps:
/// as many as it needs, and equally many of each of its groups.
fn routable(what: &str, kept: &[usize], moe: &MoeSpec) -> Result<()> {
    let rule = &moe.router;
    if kept.len() < rule.floor() {
        let expected = format!("at least {} ({})", rule.floor(), rule.floor_reason());
        return Err(structure(what, &expected, &kept.len().to_string()));
    }
    let groups = rule.group_count();
    if !kept.len().is_multiple_of(groups) {
        let expected = format!("a multiple of {groups} (equally many of each group)");
        return Err(structure(what, &expected, &kept.len().to_string()));
    }
    let each = kept.len() / groups;
    for (group, range) in rule.group_ranges(moe.experts).enumerate() {
        let found = kept.iter().filter(|expert| range.contains(expert)).count();
        if found != each {
            let what = format!("{what} in group {group} of {groups}");
            let expected = format!("{each} (equally many of each group)");
            return Err(structure(&what, &expected, &found.to_string()));
        }
    }
    Ok(())
}

fn ascending_below(what: &str, indices: &[usize], bound: usize) -> Result<()> {
    if indices.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(structure(
            what,
            "ascending indices without repetition",
            &format!("{indices:?}"),
        ));
    }
    match indices.last() {
        Some(&last) if last >= bound => Err(structure(
            what,
            &format!("indices below {bound}"),
            &last.to_string(),
        )),
        _ => Ok(()),
    }
}

fn structure(what: &str, expected: &str, found: &str) -> Error {
    Error::Structure {
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
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
}
