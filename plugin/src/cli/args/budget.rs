//! Flags that say how much goes, and by which method.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};

use super::search::SearchArgs;
use super::{allocators, criteria, default_allocator, default_criterion, parse_weights};
use crate::cli::layer_args::{LayerArgs, DROPS, TOP_K};
use crate::plan::{ExpertBudget, ExpertId, MemoryBudget, PlanOptions, SizeTarget, SEQUENCES};
use crate::surgery::UqffWeights;
use crate::{stability, Error, Result};

/// Ids of the flags that say how many experts go, of which one is given.
const EXPERT_BUDGET: [&str; 6] = [
    "fit",
    "prune_experts",
    "keep_experts",
    "target_size",
    "target_params",
    "max_loss",
];

/// A group of all flags that ask for something to go.
pub(in crate::cli) fn any_budget(group: &'static str) -> ArgGroup {
    ArgGroup::new(group)
        .args(EXPERT_BUDGET)
        .args(DROPS)
        .arg(TOP_K)
        .multiple(true)
}

/// The flags that ask for something to go, and `more`: `--fit, …, --top-k or
/// --variant`.
pub(in crate::cli) fn budget_flags(more: &[&str]) -> String {
    let ids = EXPERT_BUDGET.into_iter().chain(DROPS).chain([TOP_K]);
    let flags = ids.map(|id| format!("--{}", id.replace('_', "-")));
    let flags: Vec<String> = flags.chain(more.iter().map(ToString::to_string)).collect();
    match flags.split_last() {
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// How much goes, and by which method.
#[derive(Args, Clone)]
#[command(
    next_help_heading = "Pruning",
    group(any_budget("budget")),
    group(ArgGroup::new("expert_budget").args(EXPERT_BUDGET)),
)]
pub(in crate::cli) struct BudgetArgs {
    /// Memory that the served model may take, with its key-value cache and the
    /// engine: 24GiB. Chooses how many experts and layers go, and the type of
    /// weights, to lose least
    #[arg(long, value_name = "SIZE", value_parser = parse_fit)]
    pub(in crate::cli) fit: Option<u64>,

    /// Types that --fit may choose from: float, q8_0, q6k, q5k, q4k, q3k, q2k
    /// [default: all]
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…", value_parser = parse_weights, requires = "fit")]
    fit_weights: Vec<UqffWeights>,

    /// Fraction of the experts to remove from every layer
    #[arg(long, value_name = "FRACTION", conflicts_with = "keep_experts")]
    prune_experts: Option<f64>,

    /// Experts to keep in every layer
    #[arg(long, value_name = "N")]
    keep_experts: Option<usize>,

    /// Keep as many experts as leave at most so many bytes of weights, in the
    /// dtypes of the checkpoint: 12GiB, 9GB, 800MB
    #[arg(long, value_name = "SIZE", value_parser = SizeTarget::parse_bytes)]
    target_size: Option<SizeTarget>,

    /// Keep as many experts as leave at most so many parameters: 15B, 700M
    #[arg(long, value_name = "N", value_parser = SizeTarget::parse_parameters)]
    target_params: Option<SizeTarget>,

    /// Remove as many experts as raise perplexity on held-out text by at most
    /// this fraction (upper end of the interval): 0.02
    #[arg(long, value_name = "FRACTION", value_parser = parse_loss)]
    pub(in crate::cli) max_loss: Option<f64>,

    /// Which experts go
    #[arg(long, default_value = default_criterion(), value_name = "NAME", value_parser = PossibleValuesParser::new(criteria()), requires = "expert_budget")]
    criterion: String,

    /// How many go in which layer
    #[arg(long, default_value = default_allocator(), value_name = "NAME", value_parser = PossibleValuesParser::new(allocators()), requires = "expert_budget")]
    allocation: String,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    constraints: ConstraintArgs,

    #[command(flatten)]
    pub(in crate::cli) search: SearchArgs,
}

