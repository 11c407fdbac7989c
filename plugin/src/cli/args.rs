//! Flags that several verbs share.

mod search;

use std::path::PathBuf;

use candle_core::Device;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{ArgGroup, Args};
use prune_eval::EvalOptions;
use router_stats::calibration::Source;

use super::layer_args::LayerArgs;
use super::progress::Console;
use super::Global;
use crate::cache::Cache;
use crate::engine::together;
use crate::hub::Token;
use crate::pipeline::{self, Calibration, EvaluationOptions, Model, ModelSource};
use crate::plan::{ExpertBudget, ExpertId, MemoryBudget, PlanOptions, SizeTarget, SEQUENCES};
use crate::surgery::UqffWeights;
use crate::{allocate, device, layers, saliency};
pub(super) use search::{searches, SearchArgs, SearchLimits};

/// Which model, and where it runs.
#[derive(Args, Clone)]
pub(super) struct ModelArgs {
    /// Directory or hub id (org/name[@revision]) [default: the bundled demo model]
    #[arg(short, long, visible_alias = "model", value_name = "DIR|ID")]
    pub(super) model_id: Option<String>,

    /// Branch, tag or commit on the hub
    #[arg(
        long,
        visible_alias = "revision",
        value_name = "REVISION",
        requires = "model_id"
    )]
    pub(super) hf_revision: Option<String>,

    /// Hub token: `cache`, `none`, `literal:TOKEN`, `env:VARIABLE` or `path:FILE`
    #[arg(long, default_value = "cache", value_name = "SOURCE")]
    pub(super) token_source: Token,

    /// Compute on the CPU even if there is a GPU
    #[arg(long)]
    pub(super) cpu: bool,
}

impl ModelArgs {
    /// The model as the pipeline wants it named.
    pub(super) fn source(&self) -> ModelSource {
        ModelSource {
            model: self.model_id.clone(),
            revision: self.hf_revision.clone(),
            token: self.token_source.clone(),
        }
    }

    /// Where to compute.
    pub(super) fn device(&self) -> crate::Result<Device> {
        device::best(self.cpu)
    }

    /// Opens the model.
    pub(super) fn open(&self, cache: &Cache, console: &Console) -> crate::Result<Model> {
        self.source().open(&self.device()?, cache, console)
    }
}

/// What to calibrate with, and how.
#[derive(Args, Clone)]
#[command(next_help_heading = "Calibration")]
pub(super) struct CalibrationArgs {
    /// Text to calibrate with: `.txt` or `.jsonl`, as `[NAME=]FILE[:WEIGHT]`;
    /// repeat it for more domains [default: the bundled mix]
    #[arg(long, value_name = "[NAME=]FILE[:WEIGHT]", value_parser = parse_source)]
    pub(super) calibration: Vec<Source>,

    /// Tokens over all domains
    #[arg(long, default_value_t = Calibration::default().tokens, value_name = "N")]
    pub(super) calibration_tokens: usize,

    /// Tokens of a sequence
    #[arg(long, default_value_t = Calibration::default().seq_len, value_name = "N")]
    pub(super) seq_len: usize,

    /// Tokens that go through a layer together
    #[arg(long, default_value_t = Calibration::default().batch_tokens, value_name = "N")]
    pub(super) batch_tokens: usize,

    /// Keep hidden states on disk instead of in memory
    #[arg(long)]
    pub(super) spill: bool,
}

impl CalibrationArgs {
    /// The options of the pipeline.
    pub(super) fn options(&self, seed: u64) -> Calibration {
        Calibration {
            tokens: self.calibration_tokens,
            seq_len: self.seq_len,
            seed,
            batch_tokens: self.batch_tokens,
            spill: self.spill,
        }
    }
}

/// How much goes, and by which method.
#[derive(Args, Clone)]
#[command(
    next_help_heading = "Pruning",
    group(ArgGroup::new("budget").args(["fit", "prune_experts", "keep_experts", "target_size", "target_params", "max_loss", "drop_layers", "drop_attention", "drop_moe", "top_k"]).multiple(true)),
    group(ArgGroup::new("expert_budget").args(["fit", "prune_experts", "keep_experts", "target_size", "target_params", "max_loss"])),
)]
pub(super) struct BudgetArgs {
    /// Memory that the served model may take, with its key-value cache and the
    /// engine: 24GiB. Chooses how many experts and layers go, and the type of
    /// weights, to lose least
    #[arg(long, value_name = "SIZE", value_parser = parse_fit)]
    pub(super) fit: Option<u64>,

