//! What stays of a model.

mod skip;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use skip::Skip;

use crate::family::{MlpSpec, MoeSpec, RouterRule, Scoring, Topology};
use crate::{Error, Result};

/// What stays of a model, by original indices: layers, their sublayers and
/// experts, and how many of them a token takes.
///
/// The same value masks a forward pass, slices a checkpoint and rewrites a
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Kept layers, ascending.
    pub layers: Vec<usize>,
    /// Kept experts of every *original* layer, ascending; empty for dense
    /// layers. Entries of layers that go, or whose feed-forward part does, are
    /// ignored.
    pub experts: Vec<Vec<usize>>,
    /// Sublayers of every *original* layer that go while it stays. Entries of
    /// dropped layers are ignored.
    pub skipped: Vec<Skip>,
    /// Experts that each token takes, if fewer than the model's.
    pub top_k: Option<usize>,
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
            skipped: vec![Skip::default(); topology.layers()],
            top_k: None,
        }
    }

    /// Whether everything stays.
    pub fn is_identity(&self, topology: &Topology) -> bool {
        *self == Self::all(topology)
    }

    /// The same with blocks of which both sublayers go dropped, and with
    /// nothing said of sublayers of dropped blocks.
    pub fn normalized(mut self) -> Self {
        let skipped = &mut self.skipped;
        self.layers.retain(|&layer| {
            let skip = skipped.get(layer).copied().unwrap_or_default();
            !skip.both()
        });
        for (layer, skip) in skipped.iter_mut().enumerate() {
            if self.layers.binary_search(&layer).is_err() {
                *skip = Skip::default();
            }
        }
        self
    }

    /// Which sublayers of `layer`, which stays, go.
    pub fn skip(&self, layer: usize) -> Skip {
        self.skipped.get(layer).copied().unwrap_or_default()
    }

    /// The router and experts that `layer` of the original has, if its
    /// feed-forward part stays.
    pub fn moe<'a>(&self, topology: &'a Topology, layer: usize) -> Option<&'a MoeSpec> {
        topology.moe(layer).filter(|_| !self.skip(layer).mlp)
    }

    /// `topology` with as many experts a token as stay.
    pub fn routed<'a>(&self, topology: &'a Topology) -> Cow<'a, Topology> {
        let Some(top_k) = self.top_k else {
            return Cow::Borrowed(topology);
        };
        let mut topology = topology.clone();
        for mlp in &mut topology.mlps {
            if let MlpSpec::Moe(moe) = mlp {
                moe.router.top_k = top_k;
            }
        }
        Cow::Owned(topology)
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
            .filter(|&&layer| self.moe(topology, layer).is_some())
            .map(|&layer| self.experts[layer].len());
        let first = counts.next()?;
        counts.all(|n| n == first).then_some(first)
    }

    /// Checks that a model of this structure can be cut so.
    ///
    /// # Errors
    /// [`Error::Structure`] if indices are out of range or out of order, no
    /// layer, no MoE layer or no attention would be left, a layer would keep
    /// neither sublayer or fewer experts than its router chooses from, its
    /// groups would keep different numbers of them, or tokens would take no
    /// expert or more than before.
    pub fn check(&self, topology: &Topology) -> Result<()> {
        ascending_below("kept layers", &self.layers, topology.layers())?;
        for (what, found) in [
            ("expert lists", self.experts.len()),
            ("skipped sublayers", self.skipped.len()),
        ] {
            if found != topology.layers() {
                let expected = format!("one per layer ({})", topology.layers());
                return Err(structure(what, &expected, &found.to_string()));
            }
        }
        self.check_left(topology)?;
        let routed = self.routed(topology);
        for &layer in &self.layers {
            let kept = &self.experts[layer];
            let what = format!("kept experts of layer {layer}");
            match routed.moe(layer) {
                _ if self.skip(layer).mlp => {}
                None if kept.is_empty() => {}
                None => {
                    return Err(structure(
                        &what,
                        "none (the layer is dense)",
                        &kept.len().to_string(),
                    ))
                }
                Some(moe) => {
                    check_top_k(self.top_k, &topology.mlps[layer])?;
                    ascending_below(&what, kept, moe.experts)?;
                    routable(&what, kept, &moe.router, moe.experts)?;
                }
            }
        }
        Ok(())
    }

    /// Fails unless a model is left: experts, attention, and something of
    /// every layer that stays.
    fn check_left(&self, topology: &Topology) -> Result<()> {
        let any = |stays: &dyn Fn(usize) -> bool| self.layers.iter().any(|&layer| stays(layer));
        if !any(&|layer| topology.moe(layer).is_some()) {
            return Err(structure("kept layers", "at least one MoE layer", "none"));
        }
        for (what, left) in [
            ("MoE", any(&|layer| self.moe(topology, layer).is_some())),
            ("attention", any(&|layer| !self.skip(layer).attention)),
        ] {
            if !left {
                let what = format!("kept {what} sublayers");
                return Err(structure(&what, "at least one", "none"));
            }
        }
        match self.layers.iter().find(|&&layer| self.skip(layer).both()) {
            None => Ok(()),
            Some(layer) => Err(structure(
                &format!("skipped sublayers of layer {layer}"),
                "at most one of two, as the layer stays",
                "both",
            )),
        }
    }
}

/// Fails unless `top_k` is fewer experts than the layer routes a token to, and
/// its rule can do with fewer.
fn check_top_k(top_k: Option<usize>, mlp: &MlpSpec) -> Result<()> {
    let (Some(top_k), MlpSpec::Moe(moe)) = (top_k, mlp) else {
        return Ok(());
    };
    let rule = &moe.router;
    let expected = match rule.scoring {
        Scoring::SparseMixer { .. } => format!("{}: a sparse mixer takes no fewer", rule.top_k),
        _ if (1..rule.top_k).contains(&top_k) => return Ok(()),
        _ if rule.top_k == 1 => "1, as the model has it".to_owned(),
        _ => format!(
            "1 to {}, fewer than the model's {}",
            rule.top_k - 1,
            rule.top_k
        ),
    };
    Err(structure(
        "experts per token",
        &expected,
        &top_k.to_string(),
    ))
}

/// Fails unless the router of a layer can choose among the experts it keeps of
/// `experts`: as many as it needs, and equally many of each of its groups.
fn routable(what: &str, kept: &[usize], rule: &RouterRule, experts: usize) -> Result<()> {
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
    for (group, range) in rule.group_ranges(experts).enumerate() {
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
