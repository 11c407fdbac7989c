//! Flags that several verbs share.

mod budget;
mod search;

use std::path::PathBuf;

use candle_core::Device;
use clap::builder::PossibleValue;
use clap::Args;
use prune_eval::EvalOptions;
use router_stats::calibration::Source;

use super::progress::Console;
use super::Global;
use crate::cache::Cache;
use crate::engine::together;
use crate::hub::Token;
use crate::pipeline::{self, Calibration, EvaluationOptions, Model, ModelSource};
use crate::surgery::UqffWeights;
use crate::{allocate, device, layers, saliency};
pub(super) use budget::{any_budget, budget_flags, BudgetArgs, ConstraintArgs};
pub(super) use search::{searches, SearchLimits};

/// Which model, and where it runs.
#[derive(Args, Clone)]
pub(super) struct ModelArgs {
    /// Directory, GGUF file or hub id (org/name[@revision]) [default: the bundled demo model]
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

pub(super) fn default_criterion() -> &'static str {
    saliency::CRITERIA[0].name()
}

pub(super) fn default_allocator() -> &'static str {
    allocate::ALLOCATORS[0].name()
}

pub(super) fn default_layer_criterion() -> &'static str {
    layers::LAYER_CRITERIA[0].name()
}
