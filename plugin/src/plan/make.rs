//! Statistics and a budget → a plan.

mod fit;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Topology};
use router_stats::stats::Stats;

pub use fit::check_target;

use super::choose::Choice;
use super::coverage::coverage;
use super::size::expert_bytes;
use super::validate::{validate, Target};
use super::{
    constraints, drops, Asked, DomainShare, ExpertBudget, Fit, Method, Plan, PlanOptions,
    PlannedFrom, PlannedModel, Searched, Size, Space, ValidPlan,
};
use crate::check::expect_len;
use crate::error::{Error, Result};
use crate::layers::Evidence;
use crate::surgery::UqffWeights;
use crate::{allocate, saliency, search};

/// Decides which experts and layers go, as [`Planner::plan`] does.
///
/// # Errors
/// Those of [`Planner::new`] and [`Planner::plan`].
pub fn plan<'a, 'c>(
    evidence: impl Into<Evidence<'a, 'c>>,
    checkpoint: &'a Checkpoint,
    family: &'a dyn Family,
    topology: &'a Topology,
    options: &'a PlanOptions,
) -> Result<ValidPlan> {
    Planner::new(evidence, checkpoint, family, topology, options)?.plan()
}

/// Makes plans for one model from one set of statistics.
pub struct Planner<'a> {
    stats: &'a Stats,
    target: Target<'a>,
    options: &'a PlanOptions,
    /// Weights of the domains before they are balanced.
    weights: Vec<f64>,
    choice: Choice<'a>,
    before: Size,
}

