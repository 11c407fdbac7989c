//! A plan and a checkpoint → a plan that can be carried out.

use std::path::Path;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Skip, Topology};
use router_stats::forward::Rounding;

use super::{LayerPlan, Plan, Size};
use crate::error::{Error, Result};
use crate::surgery::UqffWeights;

/// A plan that fits the checkpoint it was checked against.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPlan {
    plan: Plan,
    keep: Keep,
}

impl ValidPlan {
    /// Checks `plan` against a checkpoint. Its sizes are computed afresh, so
    /// that a plan whose lists were edited by hand still states its own.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if it was made for another checkpoint;
    /// [`Error::Plan`] if it contradicts itself or the model, or leaves fewer
    /// experts than the model routes to; [`Error::PlanVersion`].
    pub fn new(
        plan: Plan,
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
    ) -> Result<Self> {
        Self::named(plan, "this plan", checkpoint, family, topology)
    }

    /// As [`new`](Self::new); errors call the plan `label`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn named(
        plan: Plan,
        label: &str,
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
    ) -> Result<Self> {
        let target = Target::new(checkpoint, family, topology)?;
        validate(plan, label, &target)
    }

    /// Reads a plan and checks it as [`new`](Self::new) does; errors name the
    /// file.
    ///
    /// # Errors
    /// Those of [`read`](super::read) and [`new`](Self::new).
    pub fn read(
        path: &Path,
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
    ) -> Result<Self> {
        let (plan, label) = (super::read(path)?, path.display().to_string());
        Self::named(plan, &label, checkpoint, family, topology)
    }

    /// What stays.
    pub fn keep(&self) -> &Keep {
        &self.keep
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What storing the weights as the plan says does to them in a native
    /// forward pass.
    pub fn rounding(&self, family: &dyn Family, topology: &Topology) -> Option<Rounding> {
        let weights = self.plan.weights?;
        weights.rounding(family, topology, &self.keep)
    }

    /// Fails if kept MoE layers keep different numbers of experts, for layouts
    /// whose configuration states one number.
    ///
    /// # Errors
    /// [`Error::UnevenExperts`]
    pub fn expect_even(&self) -> Result<()> {
        let kept = self.plan.layers.iter().filter(|layer| layer.keeps_mlp());
        let mut counts = kept
            .map(|layer| (layer.layer, layer.kept.len()))
            .filter(|&(_, count)| count > 0);
        let Some((first, first_count)) = counts.next() else {
            return Ok(());
        };
        match counts.find(|&(_, count)| count != first_count) {
            None => Ok(()),
            Some((other, other_count)) => Err(Error::UnevenExperts {
                plan: "this plan".to_owned(),
                first,
                first_count,
                other,
                other_count,
            }),
        }
    }
}

/// The checkpoint that a plan is to fit.
pub(super) struct Target<'a> {
    checkpoint: &'a Checkpoint,
    family: &'a dyn Family,
    topology: &'a Topology,
    fingerprint: String,
}

impl<'a> Target<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        family: &'a dyn Family,
        topology: &'a Topology,
    ) -> Result<Self> {
        Ok(Self {
            checkpoint,
            family,
            topology,
            fingerprint: checkpoint.fingerprint()?,
        })
    }

    pub(super) fn family(&self) -> &'a dyn Family {
        self.family
    }

    pub(super) fn topology(&self) -> &'a Topology {
        self.topology
    }

    /// Fails with both models' names unless this checkpoint has `fingerprint`.
    /// `what` carries its verb: `half.plan.json was`.
    pub(super) fn expect_fingerprint(
        &self,
        fingerprint: &str,
        name: &str,
        what: &str,
    ) -> Result<()> {
        if self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(Error::OtherModel {
            what: what.to_owned(),
            fingerprint: fingerprint.to_owned(),
            name: name.to_owned(),
            found: self.fingerprint.clone(),
            found_name: self.checkpoint.name(),
        })
    }
}