/// What stays, whatever its score.
#[derive(Args, Clone)]
#[command(next_help_heading = "Pruning")]
pub(in crate::cli) struct ConstraintArgs {
    /// Let super experts go too: those whose largest output is above the
    /// 99.5th percentile and a tenth of the maximum of all experts. Without it
    /// they stay
    #[arg(long, requires = "budget")]
    prune_super_experts: bool,

    /// Expert that stays, and with it its layer; repeat it for more
    #[arg(long, value_name = "LAYER:EXPERT", requires = "budget")]
    protect: Vec<ExpertId>,

    /// Choose the weights of the domains so that the one that keeps least of
    /// its expert output keeps most (max-min)
    #[arg(long, requires = "expert_budget")]
    balance_domains: bool,
}

impl ConstraintArgs {
    /// Adds them to the options of a plan.
    pub(in crate::cli) fn apply(&self, options: PlanOptions) -> PlanOptions {
        PlanOptions {
            prune_super_experts: self.prune_super_experts,
            protect: self.protect.clone(),
            balance_domains: self.balance_domains,
            ..options
        }
    }
}

impl BudgetArgs {
    /// Whether anything is to go.
    pub(in crate::cli) fn asks(&self) -> bool {
        self.fit.is_some()
            || self.prune_experts.is_some()
            || self.keep_experts.is_some()
            || self.target().is_some()
            || self.max_loss.is_some()
            || self.layers.asks()
    }

    /// The memory that the served result may take, for so many sequences of so
    /// many tokens.
    pub(in crate::cli) fn memory(
        &self,
        sequences: usize,
        tokens: Option<usize>,
    ) -> Option<MemoryBudget> {
        self.fit.map(|bytes| MemoryBudget {
            bytes,
            sequences,
            tokens,
            weights: self.fit_weights.clone(),
        })
    }

    /// Sequences at a time in the memory of --fit, where there may be several.
    pub(in crate::cli) fn few(&self) -> Option<usize> {
        self.fit.map(|_| SEQUENCES)
    }

    /// What the result may weigh.
    fn target(&self) -> Option<SizeTarget> {
        self.target_size.or(self.target_params)
    }

    /// The options of a plan that statistics alone decide.
    ///
    /// # Errors
    /// [`Error::Option`] for a budget that takes more than statistics.
    pub(in crate::cli) fn decision(&self, seed: u64) -> Result<PlanOptions> {
        if self.fit.is_some() {
            return Err(Error::Option {
                option: "--fit",
                expected: "a budget that statistics decide, such as --prune-experts 0.5".to_owned(),
                found: "an amount of memory".to_owned(),
            });
        }
        let options = self.options(seed);
        stability::check(&options)?;
        Ok(options)
    }

    /// The options of a plan, but for [`memory`](Self::memory).
    pub(in crate::cli) fn options(&self, seed: u64) -> PlanOptions {
        self.constraints.apply(
            self.layers.apply(PlanOptions {
                criterion: self.criterion.clone(),
                allocator: self.allocation.clone(),
                search: self.search.options(),
                experts: self
                    .prune_experts
                    .map(ExpertBudget::Fraction)
                    .or_else(|| self.keep_experts.map(ExpertBudget::Keep)),
                target: self.target(),
                max_loss: self.max_loss,
                seed,
                ..PlanOptions::default()
            }),
        )
    }
}

fn parse_fit(text: &str) -> Result<u64, String> {
    match SizeTarget::parse_bytes(text) {
        Ok(SizeTarget::Bytes(bytes)) => Ok(bytes),
        _ => Err("expected a size such as 24GiB, 9GB or 800MB".to_owned()),
    }
}

fn parse_loss(text: &str) -> Result<f64, String> {
    let loss = text
        .parse()
        .ok()
        .filter(|loss: &f64| loss.is_finite() && *loss >= 0.0);
    loss.ok_or_else(|| "expected a fraction of at least 0, such as 0.02".to_owned())
}