    /// Types that --fit may choose from: float, q8_0, q6k, q5k, q4k, q3k, q2k
    /// [default: all]
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…", value_parser = parse_weights, requires = "fit")]
    pub(super) fit_weights: Vec<UqffWeights>,

    /// Fraction of the experts to remove from every layer
    #[arg(long, value_name = "FRACTION", conflicts_with = "keep_experts")]
    pub(super) prune_experts: Option<f64>,

    /// Experts to keep in every layer
    #[arg(long, value_name = "N")]
    pub(super) keep_experts: Option<usize>,

    /// Keep as many experts as leave at most so many bytes of weights, in the
    /// dtypes of the checkpoint: 12GiB, 9GB, 800MB
    #[arg(long, value_name = "SIZE", value_parser = SizeTarget::parse_bytes)]
    pub(super) target_size: Option<SizeTarget>,

    /// Keep as many experts as leave at most so many parameters: 15B, 700M
    #[arg(long, value_name = "N", value_parser = SizeTarget::parse_parameters)]
    pub(super) target_params: Option<SizeTarget>,

    /// Remove as many experts as raise perplexity on held-out text by at most
    /// this fraction (upper end of the interval): 0.02
    #[arg(long, value_name = "FRACTION", value_parser = parse_loss)]
    pub(super) max_loss: Option<f64>,

    /// Which experts go
    #[arg(long, default_value = default_criterion(), value_name = "NAME", value_parser = PossibleValuesParser::new(criteria()), requires = "expert_budget")]
    pub(super) criterion: String,

    /// How many go in which layer
    #[arg(long, default_value = default_allocator(), value_name = "NAME", value_parser = PossibleValuesParser::new(allocators()), requires = "expert_budget")]
    pub(super) allocation: String,

    #[command(flatten)]
    pub(super) layers: LayerArgs,

    #[command(flatten)]
    pub(super) constraints: ConstraintArgs,

    #[command(flatten)]
    pub(super) search: SearchArgs,
}

/// What stays, whatever its score.
#[derive(Args, Clone)]
#[command(next_help_heading = "Pruning")]
pub(super) struct ConstraintArgs {
    /// Let super experts go too: those whose largest output is above the
    /// 99.5th percentile and a tenth of the maximum of all experts. Without it
    /// they stay
    #[arg(long, requires = "budget")]
    pub(super) prune_super_experts: bool,

    /// Expert that stays, and with it its layer; repeat it for more
    #[arg(long, value_name = "LAYER:EXPERT", requires = "budget")]
    pub(super) protect: Vec<ExpertId>,

    /// Choose the weights of the domains so that the one that keeps least of
    /// its expert output keeps most (max-min)
    #[arg(long, requires = "expert_budget")]
    pub(super) balance_domains: bool,
}

impl ConstraintArgs {
    /// Adds them to the options of a plan.
    pub(super) fn apply(&self, options: PlanOptions) -> PlanOptions {
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
    pub(super) fn asks(&self) -> bool {
        self.fit.is_some()
            || self.prune_experts.is_some()
            || self.keep_experts.is_some()
            || self.target().is_some()
            || self.max_loss.is_some()
            || self.layers.asks()
    }

    /// The memory that the served result may take, for so many sequences of so
    /// many tokens.
    pub(super) fn memory(&self, sequences: usize, tokens: Option<usize>) -> Option<MemoryBudget> {
        self.fit.map(|bytes| MemoryBudget {
            bytes,
            sequences,
            tokens,
            weights: self.fit_weights.clone(),
        })
    }

    /// Sequences at a time in the memory of --fit, where there may be several.
    pub(super) fn few(&self) -> Option<usize> {
        self.fit.map(|_| SEQUENCES)
    }

    /// What the result may weigh.
    fn target(&self) -> Option<SizeTarget> {
        self.target_size.or(self.target_params)
    }

    /// The options of a plan.
    pub(super) fn options(&self, seed: u64) -> PlanOptions {
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

/// What to check with, and how.
#[derive(Args, Clone)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct EvaluationArgs {
    /// Held-out tokens over all domains
    #[arg(long, default_value_t = EvaluationOptions::default().tokens, value_name = "N")]
    pub(super) eval_tokens: usize,
}

/// How intervals are made.
#[derive(Args, Clone)]
pub(super) struct IntervalArgs {
    /// Resamples of the bootstrap
    #[arg(long, default_value_t = EvalOptions::default().resamples, value_name = "N")]
    pub(super) resamples: usize,

    /// Coverage of the intervals
    #[arg(long, default_value_t = EvalOptions::default().confidence, value_name = "FRACTION")]
    pub(super) confidence: f64,
}

/// Text to evaluate on.
#[derive(Args, Clone)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct TextArgs {
    /// Held-out text: `[NAME=]FILE[:WEIGHT]`, or a folder of `.txt` and
    /// `.jsonl` files; repeat it for more domains [default: the bundled set]
    #[arg(long, value_name = "[NAME=]FILE|DIR")]
    text: Vec<String>,
}

impl TextArgs {
    /// What was named.
    pub(super) fn given(&self) -> &[String] {
        &self.text
    }

