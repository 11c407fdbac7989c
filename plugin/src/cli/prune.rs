//! `prune`: a plan → a checkpoint directory.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::args::{parse_weights, surroundings, EvaluationArgs, ModelArgs, TextArgs};
use super::given::Given;
use super::progress::Console;
use super::{output, Global};
use crate::format;
use crate::pipeline::{self, EvaluationOptions, Reporter};
use crate::plan::{self, Plan, ValidPlan};
use crate::stream::{self, Pruned};
use crate::surgery::{
    self, CardFacts, Layout, Summary, SurgeryOptions, Uqff, UqffDevice, UqffWeights,
};

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

    /// Replace a pruned checkpoint that is already there, or with
    /// --stream-prune an unfinished one of another plan
    #[arg(long)]
    force: bool,

    /// Do not measure the loss for the model card
    #[arg(long, conflicts_with_all = ["text", "eval_tokens"])]
    no_eval: bool,

    /// Prune each shard of a model on the hub as it comes, and let it go: the
    /// disk holds the result and few shards. The loss is not measured, as that
    /// takes the whole model
    #[arg(long, requires = "model_id", conflicts_with_all = ["text", "eval_tokens"])]
    stream_prune: bool,

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

/// Flags about one layout.
const UQFF: [&str; 2] = ["--uqff-weights", "--uqff-device"];

impl Args {
    /// Advice after an interruption.
    pub(super) fn interrupted(&self) -> &'static str {
        if self.stream_prune {
            "finished shards are kept; the same command continues after them"
        } else {
            "nothing half-written remains; run it again"
        }
    }

    /// The layout, which no flag is about in vain.
    fn settled(&self, plan: &Plan, given: Given<'_>) -> crate::Result<Layout> {
        let layout = self.layout(plan);
        let is_uqff = matches!(layout, Layout::Uqff(_));
        given.refuse_unless(is_uqff, &UQFF, "--layout uqff")?;
        Ok(layout)
    }

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
    // Without a layout the plan may say which.
    let is_uqff = matches!(args.layout, None | Some(LayoutArg::Uqff));
    given.refuse_unless(is_uqff, &UQFF, "--layout uqff")?;
    let is_gguf = matches!(args.layout, None | Some(LayoutArg::Gguf));
    given.refuse_unless(is_gguf, &["--gguf-weights"], "--layout gguf")?;
    let (cache, console) = surroundings(global)?;
    if args.stream_prune {
        return stream(args, given, &console);
    }
    let model = args.model.open(&cache, &console)?;
    let plan = ValidPlan::read(
        &args.plan,
        model.checkpoint(),
        model.family(),
        model.topology(),
    )?;
    let layout = args.settled(plan.plan(), given)?;
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
    tell(args, &summary, took, &console);
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

/// Prunes a model that is never here whole.
fn stream(args: &Args, given: Given<'_>, console: &Console) -> anyhow::Result<()> {
    let plan = plan::read(&args.plan)?;
    let layout = args.settled(&plan, given)?;
    let source = args.model.source();
    let listed = source.listed("--stream-prune", console)?;
    let request = stream::Request {
        plan,
        label: args.plan.display().to_string(),
        out: &args.output,
        root: None,
        options: SurgeryOptions {
            layout,
            force: args.force,
            card: CardFacts {
                source: source.hub_id(),
                ..CardFacts::default()
            },
            ..SurgeryOptions::default()
        },
    };
    let started = std::time::Instant::now();
    let Pruned {
        summary,
        plan,
        peak,
    } = stream::prune(&listed, &request, console)?;
    let took = started.elapsed();
    tell(args, &summary, took, console);
    if args.json {
        output::json(&json!({
            "output": args.output,
            "layout": layout.to_string(),
            "commit": listed.commit(),
            "bytes": summary.bytes,
            "tensors": summary.tensors,
            "shards": summary.shards,
            "seconds": took.as_secs_f64(),
            "before": plan.before,
            "after": plan.after,
            "disk_at_most": peak,
            "evaluation": null,
        }))?;
    }
    Ok(())
}

/// Says what was written.
fn tell(args: &Args, summary: &Summary, took: Duration, console: &Console) {
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
}