/// Checks `plan`, called `label` in errors, against `target` and fills in its
/// sizes.
pub(super) fn validate(mut plan: Plan, label: &str, target: &Target<'_>) -> Result<ValidPlan> {
    super::file::check_version(plan.version, label)?;
    let Target {
        checkpoint,
        family,
        topology,
        ..
    } = *target;
    target.expect_fingerprint(
        &plan.model.fingerprint,
        &plan.model.name,
        &format!("{label} was"),
    )?;
    let contradiction = Contradiction { label };
    if plan.model.family != family.model_type() {
        return Err(contradiction.of("model.family", family.model_type(), &plan.model.family));
    }
    if plan.layers.len() != topology.layers() {
        let (expected, found) = (topology.layers(), plan.layers.len());
        return Err(contradiction.of("layers", &expected.to_string(), &found.to_string()));
    }
    for (index, (layer, experts)) in plan.layers.iter().zip(topology.experts()).enumerate() {
        contradiction.in_layer(index, layer, experts)?;
    }
    // Of what goes as a whole, nothing is said of parts.
    for layer in &mut plan.layers {
        layer.dropped |= layer.skipped.both();
        if layer.dropped {
            layer.skipped = Skip::default();
        }
    }
    let staying = plan.layers.iter().filter(|layer| !layer.dropped);
    let keep = Keep {
        layers: staying.map(|layer| layer.layer).collect(),
        experts: plan.layers.iter().map(|layer| layer.kept.clone()).collect(),
        skipped: plan.layers.iter().map(|layer| layer.skipped).collect(),
        top_k: plan.method.asked.top_k,
    };
    keep.check(topology).map_err(|error| match error {
        router_stats::Error::Structure {
            what,
            expected,
            found,
        } => contradiction.of(&what, &expected, &found),
        other => other.into(),
    })?;
    plan.before = Size::of(checkpoint, family, topology, &Keep::all(topology))?;
    let quantization = plan.weights.and_then(UqffWeights::quantization);
    plan.after = Size::quantized(checkpoint, family, topology, &keep, quantization)?;
    Ok(ValidPlan { plan, keep })
}

/// Builds the errors of one plan.
struct Contradiction<'a> {
    label: &'a str,
}

