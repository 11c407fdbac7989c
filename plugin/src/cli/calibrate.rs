//! `calibrate`: text → a statistics file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use router_stats::calibration::{self, CalibrateOptions, Corpus, Sequences};
use router_stats::stats::Stats;
use serde_json::json;

use super::args::{surroundings, BudgetArgs, CalibrationArgs, ModelArgs};
use super::given::Given;
use super::progress::Console;
use super::{output, Global};
use crate::cache::Cache;
use crate::format;
use crate::pipeline::{self, Chunks, Model, Reporter, Settled, UntilStable, HELD_OUT};
use crate::plan::{self, PlanOptions};
use crate::stream::Remote;
use crate::surgery::Sibling;
use crate::Error;

/// Mean Jaccard index at which `--until-stable` stops: with more text, nearly
/// equal experts of the demo model still change places, but what its plans lose
/// no longer changes.
const STABILITY: f64 = 0.95;

/// Tokens of `--until-stable` at most, unless told otherwise.
const MOST_TOKENS: usize = 1 << 20;

/// Flags that say what is to become stable.
const DECISION: [&str; 14] = [
    "--prune-experts",
    "--keep-experts",
    "--target-size",
    "--target-params",
    "--drop-layers",
    "--drop-attention",
    "--drop-moe",
    "--top-k",
    "--criterion",
    "--allocation",
    "--layer-criterion",
    "--prune-super-experts",
    "--protect",
    "--balance-domains",
];

/// Arguments of `calibrate`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    calibration: CalibrationArgs,

    /// Fraction of your documents to leave out, for `serve --plan` with the same
    /// text to check on: it takes the default fraction
    #[arg(long, default_value_t = HELD_OUT, value_name = "FRACTION", value_parser = parse_fraction, requires = "calibration", help_heading = "Calibration")]
    held_out: f64,

    /// Seed of the order of documents
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Run only part I of N, from 1; `stats merge` joins the parts
    #[arg(long, value_name = "I/N", value_parser = parse_shard, conflicts_with = "until_stable")]
    shard: Option<[usize; 2]>,

    /// Calibrate with more and more text until what stays under --prune-experts
    /// or another budget no longer depends on which text it was, and with
    /// 1048576 tokens at most unless --calibration-tokens says otherwise
    #[arg(long, requires = "budget", help_heading = "Stability")]
    until_stable: bool,

    /// When to stop: mean Jaccard index of what stays by bootstrap draws of the
    /// text and by all of it
    #[arg(long, default_value_t = STABILITY, value_name = "INDEX", value_parser = parse_index, requires = "until_stable", help_heading = "Stability")]
    stability: f64,

    /// Bring the shards of a model on the hub as its layers are run, and let them
    /// go: the disk holds few shards and the state. Each comes once
    #[arg(
        long,
        requires = "model_id",
        conflicts_with = "until_stable",
        help_heading = "Calibration"
    )]
    stream_calibrate: bool,

    #[command(flatten)]
    budget: BudgetArgs,

    /// Statistics file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `calibrate`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    given.refuse_unless(args.until_stable, &DECISION, "--until-stable")?;
    let decision = args.budget.decision(args.seed)?;
    let (cache, console) = surroundings(global)?;
    if args.stream_calibrate {
        let started = Instant::now();
        let stats = streamed(args, &cache, &console)?;
        return tell(args, &stats, started, &console);
    }
    let model = args.model.open(&cache, &console)?;
    if args.until_stable {
        // Budgets that the model cannot meet are refused before it is run.
        let (checkpoint, family) = (model.checkpoint(), model.family());
        plan::check(&decision, model.topology())?;
        plan::check_target(&decision, checkpoint, family, model.topology())?;
    }
    let corpus = corpus(args, &model, &cache, &console)?;
    // The state lies beside the output, so its folder must be there first.
    crate::cache::make_parent(&args.output)?;
    let started = Instant::now();
    let stats = if args.until_stable {
        let limit = given.has("--calibration-tokens");
        let limit = limit.then_some(args.calibration.calibration_tokens);
        settle(args, &decision, limit, &model, &corpus, &console)?
    } else {
        once(args, &model, &corpus, &console)?
    };
    tell(args, &stats, started, &console)
}

/// The text to calibrate with.
fn corpus(args: &Args, model: &Model, cache: &Cache, console: &Console) -> crate::Result<Corpus> {
    let sources = &args.calibration.calibration;
    if sources.is_empty() {
        return pipeline::bundled_calibration(model, cache, console);
    }
    Ok(pipeline::read(sources, model)?.split(args.held_out).0)
}

/// Says what was made since `started`.
fn tell(args: &Args, stats: &Stats, started: Instant, console: &Console) -> anyhow::Result<()> {
    let took = started.elapsed();
    let tokens: u64 = stats
        .provenance
        .domains
        .iter()
        .map(|domain| domain.tokens)
        .sum();
    console.report(
        "Calibrated",
        &format!(
            "{} tokens, {} domains, {}: {}",
            format::count(tokens),
            stats.provenance.domains.len(),
            format::duration(took),
            args.output.display()
        ),
    );
    if args.json {
        output::json(&json!({
            "output": args.output,
            "hash": stats.hash(),
            "tokens": tokens,
            "seconds": took.as_secs_f64(),
            "provenance": stats.provenance,
        }))?;
    }
    Ok(())
}

/// Calibrates with all tokens and writes the statistics.
fn once(args: &Args, model: &Model, corpus: &Corpus, console: &Console) -> anyhow::Result<Stats> {
    let (sequences, options) = prepared(args, model, corpus)?;
    let stats = calibration::calibrate(&model.forward, &sequences, &options, console)?;
    finished(args, stats)
}