    /// Reads the text.
    pub(super) fn corpus(
        &self,
        model: &Model,
        cache: &Cache,
        console: &Console,
    ) -> crate::Result<router_stats::calibration::Corpus> {
        if self.text.is_empty() {
            return pipeline::bundled_held_out(model, cache, console);
        }
        let mut sources = Vec::new();
        for text in &self.text {
            let path = PathBuf::from(text);
            if path.is_dir() {
                sources.extend(Source::in_directory(&path)?);
            } else {
                sources.push(Source::parse(text)?);
            }
        }
        pipeline::read(&sources, model)
    }
}

/// Opens the cache and a console for one command.
pub(super) fn surroundings(global: &Global) -> crate::Result<(Cache, Console)> {
    Ok((global.cache()?, Console::new()))
}

fn parse_fit(text: &str) -> Result<u64, String> {
    match SizeTarget::parse_bytes(text) {
        Ok(SizeTarget::Bytes(bytes)) => Ok(bytes),
        _ => Err("expected a size such as 24GiB, 9GB or 800MB".to_owned()),
    }
}

/// Sequences that `device` answers at the same time: as many as are `asked` for,
/// or `default` where it can, or the engine's own.
///
/// # Errors
/// Those of [`together`].
pub(super) fn sequences(
    device: &Device,
    asked: Option<u32>,
    default: Option<usize>,
) -> crate::Result<usize> {
    let default = default.filter(|_| !device.is_cpu());
    together(device, asked.map(|it| it as usize).or(default))
}

/// The name of a type of weights.
pub(super) fn parse_weights(name: &str) -> Result<UqffWeights, String> {
    UqffWeights::parse(name).ok_or_else(|| {
        let names = UqffWeights::ALL.map(UqffWeights::name).join(", ");
        format!("expected one of {names}")
    })
}

fn parse_loss(text: &str) -> Result<f64, String> {
    let loss = text
        .parse()
        .ok()
        .filter(|loss: &f64| loss.is_finite() && *loss >= 0.0);
    loss.ok_or_else(|| "expected a fraction of at least 0, such as 0.02".to_owned())
}

/// `[NAME=]FILE[:WEIGHT]`.
pub(super) fn parse_source(text: &str) -> crate::Result<Source> {
    Ok(Source::parse(text)?)
}

/// Names of the criteria, for help and for checking.
pub(super) fn criteria() -> Vec<PossibleValue> {
    saliency::CRITERIA
        .iter()
        .map(|c| PossibleValue::new(c.name()).help(c.about()))
        .collect()
}

/// Names of the allocators.
pub(super) fn allocators() -> Vec<PossibleValue> {
    allocate::ALLOCATORS
        .iter()
        .map(|a| PossibleValue::new(a.name()).help(a.about()))
        .collect()
}

/// Names of the layer criteria.
pub(super) fn layer_criteria() -> Vec<PossibleValue> {
    layers::LAYER_CRITERIA
        .iter()
        .map(|c| PossibleValue::new(c.name()).help(c.about()))
        .collect()
}

fn default_criterion() -> &'static str {
    saliency::CRITERIA[0].name()
}

pub(super) fn default_allocator() -> &'static str {
    allocate::ALLOCATORS[0].name()
}

pub(super) fn default_layer_criterion() -> &'static str {
    layers::LAYER_CRITERIA[0].name()
}
