//! A budget, and more text than a job has → another plan.

use router_stats::calibration::{calibrate, CalibrateOptions, Corpus, Domain, PackOptions};
use router_stats::stats::Stats;

use super::{measure, planner, texts, within_loss, Grounds, Job, LossLimit, Model, Texts};
use crate::format;
use crate::plan::{Plan, PlanOptions};
use crate::Result;

/// Text that weighs in beside that of a job. It is not written to disk, and
/// nor is what is measured with it.
pub struct Beside<'a> {
    /// Its domain, which the job's text does not have.
    pub domain: &'a str,
    /// The text.
    pub documents: Vec<String>,
    /// Tokens of it, at most.
    pub tokens: usize,
    /// What it weighs, in terms of all of the job's text.
    pub weight: f64,
}

/// The plan that `options` ask for, from statistics of the job's text and of
/// the text beside it. What the job's change is does not matter.
///
/// # Errors
/// Those of calibrating and planning.
pub fn replan(job: &Job, options: &PlanOptions, beside: Beside<'_>) -> Result<Plan> {
    let (cache, reporter) = (&job.cache, &*job.reporter);
    let model = job.source.open(&job.device, cache, reporter)?;
    let texts = Texts::new(&job.texts, &model, cache, reporter)?;
    let measured = measure(
        &model,
        &texts.calibration,
        &job.calibration,
        cache,
        reporter,
    )?;
    let base = measured.read()?;
    let options = PlanOptions {
        domain_weights: options.domain_weights.as_ref().map(|weights| {
            let known = |name: &str| base.provenance.domains.iter().any(|it| it.name == name);
            let mut weights = weights.clone();
            weights.retain(|(name, _)| known(name));
            weights
        }),
        max_loss: options.max_loss.filter(|_| job.evaluation.is_some()),
        ..options.clone()
    };
    let more = weighed(job, &model, &base, beside)?;
    let stats = base.beside(more)?;
    let grounds = Grounds {
        stats: &stats,
        text: None,
    };
    let plan = match (options.max_loss, &job.evaluation) {
        (Some(most), Some(evaluation)) => {
            let limit = LossLimit {
                most,
                held_out: &texts.held_out,
                evaluation,
            };
            within_loss(&model, grounds, &options, limit, cache, reporter)?
        }
        _ => planner(&model, grounds, &options, cache, reporter)?.plan()?,
    };
    Ok(plan.plan().clone())
}

/// Statistics of the text beside the job's, with the weight of its domain.
fn weighed(job: &Job, model: &Model, base: &Stats, beside: Beside<'_>) -> Result<Stats> {
    let corpus = Corpus {
        domains: vec![Domain {
            name: beside.domain.to_owned(),
            weight: beside.weight,
            documents: beside.documents,
        }],
    };
    let pack = PackOptions {
        tokens: beside.tokens,
        ..job.calibration.pack()
    };
    let sequences = texts::sequences(&corpus, model, &pack)?;
    let mut stats = calibrate(
        &model.forward,
        &sequences,
        &CalibrateOptions {
            batch_tokens: job.calibration.batch_tokens,
            // On disk there is to be nothing of it.
            state: None,
            spill: false,
            shard: [0, 1],
        },
        &*job.reporter,
    )?;
    let domains = base.provenance.domains.iter();
    let all: f64 = domains.map(|it| it.weight * it.tokens as f64).sum();
    let tokens = sequences.tokens.len();
    for domain in &mut stats.provenance.domains {
        domain.weight = beside.weight * all / tokens as f64;
    }
    job.reporter.report(
        "Calibrated",
        &format!(
            "{} tokens of {}",
            format::count(tokens as u64),
            beside.domain
        ),
    );
    Ok(stats)
}
