//! `prune`: a plan → a checkpoint directory.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::args::{parse_weights, surroundings, EvaluationArgs, ModelArgs, TextArgs};
use super::given::Given;
use super::{output, Global};
use crate::format;
use crate::pipeline::{self, EvaluationOptions, Reporter};
use crate::plan::{Plan, ValidPlan};
use crate::surgery::{self, CardFacts, Layout, SurgeryOptions, Uqff, UqffDevice, UqffWeights};

/// Arguments of `prune`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Plan to carry out, from `plan`
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,

    /// How experts are stored
    /// [default: hf; uqff for a plan that says a type of weights]
    #[arg(long, value_enum)]
    layout: Option<LayoutArg>,

    /// Numbers that UQFF holds
    /// [default: float, or what the plan says]
    #[arg(long, value_name = "TYPE", value_parser = parse_weights)]
    uqff_weights: Option<UqffWeights>,

    /// Numbers that matrices have in GGUF
    /// [default: float, or what the plan says]
    #[arg(long, value_name = "TYPE", value_parser = parse_weights)]
    gguf_weights: Option<UqffWeights>,

    /// Device that UQFF is loaded on
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    uqff_device: DeviceArg,

    /// Directory to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Replace a pruned checkpoint that is already there
    #[arg(long)]
    force: bool,

    /// Do not measure the loss for the model card
    #[arg(long, conflicts_with_all = ["text", "eval_tokens"])]
    no_eval: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// How experts are stored.
#[derive(Clone, Copy, ValueEnum)]
enum LayoutArg {
    /// One tensor per expert and projection, as Hugging Face transformers expects
    Hf,
    /// As mistral.rs loads it
    Engine,
    /// As UQFF, which mistral.rs loads with a different number of experts in every layer
    Uqff,
    /// As GGUF, which llama.cpp loads
    Gguf,
}

/// Where UQFF is loaded.
#[derive(Clone, Copy, ValueEnum)]
enum DeviceArg {
    /// Computes in f32
    Cpu,
    /// Computes in bf16
    Gpu,
}

impl Args {
    fn layout(&self, plan: &Plan) -> Layout {
        let default = match plan.weights {
            Some(_) => LayoutArg::Uqff,
            None => LayoutArg::Hf,
        };
        match self.layout.unwrap_or(default) {
            LayoutArg::Hf => Layout::Hf,
            LayoutArg::Engine => Layout::Engine,
            LayoutArg::Gguf => Layout::Gguf(self.gguf_weights.or(plan.weights).unwrap_or_default()),
            LayoutArg::Uqff => Layout::Uqff(Uqff {
                weights: self.uqff_weights.or(plan.weights).unwrap_or_default(),
                device: match self.uqff_device {
                    DeviceArg::Cpu => UqffDevice::Cpu,
                    DeviceArg::Gpu => UqffDevice::Gpu,
                },
            }),
        }
    }
}

/// Runs `prune`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    let (uqff, gguf) = ("--layout uqff", "--layout gguf");
    // Without a layout the plan may say which.
    let is_uqff = matches!(args.layout, None | Some(LayoutArg::Uqff));
    given.refuse_unless(is_uqff, &["--uqff-weights", "--uqff-device"], uqff)?;
    let is_gguf = matches!(args.layout, Some(LayoutArg::Gguf));
    given.refuse_unless(is_gguf, &["--gguf-weights"], gguf)?;
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    let plan = ValidPlan::read(
        &args.plan,
        model.checkpoint(),
        model.family(),
        model.topology(),
    )?;
    let layout = args.layout(plan.plan());
    given.refuse_unless(
        matches!(layout, Layout::Uqff(_)),
        &["--uqff-weights", "--uqff-device"],
        uqff,
    )?;
    let mut options = SurgeryOptions {
        layout,
        force: args.force,
        card: CardFacts {
            source: args.model.source().hub_id(),
            report: None,
            prediction_layers: model.topology().prediction_layers,
        },
        ..SurgeryOptions::default()
    };
    // What can be refused is refused before the evaluation.
    surgery::check(
        model.checkpoint(),
        model.family(),
        model.topology(),
        &args.output,
        &options,
    )?;
    surgery::check_counts(
        model.checkpoint(),
        model.family(),
        model.topology(),
        &plan,
        layout,
    )?;
    let report = if args.no_eval {
        None
    } else {
        let corpus = args.text.corpus(&model, &cache, &console)?;
        let options = EvaluationOptions {
            tokens: args.evaluation.eval_tokens,
            ..EvaluationOptions::default()
        };
        Some(pipeline::evaluate(
            &model, &plan, &corpus, &options, &cache, &console,
        )?)
    };
    options.card.report.clone_from(&report);
    crate::cache::make_parent(&args.output)?;
    let started = std::time::Instant::now();
    let summary = surgery::prune(
        model.checkpoint(),
        model.family(),
        model.topology(),
        &plan,
        &args.output,
        &options,
        &console,
    )?;
    let took = started.elapsed();
    let rate = summary.bytes as f64 / took.as_secs_f64().max(1e-9);
    console.report(
        "Pruned",
        &format!(
            "{} in {}, {}/s: {}",
            format::bytes(summary.bytes),
            format::duration(took),
            format::bytes(rate as u64),
            args.output.display()
        ),
    );
    if args.json {
        output::json(&json!({
            "output": args.output,
            "layout": options.layout.to_string(),
            "bytes": summary.bytes,
            "tensors": summary.tensors,
            "shards": summary.shards,
            "seconds": took.as_secs_f64(),
            "before": plan.plan().before,
            "after": plan.plan().after,
            "evaluation": report,
        }))?;
    }
    Ok(())
}