/// As [`once`], of a model that is never here whole. Its shards come and go in a
/// hidden sibling of the output.
fn streamed(args: &Args, cache: &Cache, console: &Console) -> anyhow::Result<Stats> {
    let source = args.model.source();
    let listed = source.listed("--stream-calibrate", console)?;
    let sibling = Sibling::open(&args.output)?;
    let root = sibling.path().join(listed.key());
    if !root.exists() {
        // What is there is of another commit.
        sibling.empty()?;
    }
    let device = args.model.device()?;
    let mut remote = Remote::open(&listed, &root, source.name(), &device, console)?;
    let corpus = corpus(args, remote.model(), cache, console)?;
    let (sequences, options) = prepared(args, remote.model(), &corpus)?;
    let stats = remote.calibrate(&sequences, &options, console)?;
    let stats = finished(args, stats)?;
    sibling.discard()?;
    console.hint(&format!(
        "`plan {} -m {} --stream-plan` needs no weights; `prune --stream-prune` by its plan brings all shards once more",
        args.output.display(),
        source.hub_id().unwrap_or_default()
    ));
    Ok(stats)
}

/// What is run, and how.
fn prepared(
    args: &Args,
    model: &Model,
    corpus: &Corpus,
) -> crate::Result<(Sequences, CalibrateOptions)> {
    let settings = args.calibration.options(args.seed);
    let sequences = pipeline::sequences(corpus, model, &settings.pack())?;
    let options = CalibrateOptions {
        batch_tokens: settings.batch_tokens,
        state: Some(beside(&args.output, "partial")),
        spill: settings.spill,
        shard: args.shard.unwrap_or([0, 1]),
    };
    Ok((sequences, options))
}

/// Writes the statistics, after which their state is of no use.
fn finished(args: &Args, stats: Stats) -> anyhow::Result<Stats> {
    stats.write(&args.output)?;
    calibration::remove_state(&beside(&args.output, "partial"))?;
    Ok(stats)
}

/// Calibrates until `decision` is stable or `limit` tokens are used, and writes
/// the statistics.
fn settle(
    args: &Args,
    decision: &PlanOptions,
    limit: Option<usize>,
    model: &Model,
    corpus: &Corpus,
    console: &Console,
) -> anyhow::Result<Stats> {
    let mut settings = args.calibration.options(args.seed);
    settings.tokens = limit.unwrap_or(MOST_TOKENS);
    let until = UntilStable {
        plan: decision,
        stability: args.stability,
        chunks: Chunks::new(
            beside(&args.output, "chunks"),
            beside(&args.output, "partial"),
        ),
    };
    let Settled {
        stats,
        stability,
        stable,
    } = pipeline::until_stable(model, corpus, &settings, &until, console)?;
    stats.write(&args.output)?;
    until.chunks.remove()?;
    if !stable {
        // Every domain has an equal part of the limit, less a lone last token.
        let part = (settings.tokens / stats.provenance.domains.len()) as u64;
        let mut domains = stats.provenance.domains.iter();
        let ended = if domains.any(|domain| domain.tokens + 1 >= part) {
            "--calibration-tokens was reached"
        } else {
            "the calibration text ended"
        };
        console.hint(&format!(
            "{ended} before --stability {}: {}; more text would settle more of them",
            args.stability,
            pipeline::stability_summary(&stability)
        ));
    }
    if !stability.fixed.is_empty() {
        console.hint(&format!(
            "not varied, for lack of text: {}",
            stability.fixed.join(", ")
        ));
    }
    Ok(stats)
}

/// Where an unfinished calibration keeps its layers and chunks:
/// `<out>.<what>`.
fn beside(output: &Path, what: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(what);
    output.with_file_name(name)
}

/// A Jaccard index that draws can reach: above 0, at most 1.
fn parse_index(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&index: &f64| index > 0.0 && index <= 1.0)
        .ok_or_else(|| "expected more than 0, and 1 at most".to_owned())
}

/// A share that leaves something: from 0 to less than 1.
fn parse_fraction(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|fraction| (0.0..1.0).contains(fraction))
        .ok_or_else(|| "expected 0 or more, and less than 1".to_owned())
}

/// `2/4` → part 1 of 4, counted from 0.
fn parse_shard(text: &str) -> crate::Result<[usize; 2]> {
    let parts = text
        .split_once('/')
        .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((part, of)) if (1..=of).contains(&part) => Ok([part - 1, of]),
        _ => Err(Error::Option {
            option: "--shard",
            expected: "I/N with I from 1 to N".to_owned(),
            found: format!("`{text}`"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_one() {
        assert_eq!(parse_shard("1/1").unwrap(), [0, 1]);
        assert_eq!(parse_shard("4/4").unwrap(), [3, 4]);
        for bad in ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", ""] {
            assert!(parse_shard(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn something_is_left_to_calibrate_with() {
        assert_eq!(parse_fraction("0"), Ok(0.0));
        assert_eq!(parse_fraction("0.25"), Ok(0.25));
        for bad in ["1", "-0.1", "nan", "inf", "a", ""] {
            assert!(parse_fraction(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn state_lies_beside_the_output() {
        assert_eq!(
            beside(Path::new("a/q.stats"), "partial"),
            Path::new("a/q.stats.partial")
        );
    }

    #[test]
    fn an_index_is_reachable() {
        assert_eq!(parse_index("1"), Ok(1.0));
        assert_eq!(parse_index("0.9"), Ok(0.9));
        for bad in ["0", "1.1", "-0.5", "nan", "a"] {
            assert!(parse_index(bad).is_err(), "{bad}");
        }
    }
}