impl<'a> Planner<'a> {
    /// Decides what does not depend on how many experts go: which layers and
    /// sublayers do, and what is protected. `evidence` is statistics alone, or
    /// with them a measure of what is left, for criteria that measure.
    ///
    /// # Errors
    /// Usage errors for names that no registry or domain has, and for layers
    /// that the model cannot lose; [`Error::OtherModel`] if `stats` were not
    /// made with this checkpoint; [`Error::NonFiniteScore`] if they are
    /// damaged.
    pub fn new<'c>(
        evidence: impl Into<Evidence<'a, 'c>>,
        checkpoint: &'a Checkpoint,
        family: &'a dyn Family,
        topology: &'a Topology,
        options: &'a PlanOptions,
    ) -> Result<Self> {
        let evidence = evidence.into();
        let stats = evidence.stats;
        let target = Target::new(checkpoint, family, topology)?;
        let made = &stats.provenance;
        target.expect_fingerprint(&made.fingerprint, &made.model, "the statistics were")?;
        let weights = weights(stats, options)?;
        let experts = expert_bytes(checkpoint, family, topology);
        Ok(Self {
            stats,
            target,
            options,
            choice: Choice::new(evidence, topology, options, &weights, experts)?,
            weights,
            before: Size::of(checkpoint, family, topology, &Keep::all(topology))?,
        })
    }

    /// The plan that the options ask for.
    ///
    /// Equal scores are told apart by index: the lower expert or layer stays.
    /// The same statistics, options and version give the same plan.
    ///
    /// # Errors
    /// Usage errors for budgets that the model cannot meet and for constraints
    /// that a budget leaves no room for; [`Error::NonFiniteScore`].
    pub fn plan(&self) -> Result<ValidPlan> {
        if let Some(target) = self.options.target {
            return self.fit(target);
        }
        let Some(budget) = self.options.experts else {
            return self.with(None, &self.balanced(None)?);
        };
        let family = [&[budget][..], &self.options.nested_with].concat();
        let weights = self.balanced(self.smallest(&family)?)?;
        self.with(Some(budget), &weights)
    }

    /// One plan for each of `budgets`, which stand in for that of the options.
    /// What a smaller one keeps, a larger one keeps too. If domains are
    /// balanced, it is for the smallest.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub fn nested(&self, budgets: &[ExpertBudget]) -> Result<Vec<ValidPlan>> {
        let weights = self.balanced(self.smallest(budgets)?)?;
        budgets
            .iter()
            .map(|&budget| self.with(Some(budget), &weights))
            .collect()
    }

    /// The budget that keeps fewest experts, the first of equals.
    fn smallest(&self, budgets: &[ExpertBudget]) -> Result<Option<ExpertBudget>> {
        let mut smallest: Option<(usize, ExpertBudget)> = None;
        for &budget in budgets {
            let kept = budget.per_layer(self.target.topology())?.iter().sum();
            if smallest.is_none_or(|(least, _)| kept < least) {
                smallest = Some((kept, budget));
            }
        }
        Ok(smallest.map(|(_, budget)| budget))
    }

    /// What a search may keep in place of what `plan`, which this made, keeps;
    /// `None` if no expert has to go.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub fn space(&self, plan: &ValidPlan) -> Result<Option<Space>> {
        let Some(budget) = plan.plan().method.asked.experts else {
            return Ok(None);
        };
        let domains = plan.plan().stats.domains.iter();
        let weights: Vec<f64> = domains.map(|domain| domain.weight).collect();
        let space = self.choice.space(&weights, budget, plan.keep().clone())?;
        Ok(Some(space))
    }

    /// `plan`, which this made, with other experts in place of those it keeps,
    /// and what found them.
    ///
    /// # Errors
    /// [`Error::Plan`] if the model cannot be cut so.
    pub fn with_experts(
        &self,
        plan: &ValidPlan,
        keep: &Keep,
        search: Option<Searched>,
    ) -> Result<ValidPlan> {
        let mut plan = plan.plan().clone();
        for (layer, kept) in plan.layers.iter_mut().zip(&keep.experts) {
            layer.kept.clone_from(kept);
            layer.removed = (0..layer.scores.len())
                .filter(|expert| !kept.contains(expert))
                .collect();
        }
        let shares = coverage(self.stats, &plan.layers)?;
        for (domain, share) in plan.stats.domains.iter_mut().zip(shares) {
            domain.coverage = share;
        }
        plan.method.search = search;
        validate(plan, "the plan", &self.target)
    }

    fn balanced(&self, budget: Option<ExpertBudget>) -> Result<Vec<f64>> {
        if self.options.balance_domains {
            self.choice.balanced(&self.weights, budget)
        } else {
            Ok(self.weights.clone())
        }
    }

    fn with(&self, budget: Option<ExpertBudget>, weights: &[f64]) -> Result<ValidPlan> {
        let (stats, options) = (self.stats, self.options);
        let made = &stats.provenance;
        let layers = self.choice.layers(weights, budget)?;
        let plan = Plan {
            version: super::VERSION,
            created_by: concat!("mistralrs-prune ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: PlannedModel {
                name: made.model.clone(),
                fingerprint: made.fingerprint.clone(),
                family: self.target.family().model_type().to_owned(),
            },
            stats: planned_from(stats, weights, &coverage(stats, &layers)?),
            method: Method {
                criterion: options.criterion.clone(),
                allocator: options.allocator.clone(),
                search: None,
                layer_criterion: options.layer_criterion.clone(),
                seed: options.seed,
                asked: Asked {
                    experts: budget,
                    target: options.target,
                    fit: None,
                    max_loss: options.max_loss,
                    layers: options.drop_layers,
                    attention: options.drop_attention,
                    moe: options.drop_moe,
                    top_k: options.top_k,
                },
                constraints: self.choice.constraints.clone(),
            },
            before: self.before.clone(),
            // Validation computes what is left.
            after: self.before.clone(),
            weights: None,
            layers,
        };
        validate(plan, "the plan", &self.target)
    }

    /// `plan`, which this made, with its weights stored as `weights`, for the
    /// memory that was asked for.
    ///
    /// # Errors
    /// Those of reading the checkpoint's tensor list.
    pub fn stored(
        &self,
        plan: &ValidPlan,
        weights: Option<UqffWeights>,
        fit: Fit,
    ) -> Result<ValidPlan> {
        let mut plan = plan.plan().clone();
        plan.weights = weights;
        plan.method.asked.fit = Some(fit);
        validate(plan, "the plan", &self.target)
    }
}