impl Contradiction<'_> {
    fn of(&self, field: &str, expected: &str, found: &str) -> Error {
        Error::Plan {
            plan: self.label.to_owned(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    /// Checks the lists of one layer: ascending, disjoint, complete.
    fn in_layer(&self, index: usize, layer: &LayerPlan, experts: usize) -> Result<()> {
        let field = |name: &str| format!("layers[{index}].{name}");
        if layer.layer != index {
            return Err(self.of(
                &field("layer"),
                &index.to_string(),
                &layer.layer.to_string(),
            ));
        }
        for (name, list) in [("kept", &layer.kept), ("removed", &layer.removed)] {
            if list.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(self.of(
                    &field(name),
                    "ascending indices without repetition",
                    &format!("{list:?}"),
                ));
            }
        }
        let mut all = [layer.kept.as_slice(), &layer.removed].concat();
        all.sort_unstable();
        if !all.iter().copied().eq(0..experts) {
            let expected = match experts {
                0 => "no experts: the layer is dense".to_owned(),
                n => format!("every expert from 0 to {} once", n - 1),
            };
            return Err(self.of(&field("kept and removed"), &expected, &format!("{all:?}")));
        }
        if layer.scores.len() != experts {
            return Err(self.of(
                &field("scores"),
                &format!("{experts} numbers"),
                &layer.scores.len().to_string(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, Stored};
    use crate::plan::write;

    fn check(edit: impl FnOnce(&mut Plan)) -> Result<ValidPlan> {
        let fixture = fixture::model(Stored::PerExpert);
        let mut plan = fixture::half().plan().clone();
        edit(&mut plan);
        ValidPlan::new(plan, &fixture.checkpoint, fixture.family, &fixture.topology)
    }

    fn message(edit: impl FnOnce(&mut Plan)) -> String {
        check(edit).unwrap_err().to_string()
    }

    #[test]
    fn what_was_planned_is_valid() {
        assert_eq!(check(|_| ()).unwrap(), fixture::half());
    }

    #[test]
    fn edited_lists_get_their_own_sizes() {
        let valid = check(|plan| {
            for layer in [0, 2, 3] {
                plan.layers[layer].kept = vec![0, 1];
                plan.layers[layer].removed = vec![2, 3, 4, 5];
            }
        })
        .unwrap();
        assert_eq!(valid.plan().after.experts_per_layer, [2, 0, 2, 2]);
        assert_eq!(valid.keep().experts[3], [0, 1]);
        let three_layers = check(|plan| plan.layers[2].dropped = true).unwrap();
        assert_eq!(three_layers.keep().layers, [0, 1, 3]);
        assert_eq!(three_layers.plan().after.layers, 3);
    }

    #[test]
    fn another_model_is_refused_by_name_and_file() {
        let fixture = fixture::model(Stored::Stacked);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("half.plan.json");
        let plan = fixture::half().plan().clone();
        write(&plan, &path).unwrap();
        let error = ValidPlan::read(
            &path,
            &fixture.checkpoint,
            fixture.family,
            &fixture.topology,
        )
        .unwrap_err();
        let found = fixture.checkpoint.fingerprint().unwrap();
        let expected = format!(
            "half.plan.json was made for model {}… (tiny), this is {}… ({})",
            &plan.model.fingerprint[..4],
            &found[..4],
            fixture.checkpoint.name()
        );
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert!(error
            .hint()
            .unwrap()
            .contains("plans do not transfer between models"));
    }

    #[test]
    fn every_expert_has_to_be_listed_once_in_order() {
        for edit in [
            |plan: &mut Plan| plan.layers[0].kept.truncate(2),
            |plan: &mut Plan| plan.layers[0].kept.push(4),
            |plan: &mut Plan| plan.layers[0].removed = vec![0, 4, 6],
        ] {
            let text = message(edit);
            assert!(
                text.starts_with(
                    "this plan: layers[0].kept and removed: expected every expert from 0 to 5 once"
                ),
                "{text}"
            );
        }
        assert!(message(|plan| plan.layers[2].kept = vec![4, 3, 5])
            .contains("layers[2].kept: expected ascending"));
        assert!(message(|plan| plan.layers[1].kept = vec![0]).contains("the layer is dense"));
        assert!(message(|plan| plan.layers[3].scores.truncate(1))
            .contains("scores: expected 6 numbers, found 1"));
    }

    #[test]
    fn layers_have_to_be_listed_once_in_order() {
        assert!(
            message(|plan| plan.layers.swap(0, 1)).contains("layers[0].layer: expected 0, found 1")
        );
        assert!(message(|plan| plan.layers.truncate(3)).contains("layers: expected 4, found 3"));
    }

    #[test]
    fn the_model_has_to_work_afterwards() {
        let text = message(|plan| {
            for layer in [0, 2, 3] {
                plan.layers[layer].kept = vec![0];
                plan.layers[layer].removed = vec![1, 2, 3, 4, 5];
            }
        });
        assert!(
            text.contains("this plan: kept experts of layer 0: expected at least 2"),
            "{text}"
        );
        let text = message(|plan| {
            for layer in [0, 2, 3] {
                plan.layers[layer].dropped = true;
            }
        });
        assert!(
            text.contains("kept layers: expected at least one MoE layer"),
            "{text}"
        );
    }

    #[test]
    fn layers_that_keep_different_counts_are_valid_but_not_even() {
        let uneven = |plan: &mut Plan| {
            plan.layers[2].kept = vec![2, 3, 4, 5];
            plan.layers[2].removed = vec![0, 1];
        };
        let valid = check(uneven).unwrap();
        assert_eq!(valid.plan().after.experts_per_layer, [3, 0, 4, 3]);
        let text = valid.expect_even().unwrap_err().to_string();
        assert!(
            text.contains("layer 0 keeps 3 experts but layer 2 keeps 4"),
            "{text}"
        );
        let dropped = check(|plan| {
            uneven(plan);
            plan.layers[2].dropped = true;
        });
        dropped.unwrap().expect_even().unwrap();
        fixture::half().expect_even().unwrap();
    }

    #[test]
    fn sublayers_that_go_leave_a_model() {
        let skip = |attention, mlp| Skip { attention, mlp };
        let valid = check(|plan| {
            plan.layers[0].skipped = skip(true, false);
            plan.layers[2].skipped = skip(false, true);
            plan.layers[3].skipped = skip(true, true);
        })
        .unwrap();
        assert_eq!(valid.keep().layers, [0, 1, 2]);
        assert_eq!(valid.plan().after.experts_per_layer, [3, 0, 0]);
        let layers = &valid.plan().layers;
        assert!(layers[3].dropped && layers[3].skipped.is_none());
        assert_eq!(layers[0].fate(), Some("no attention"));
        assert_eq!(layers[2].fate(), Some("no experts"));
        assert_eq!(layers[3].fate(), Some("dropped"));
        assert_eq!(layers[1].fate(), None);
        let text = message(|plan| {
            for layer in [0, 2, 3] {
                plan.layers[layer].skipped = skip(false, true);
            }
        });
        assert!(
            text.contains("this plan: kept MoE sublayers: expected at least one"),
            "{text}"
        );
        let text = message(|plan| {
            for layer in &mut plan.layers {
                layer.skipped = skip(true, false);
            }
        });
        assert!(text.contains("kept attention sublayers: expected at least one"));
        let text = message(|plan| plan.method.asked.top_k = Some(2));
        assert!(text.contains("experts per token: expected"), "{text}");
        let one = check(|plan| plan.method.asked.top_k = Some(1)).unwrap();
        let half = fixture::half();
        assert!(one.plan().after.active_parameters < half.plan().after.active_parameters);
        assert_eq!(one.plan().after.parameters, half.plan().after.parameters);
    }

    #[test]
    fn another_version_or_family_is_refused() {
        assert!(
            message(|plan| plan.version = 7).contains("plan version 7; this build reads 1 to 3")
        );
        assert!(message(|plan| plan.model.family = "mixtral".to_owned())
            .contains("model.family: expected qwen3_moe, found mixtral"));
    }
}
