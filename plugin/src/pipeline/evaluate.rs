//! A plan → what it costs on held-out text.

use prune_eval::{EvalOptions, Report, Variant};
use router_stats::calibration::{Corpus, PackOptions};

use super::{texts, Model, Reporter, CACHED};
use crate::cache::{self, Cache, Key};
use crate::format;
use crate::plan::ValidPlan;
use crate::surgery::UqffWeights;
use crate::Result;

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

    /// What a report depends on: all but the size of batches.
    fn identity(&self) -> String {
        let mut options = self.clone();
        options.options.batch_tokens = 0;
        format!("{options:?}")
    }
}

/// What `plan` costs `model` on `held_out`, from the cache or measured now in
/// a masked forward pass, with weights rounded to the type that the plan says.
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
    let rounded = plan.plan().weights;
    let key = Key::new("eval")
        .with(&model.fingerprint)
        .with(&model.companions)
        .with_keep(keep)?
        .with(&held_out.hash())
        .with(&options.identity())
        .with(rounded.map_or("", UqffWeights::name))
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
    let stored = plan
        .rounding(model.family(), model.topology())
        .map(|it| model.forward.rounded(it));
    let variant = Variant {
        // Another name than the model's, whatever that is.
        name: format!("{}-pruned", model.name),
        model: stored.as_ref().unwrap_or(&model.forward),
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
