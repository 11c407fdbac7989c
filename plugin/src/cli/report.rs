//! `report`: statistics, a plan and evaluations → a page to look at.

use std::path::{Path, PathBuf};

use clap::ArgGroup;
use prune_eval::{EvalOptions, Report, Sweep};
use router_stats::stats::Stats;
use serde_json::json;

use super::args::{surroundings, EvaluationArgs, ModelArgs, TextArgs};
use super::given::Given;
use super::progress::Console;
use super::{output, Global};
use crate::pipeline::{self, EvaluationOptions, Reporter};
use crate::plan::{self, ValidPlan};
use crate::report::{self, Counted, Inputs, Source};

/// Arguments of `report`.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("inputs").args(["stats", "plan", "eval", "sweep"]).required(true).multiple(true)))]
pub(super) struct Args {
    /// Page to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Statistics of the model, from `calibrate`
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,

    /// What goes, from `plan`
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// What it costs, from `eval -o` or `eval --json`
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,

    /// What more and less of it costs, from `eval sweep`; repeat it for more
    /// files of the same text
    #[arg(long, value_name = "FILE")]
    sweep: Vec<PathBuf>,

    /// Folder for an SVG file of each figure; made if it is absent
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,

    /// Run held-out text through the model, as it is and as the plan leaves it,
    /// and count the tokens that each expert gets
    #[arg(long, requires = "plan", help_heading = "Routing load")]
    load: bool,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,
}

/// Runs `report`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    given.refuse_unless(
        args.load,
        &["--model-id", "--cpu", "--text", "--eval-tokens"],
        "--load",
    )?;
    let (cache, console) = surroundings(global)?;
    let mut inputs = Inputs {
        stats: source(args.stats.as_deref(), |path| Stats::read(path))?,
        plan: source(args.plan.as_deref(), |path| plan::read(path))?,
        eval: source(args.eval.as_deref(), Report::read)?,
        sweeps: args
            .sweep
            .iter()
            .map(|path| source(Some(path.as_path()), Sweep::read))
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?,
        counted: None,
        command: args.command(given),
    };
    // Files of different models are refused before the long work.
    inputs.model()?;
    if let Some(path) = args.plan.as_deref().filter(|_| args.load) {
        inputs.counted = Some(count(args, path, &cache, &console)?);
    }
    let page = report::page(&inputs)?;
    crate::cache::make_parent(&args.output)?;
    if let Some(directory) = &args.figures {
        for figure in page.figures() {
            let path = directory.join(format!("{}.svg", figure.name));
            crate::cache::make_parent(&path)?;
            figure.write(&path)?;
        }
    }
    page.write(&args.output)?;
    console.clear();
    let figures = page.figures().count();
    console.report(
        "Reported",
        &format!("{}, {figures} figures", args.output.display()),
    );
    if args.json {
        let figures: Vec<&str> = page.figures().map(|figure| figure.name.as_str()).collect();
        output::json(&json!({
            "output": args.output,
            "figures": figures,
            "folder": args.figures,
        }))?;
    }
    Ok(())
}

/// Reads a file that was named.
fn source<T, E>(
    path: Option<&Path>,
    read: impl Fn(&Path) -> Result<T, E>,
) -> Result<Option<Source<T>>, E> {
    let source = |path: &Path| {
        let content = read(path)?;
        Ok(Source {
            path: path.to_path_buf(),
            content,
        })
    };
    path.map(source).transpose()
}

/// Routing load of the model and of what the plan leaves.
fn count(
    args: &Args,
    plan: &Path,
    cache: &crate::cache::Cache,
    console: &Console,
) -> crate::Result<Counted> {
    let model = args.model.open(cache, console)?;
    let plan = ValidPlan::read(plan, model.checkpoint(), model.family(), model.topology())?;
    let corpus = args.text.corpus(&model, cache, console)?;
    let options = EvaluationOptions {
        tokens: args.evaluation.eval_tokens,
        ..EvaluationOptions::default()
    };
    let sequences = pipeline::sequences(&corpus, &model, &options.pack())?;
    report::count(
        &model.forward,
        plan.keep(),
        &sequences,
        EvalOptions::default().batch_tokens,
        console,
    )
}

impl Args {
    /// The command that was given, without what is secret or of this machine.
    fn command(&self, given: Given<'_>) -> String {
        let mut words = vec!["report".to_owned()];
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        flag("--stats", path(&self.stats));
        flag("--plan", path(&self.plan));
        flag("--eval", path(&self.eval));
        for sweep in &self.sweep {
            flag("--sweep", Some(sweep.display().to_string()));
        }
        flag("--figures", path(&self.figures));
        flag("-m", self.model.model_id.clone());
        flag("--hf-revision", self.model.hf_revision.clone());
        for text in self.text.given() {
            flag("--text", Some(text.clone()));
        }
        if given.has("--eval-tokens") {
            flag(
                "--eval-tokens",
                Some(self.evaluation.eval_tokens.to_string()),
            );
        }
        flag("-o", path(&Some(self.output.clone())));
        if self.load {
            words.push("--load".to_owned());
        }
        report::command(&words)
    }
}
