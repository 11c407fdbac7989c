//! Grid → plans → what each costs, into a file.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::path::Path;

use prune_eval::sweep::{Header, Line, Size as Weighed, SweepFile, Worst};
use prune_eval::{Evaluation, Sweep, Variant};
use router_stats::calibration::Corpus;
use router_stats::family::Keep;
use router_stats::forward::{self, Quantization};

use super::{Grid, Wanted};
use crate::cache::{make_parent, Cache, Key};
use crate::pipeline::{
    measure, planner, searched, sequences, Calibration, EvaluationOptions, Grounds, Model,
    Reporter, SearchOn,
};
use crate::plan::{self, Size};
use crate::search::OfMany;
use crate::{Error, Result};

/// A model, what is varied, and the text that decides and measures.
pub struct SweepJob<'a> {
    /// The model.
    pub model: &'a Model,
    /// What is varied.
    pub grid: &'a Grid,
    /// Text that plans are made from.
    pub calibration: &'a Corpus,
    /// How statistics are made; its seed is the grid's business.
    pub measure: &'a Calibration,
    /// Text that the loss is measured on.
    pub held_out: &'a Corpus,
    /// How it is measured.
    pub evaluation: &'a EvaluationOptions,
    /// Where statistics are kept.
    pub cache: &'a Cache,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}

/// Measures the points of the grid that the file at `path` does not hold yet,
/// and returns all that it holds. The original is run once, and so are points
/// that lead to one plan; every result is on disk before the next is begun.
///
/// # Errors
/// Those of planning and evaluating; a file of another model, text or settings
/// is refused. What was measured before an error is kept.
pub fn run(job: &SweepJob<'_>, path: &Path) -> Result<Sweep> {
    let model = job.model;
    let domains: Vec<String> = job
        .calibration
        .domains
        .iter()
        .map(|domain| domain.name.clone())
        .collect();
    let wanted = job.grid.points(&domains);
    check(job, &wanted, &domains)?;
    let sequences = sequences(job.held_out, model, &job.evaluation.pack())?;
    let settings = settings(job, &sequences.hash);

    let mut file = SweepFile::open(path)?;
    if let Some(file) = &file {
        file.expect(&settings)?;
    }
    let missing: Vec<&Wanted> = wanted
        .iter()
        .filter(|wanted| {
            let done = file.as_ref().map(SweepFile::sweep);
            done.is_none_or(|sweep| sweep.at(&wanted.point).is_none())
        })
        .collect();
    if let (Some(file), true) = (&file, missing.is_empty()) {
        return Ok(file.sweep().clone());
    }
    if missing.len() < wanted.len() {
        let done = wanted.len() - missing.len();
        let text = format!(
            "{done} of {} points are in {}",
            wanted.len(),
            path.display()
        );
        job.reporter.report("Resuming", &text);
    }

    let reference = Variant {
        name: model.name.clone(),
        model: &model.forward,
        keep: None,
    };
    let rounded = Rounded::new(&model.forward, &missing)?;
    let options = &job.evaluation.options;
    let mut evaluation = Evaluation::new(&reference, &sequences, options, job.reporter)?;
    let mut file = match file.take() {
        Some(file) => file,
        None => {
            make_parent(path)?;
            let header = Header {
                sweep: prune_eval::sweep::VERSION,
                settings,
                size: weighed(&model.size()?),
                base: evaluation.report(Vec::new(), job.reporter)?,
            };
            SweepFile::create(path, header)?
        }
    };
    let mut done = 0;
    for &seed in &job.grid.seeds {
        let own: Vec<&Wanted> = missing
            .iter()
            .copied()
            .filter(|wanted| wanted.seed == seed)
            .collect();
        if own.is_empty() {
            continue;
        }
        for (wanted, keep, size) in plans(job, seed, &own)? {
            let label = wanted.point.label(&[]);
            let progress = OfMany {
                inner: job.reporter,
                stage: "Sweeping",
                detail: &format!("{}/{} {label}", done + 1, missing.len()),
                before: done as u64,
                variants: missing.len() as u64,
                tokens: sequences.tokens.len() as u64,
            };
            let hash = hash(&keep, wanted.quantization)?;
            let line = match file.sweep().of_variant(&hash) {
                Some(same) => renamed(same, wanted, label),
                None => {
                    let variant = Variant {
                        name: label,
                        model: rounded.get(wanted.quantization).unwrap_or(&model.forward),
                        keep: Some(keep),
                    };
                    let measured = evaluation.measure(&variant, &progress)?;
                    let mut report = evaluation.report(vec![measured], &progress)?;
                    let worst = Worst::of(&report);
                    // The report is of this one variant.
                    Line {
                        point: wanted.point.clone(),
                        variant: hash,
                        size,
                        worst,
                        model: report.variants.swap_remove(0),
                    }
                }
            };
            file.append(line)?;
            done += 1;
        }
    }
    Ok(file.sweep().clone())
}