/// Fails for names that no registry has and for budgets that a model of this
/// structure cannot meet: what can be refused before there are statistics.
///
/// # Errors
/// The usage errors of [`plan`], except those about domains.
pub fn check(options: &PlanOptions, topology: &Topology) -> Result<()> {
    saliency::criterion(&options.criterion)?;
    allocate::allocator(&options.allocator)?;
    check_search(options)?;
    constraints::check(options, topology)?;
    drops::check(options, topology)?;
    check_top_k(options, topology)?;
    let Some(budget) = options.experts else {
        return Ok(());
    };
    let kept = budget.per_layer(topology)?;
    // Layers that are dropped meet no floor, but which they are is not known
    // yet; every layer of the families at hand has the same floor.
    let keep = Keep {
        top_k: options.top_k,
        ..Keep::all(topology)
    };
    let routed = keep.routed(topology);
    (0..topology.layers()).try_for_each(|layer| budget.leaves_floor(&routed, layer, kept[layer]))
}

/// Fails if tokens of a model of this structure cannot take as many experts as
/// `options` ask for.
///
/// # Errors
/// [`Error::Option`]
fn check_top_k(options: &PlanOptions, topology: &Topology) -> Result<()> {
    let keep = Keep {
        top_k: options.top_k,
        ..Keep::all(topology)
    };
    keep.check(topology).map_err(|error| match error {
        router_stats::Error::Structure {
            expected, found, ..
        } => Error::Option {
            option: "--top-k",
            expected,
            found,
        },
        other => other.into(),
    })
}

/// Fails for a search that no search is, or that has no budget to spend.
fn check_search(options: &PlanOptions) -> Result<()> {
    let Some(asked) = &options.search else {
        return Ok(());
    };
    search::search(&asked.name)?;
    match (options.max_loss, options.experts, options.target) {
        (None, None, None) | (Some(_), ..) => Err(Error::Option {
            option: "--search",
            expected: "a budget of experts to spend, such as --prune-experts 0.5 or --target-size"
                .to_owned(),
            found: options.max_loss.map_or_else(
                || "none".to_owned(),
                |most| format!("--max-loss {most}, at which every budget would be searched"),
            ),
        }),
        _ => Ok(()),
    }
}

/// One weight per domain of the statistics, with those of `options` in place.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Option`] and [`Error::NoTokens`].
pub(crate) fn weights(stats: &Stats, options: &PlanOptions) -> Result<Vec<f64>> {
    let domains = &stats.provenance.domains;
    let mut weights = stats.weights();
    expect_len("domain weights", weights.len(), domains.len())?;
    for (name, weight) in options.domain_weights.iter().flatten() {
        let Some(index) = domains.iter().position(|domain| domain.name == *name) else {
            let known: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
            return Err(Error::Unknown {
                what: "domain",
                found: name.clone(),
                known: known.join(", "),
            });
        };
        if !(weight.is_finite() && *weight >= 0.0) {
            return Err(Error::Option {
                option: "domain weight",
                expected: format!("a finite number of at least 0 for `{name}`"),
                found: weight.to_string(),
            });
        }
        weights[index] = *weight;
    }
    let mixture = || domains.iter().zip(&weights);
    if !mixture().any(|(domain, &weight)| domain.tokens > 0 && weight > 0.0) {
        let shares: Vec<_> = mixture()
            .map(|(domain, weight)| format!("{}={weight}", domain.name))
            .collect();
        return Err(Error::NoTokens {
            weights: shares.join(", "),
        });
    }
    Ok(weights)
}

fn planned_from(stats: &Stats, weights: &[f64], coverage: &[Option<f64>]) -> PlannedFrom {
    let made = &stats.provenance;
    PlannedFrom {
        hash: stats.hash(),
        corpus: made.corpus.clone(),
        tokens: made.domains.iter().map(|domain| domain.tokens).sum(),
        domains: made
            .domains
            .iter()
            .zip(weights)
            .zip(coverage)
            .map(|((domain, &weight), &coverage)| DomainShare {
                name: domain.name.clone(),
                weight,
                tokens: domain.tokens,
                coverage,
            })
            .collect(),
    }
}
