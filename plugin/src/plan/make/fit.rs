//! The most experts that fit a size.
//!
//! Owns the search over budgets. What a budget means for each layer is the
//! allocator's; what a plan weighs is [`Size`]'s.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Topology};

use super::Planner;
use crate::error::{Error, Result};
use crate::plan::{ExpertBudget, PlanOptions, Size, SizeTarget, ValidPlan};

impl Planner<'_> {
    /// The plan that keeps most experts of all that `target` holds. It splits
    /// the budget of the largest [`ExpertBudget::Keep`] that fits; with nothing
    /// to remove, its budget is `None`.
    ///
    /// # Errors
    /// [`Error::TargetTooSmall`] if no plan fits; those of
    /// [`plan`](Planner::plan).
    pub(super) fn fit(&self, target: SizeTarget) -> Result<ValidPlan> {
        let mut smallest = None;
        let fits = self.most(&mut |plan| {
            let after = &plan.plan().after;
            let fits = target.holds(after);
            if !fits {
                smallest = Some(after.clone());
            }
            Ok(fits)
        })?;
        fits.ok_or_else(|| Error::TargetTooSmall {
            target,
            smallest: smallest.unwrap_or_else(|| self.before.clone()),
        })
    }

    /// The plan that keeps most experts of those that `accepts`, as if it
    /// accepted every plan that keeps fewer; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`plan`](Planner::plan) and of `accepts`.
    pub fn most(
        &self,
        accepts: &mut dyn FnMut(&ValidPlan) -> Result<bool>,
    ) -> Result<Option<ValidPlan>> {
        let everything = self.within(None)?;
        if accepts(&everything)? {
            return Ok(Some(everything));
        }
        Ok(self.divide(accepts)?.0)
    }

    /// The plan that keeps fewest experts of those that `accepts`, as if it
    /// accepted every plan that keeps more; with none, the plan that keeps all.
    ///
    /// # Errors
    /// Those of [`plan`](Planner::plan) and of `accepts`.
    pub fn fewest(&self, accepts: &mut dyn FnMut(&ValidPlan) -> Result<bool>) -> Result<ValidPlan> {
        let (_, fewest) = self.divide(&mut |plan| Ok(!accepts(plan)?))?;
        fewest.map_or_else(|| self.within(None), Ok)
    }

    /// Halves the range of budgets until it knows the last plan that is `below`
    /// and the first that is not, as if all that keep fewer experts than one
    /// that is below were below too: plans for smaller budgets are nested in
    /// those for larger ones.
    fn divide(
        &self,
        below: &mut dyn FnMut(&ValidPlan) -> Result<bool>,
    ) -> Result<(Option<ValidPlan>, Option<ValidPlan>)> {
        let (mut last, mut first) = (None, None);
        let (mut low, mut high) = bounds(self.choice.topology());
        while low < high {
            let kept = low + (high - low) / 2;
            match self.within(Some(ExpertBudget::Keep(kept))) {
                Ok(plan) if !removes_experts(&plan) => high = kept,
                Ok(plan) if below(&plan)? => {
                    last = Some(plan);
                    low = kept + 1;
                }
                Ok(plan) => {
                    first = Some(plan);
                    high = kept;
                }
                // Fewer have no room for what is protected either.
                Err(Error::ProtectedExperts { .. }) => low = kept + 1,
                // Rounded up to whole groups, it is everything.
                Err(Error::NoExpertRemoved { .. }) => high = kept,
                Err(error) => return Err(error),
            }
        }
        Ok((last, first))
    }

    fn within(&self, budget: Option<ExpertBudget>) -> Result<ValidPlan> {
        self.with(budget, &self.balanced(budget)?)
    }
}

/// Fails if not even the fewest experts that the routers need fit the target of
/// `options`: what can be refused before there are statistics. Which layers
/// go is not known then, so with layers to drop nothing is refused.
///
/// # Errors
/// [`Error::TargetTooSmall`], and those of [`Size::of`].
pub fn check_target(
    options: &PlanOptions,
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
) -> Result<()> {
    let Some(target) = options.target.filter(|_| options.drops().next().is_none()) else {
        return Ok(());
    };
    let mut keep = Keep {
        top_k: options.top_k,
        ..Keep::all(topology)
    };
    let routed = keep.routed(topology).into_owned();
    for (layer, experts) in keep.experts.iter_mut().enumerate() {
        if let Some(moe) = routed.moe(layer) {
            experts.truncate(moe.router.floor());
        }
    }
    let smallest = Size::of(checkpoint, family, topology, &keep)?;
    if target.holds(&smallest) {
        return Ok(());
    }
    Err(Error::TargetTooSmall { target, smallest })
}

fn removes_experts(plan: &ValidPlan) -> bool {
    let mut layers = plan.plan().layers.iter().filter(|layer| layer.keeps_mlp());
    layers.any(|layer| !layer.removed.is_empty())
}

/// Numbers of experts that every layer can keep, the upper end excluded.
fn bounds(topology: &Topology) -> (usize, usize) {
    let floors = topology.moes().map(|moe| moe.router.floor());
    let floor = floors.max().unwrap_or(0);
    let most = topology.moes().map(|moe| moe.experts).min().unwrap_or(0);
    (floor, most + 1)
}