/// What can be refused before anything runs.
fn check(job: &SweepJob<'_>, wanted: &[Wanted], domains: &[String]) -> Result<()> {
    if wanted.is_empty() {
        return Err(Error::Option {
            option: "--prune-experts",
            expected: "a fraction above 0, or something to drop or to quantize".to_owned(),
            found: "nothing that changes the model".to_owned(),
        });
    }
    for on in &job.grid.calibrate_on {
        if let super::CalibrateOn::Domain(name) = on {
            if !domains.contains(name) {
                return Err(Error::Unknown {
                    what: "domain",
                    found: name.clone(),
                    known: domains.join(", "),
                });
            }
        }
    }
    wanted
        .iter()
        .filter_map(|wanted| wanted.options.as_ref())
        .try_for_each(|options| plan::check(options, job.model.topology()))
}

/// Whatever a result depends on beside its point.
fn settings(job: &SweepJob<'_>, text: &str) -> BTreeMap<String, String> {
    let (model, measure, evaluation) = (job.model, job.measure, job.evaluation);
    let common = &job.grid.common;
    let weights = |corpus: &Corpus| {
        let weights: Vec<String> = corpus
            .domains
            .iter()
            .map(|domain| format!("{}:{}", domain.name, domain.weight))
            .collect();
        weights.join(",")
    };
    let protected: Vec<String> = common.protect.iter().map(ToString::to_string).collect();
    [
        ("model", model.fingerprint.clone()),
        ("tokenizer", model.companions.clone()),
        ("text", text.to_owned()),
        ("text weights", weights(job.held_out)),
        ("calibration", job.calibration.hash()),
        ("calibration weights", weights(job.calibration)),
        ("calibration tokens", measure.tokens.to_string()),
        ("sequence length", measure.seq_len.to_string()),
        ("resamples", evaluation.options.resamples.to_string()),
        ("confidence", evaluation.options.confidence.to_string()),
        (
            "prune super experts",
            common.prune_super_experts.to_string(),
        ),
        ("protect", protected.join(",")),
        ("balance domains", common.balance_domains.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What is left at the points of one seed, with its size. Statistics are made
/// if a point asks for a plan.
fn plans<'a>(
    job: &SweepJob<'_>,
    seed: u64,
    wanted: &[&'a Wanted],
) -> Result<Vec<(&'a Wanted, Keep, Weighed)>> {
    let model = job.model;
    let (checkpoint, family, topology) = (model.checkpoint(), model.family(), model.topology());
    let calibration = Calibration {
        seed,
        ..job.measure.clone()
    };
    let corpus = job.calibration;
    let stats = if wanted.iter().any(|wanted| wanted.options.is_some()) {
        Some(measure(model, corpus, &calibration, job.cache, job.reporter)?.read()?)
    } else {
        None
    };
    wanted
        .iter()
        .map(|&wanted| {
            let keep = match (&stats, &wanted.options) {
                (Some(stats), Some(options)) => {
                    let text = Some(SearchOn {
                        corpus,
                        pack: &calibration.pack(),
                    });
                    let grounds = Grounds { stats, text };
                    let (cache, reporter) = (job.cache, job.reporter);
                    let plan = match &options.search {
                        None => planner(model, grounds, options, cache, reporter)?.plan()?,
                        Some(by) => searched(model, grounds, options, by, cache, reporter)?,
                    };
                    plan.keep().clone()
                }
                _ => Keep::all(topology),
            };
            let size = Size::quantized(checkpoint, family, topology, &keep, wanted.quantization)?;
            Ok((wanted, keep, weighed(&size)))
        })
        .collect()
}

/// The model with its weights rounded to every type that is asked for.
struct Rounded(BTreeMap<Quantization, forward::Model>);

impl Rounded {
    fn new(model: &forward::Model, wanted: &[&Wanted]) -> Result<Self> {
        let mut models = BTreeMap::new();
        for quantization in wanted.iter().filter_map(|wanted| wanted.quantization) {
            if let Entry::Vacant(place) = models.entry(quantization) {
                place.insert(model.quantized(quantization)?);
            }
        }
        Ok(Self(models))
    }

    fn get(&self, quantization: Option<Quantization>) -> Option<&forward::Model> {
        self.0.get(&quantization?)
    }
}

/// The same measurement at another point.
fn renamed(line: &Line, wanted: &Wanted, label: String) -> Line {
    let mut line = line.clone();
    line.point = wanted.point.clone();
    line.model.name = label;
    line
}

/// Names what is run.
fn hash(keep: &Keep, quantization: Option<Quantization>) -> Result<String> {
    let key = Key::new("variant").with_keep(keep)?;
    let key = key.with(quantization.map_or("", Quantization::name));
    Ok(key.finish())
}

fn weighed(size: &Size) -> Weighed {
    Weighed {
        parameters: size.parameters,
        active_parameters: size.active_parameters,
        bytes: size.bytes,
    }
}
