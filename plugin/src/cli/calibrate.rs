//! `calibrate`: text → a statistics file.

use std::path::{Path, PathBuf};

use router_stats::calibration::{self, CalibrateOptions};

use super::args::{surroundings, CalibrationArgs, ModelArgs};
use super::Global;
use crate::format;
use crate::pipeline::{self, Reporter, HELD_OUT};
use crate::Error;

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
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<[usize; 2]>,

    /// Statistics file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs `calibrate`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    let sources = &args.calibration.calibration;
    let corpus = if sources.is_empty() {
        pipeline::bundled_calibration(&model, &cache, &console)?
    } else {
        pipeline::read(sources, &model)?.split(args.held_out).0
    };
    let settings = args.calibration.options(args.seed);
    let sequences = pipeline::sequences(&corpus, &model, &settings.pack())?;
    let state = partial(&args.output);
    let options = CalibrateOptions {
        batch_tokens: settings.batch_tokens,
        state: Some(state.clone()),
        spill: settings.spill,
        shard: args.shard.unwrap_or([0, 1]),
    };
    // The state lies beside the output, so its folder must be there first.
    crate::cache::make_parent(&args.output)?;
    let started = std::time::Instant::now();
    let stats = calibration::calibrate(&model.forward, &sequences, &options, &console)?;
    stats.write(&args.output)?;
    calibration::remove_state(&state)?;
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
            format::duration(started.elapsed()),
            args.output.display()
        ),
    );
    Ok(())
}

/// Where an unfinished calibration keeps its layers: `<out>.partial`.
fn partial(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    output.with_file_name(name)
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
            partial(Path::new("a/q.stats")),
            Path::new("a/q.stats.partial")
        );
    }
}
