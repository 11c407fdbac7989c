//! A plan → what it costs on held-out text.

use prune_eval::{EvalOptions, Report, Variant};
use router_stats::calibration::{Corpus, PackOptions};

use super::{texts, Model, Reporter, CACHED};
use crate::cache::{self, Cache, Key};
use crate::format;
use crate::plan::ValidPlan;
use crate::surgery::{DomainLoss, Loss};
use crate::Result;

/// Name of the pruned model in a report with one variant.
const PRUNED: &str = "pruned";

/// How the loss is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationOptions {
    /// Tokens over all domains.
    pub tokens: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Seed of the order of documents.
    pub seed: u64,
    /// Batches and intervals.
    pub options: EvalOptions,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            tokens: 32_768,
            seq_len: 512,
            seed: 0,
            options: EvalOptions::default(),
        }
    }
}

impl EvaluationOptions {
    /// How documents are packed.
    pub fn pack(&self) -> PackOptions {
        PackOptions {
            seq_len: self.seq_len,
            tokens: self.tokens,
            seed: self.seed,
        }
    }
}

/// What `plan` costs `model` on `held_out`, from the cache or measured now in
/// a masked forward pass.
///
/// # Errors
/// Those of evaluating, and if the cache cannot be written.
pub fn evaluate(
    model: &Model,
    plan: &ValidPlan,
    held_out: &Corpus,
    options: &EvaluationOptions,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Report> {
    let keep = plan.keep();
    let key = Key::new("eval")
        .with(&model.fingerprint)
        .with_json(&(&keep.layers, &keep.experts))?
        .with(&held_out.hash())
        .with(&format!("{options:?}"))
        .finish();
    let path = cache.eval(&key);
    let _lock = cache.lock(&key, reporter)?;
    if let Ok(report) = Report::read(&path) {
        reporter.report(CACHED, &format!("evaluation   {}", path.display()));
        return Ok(report);
    }
    let sequences = texts::sequences(held_out, model, &options.pack())?;
    let reference = Variant {
        name: model.name.clone(),
        model: &model.forward,
        keep: None,
    };
    let variant = Variant {
        name: PRUNED.to_owned(),
        model: &model.forward,
        keep: Some(keep.clone()),
    };
    let report = prune_eval::evaluate(
        &reference,
        &[variant],
        &sequences,
        &options.options,
        reporter,
    )?;
    cache::make_parent(&path)?;
    report.write(&path)?;
    reporter.report(
        "Checked",
        &format!(
            "{} held-out tokens, original against pruned",
            format::count(sequences.tokens.len() as u64)
        ),
    );
    Ok(report)
}

/// What a model card says of the first variant of `report`.
pub fn loss(report: &Report) -> Option<Loss> {
    let pruned = report.variants.first()?;
    let rows = report
        .domains()
        .filter_map(|domain| {
            let of = |model: &prune_eval::report::Model, metric| {
                model.estimate(metric, Some(&domain.name)).copied()
            };
            let change = of(pruned, "perplexity_change")?;
            Some(DomainLoss {
                domain: domain.name.clone(),
                before: of(&report.reference, "perplexity")?.value,
                after: of(pruned, "perplexity")?.value,
                change: change.value,
                interval: change.interval(),
            })
        })
        .collect();
    Some(Loss {
        tokens: report.domains().map(|domain| domain.tokens).sum(),
        confidence: report.provenance.bootstrap.confidence,
        rows,
    })
}
