//! Runs a reference and its variants over held-out text.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use candle_core::Tensor;
use router_stats::calibration::Sequences;
use router_stats::family::Keep;
use router_stats::forward::{Head, Model};
use router_stats::progress::Progress;

use crate::compare::{Bootstrap, CONFIDENCE, RESAMPLES};
use crate::evaluator::EVALUATORS;
use crate::report::{Domain, Model as Measured, Predictions, Provenance, Report, Subject};
use crate::score::{score, Meter, Outcomes, Run};
use crate::Result;

/// Sums are rounded to one part in so many of a nat or token, so that a report
/// stays small.
const SUM_STEPS: f64 = 1e6;

/// A model, or what a plan would leave of it.
#[derive(Clone)]
pub struct Variant<'a> {
    /// Name in the report; unique.
    pub name: String,
    /// The checkpoint to run.
    pub model: &'a Model,
    /// What stays; the rest is masked. `None` for the model as it is.
    pub keep: Option<Keep>,
}

/// How to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Tokens that go through a block at once.
    pub batch_tokens: usize,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// Coverage of the intervals, between 0 and 1.
    pub confidence: f64,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            batch_tokens: 4096,
            resamples: RESAMPLES,
            confidence: CONFIDENCE,
            seed: 0,
        }
    }
}

/// Measures `variants` against `reference` on `sequences`. Without variants
/// only the reference is measured.
///
/// Every token of a sequence but the first is predicted from those before it.
/// Hidden states are held of the reference and one variant at a time, logits
/// of at most 64 MB of rows of both.
///
/// # Errors
/// Those of [`Evaluation::new`] and [`Evaluation::measure`]; what can be refused
/// is refused before anything runs.
pub fn evaluate(
    reference: &Variant<'_>,
    variants: &[Variant<'_>],
    sequences: &Sequences,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    check::options(options)?;
    check::names(std::iter::once(reference).chain(variants))?;
    for variant in variants {
        check::vocabulary(reference, variant)?;
    }
    let mut evaluation = Evaluation::new(reference, sequences, options, progress)?;
    let mut measured = Vec::new();
    for (pass, variant) in variants.iter().enumerate() {
        measured.push(evaluation.pass(variant, progress, pass, variants.len())?);
    }
    evaluation.report(measured, progress)
}

/// A reference that has been run, and what variants are measured against. Its
/// hidden states are held until it is dropped.
pub struct Evaluation<'a> {
    reference: &'a Variant<'a>,
    sequences: &'a Sequences,
    options: EvalOptions,
    batches: Vec<Range<usize>>,
    head: Head,
    /// Final-norm hidden states [tokens, H] of the reference, of every batch.
    hidden: Vec<Tensor>,
    /// Summed outcomes of the reference, once something was scored.
    sums: Option<Vec<Outcomes>>,
}

impl<'a> Evaluation<'a> {
    /// Runs the reference.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option), `DuplicateName`, `Token` and
    /// `NoPredictions` before anything runs; otherwise what running a
    /// checkpoint can give, an interruption included.
    pub fn new(
        reference: &'a Variant<'a>,
        sequences: &'a Sequences,
        options: &EvalOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        check::options(options)?;
        check::text(reference, sequences)?;
        Ok(Self {
            hidden: hidden_states(reference, sequences, options, progress)?,
            head: reference.model.head()?,
            batches: sequences.batches(options.batch_tokens),
            sums: None,
            options: options.clone(),
            reference,
            sequences,
        })
    }

    /// Measures one variant: its sums, without estimates, which
    /// [`report`](Self::report) adds.
    ///
    /// # Errors
    /// [`Error::Vocabulary`](crate::Error::Vocabulary); `NonFinite` for a model that does not
    /// predict; otherwise what running a checkpoint can give.
    pub fn measure(&mut self, variant: &Variant<'_>, progress: &dyn Progress) -> Result<Measured> {
        check::vocabulary(self.reference, variant)?;
        self.pass(variant, progress, 0, 1)
    }

    /// The report on what has been measured; the reference is always in it.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a reference that does not predict.
    pub fn report(&mut self, variants: Vec<Measured>, progress: &dyn Progress) -> Result<Report> {
        let sums = match self.sums.take() {
            Some(sums) => sums,
            None => {
                let meter = self.meter(progress, 0, 1);
                score(self.original(), None, self.sequences, &self.batches, meter)?.reference
            }
        };
        let reference = measured(self.reference, self.sequences, &sums, false)?;
        self.sums = Some(sums);
        Ok(Report::new(
            provenance(self.sequences, &self.options),
            predictions(self.sequences),
            reference,
            variants,
        ))
    }

    fn pass(
        &mut self,
        variant: &Variant<'_>,
        progress: &dyn Progress,
        pass: usize,
        passes: usize,
    ) -> Result<Measured> {
        let hidden = hidden_states(variant, self.sequences, &self.options, progress)?;
        // A masked model has the head of the original, which may be large, and
        // so has one whose projections alone are rounded.
        let original = self.reference.model;
        let shares = std::ptr::eq(variant.model.checkpoint(), original.checkpoint());
        let rounds = variant.model.rounds_head() || original.rounds_head();
        let own = if shares && !rounds {
            None
        } else {
            Some(variant.model.head()?)
        };
        let run = Run {
            variant,
            head: own.as_ref().unwrap_or(&self.head),
            hidden: &hidden,
        };
        let meter = self.meter(progress, pass, passes);
        let sums = score(
            self.original(),
            Some(run),
            self.sequences,
            &self.batches,
            meter,
        )?;
        self.sums.get_or_insert(sums.reference);
        measured(variant, self.sequences, &sums.variant, true)
    }

    fn original(&self) -> Run<'_> {
        Run {
            variant: self.reference,
            head: &self.head,
            hidden: &self.hidden,
        }
    }

    fn meter<'b>(&self, progress: &'b dyn Progress, pass: usize, passes: usize) -> Meter<'b> {
        let tokens = self.sequences.tokens.len() as u64;
        Meter {
            progress,
            done: tokens * pass as u64,
            total: tokens * passes as u64,
        }
    }
}

fn hidden_states(
    variant: &Variant<'_>,
    sequences: &Sequences,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<Vec<Tensor>> {
    let keep = variant.keep.as_ref();
    let batch_tokens = options.batch_tokens;
    Ok(variant
        .model
        .hidden_states(sequences, keep, batch_tokens, progress)?)
}

/// Names a model and rounds its sums; sequences without predictions are left
/// out.
fn measured(
    variant: &Variant<'_>,
    sequences: &Sequences,
    sums: &[Outcomes],
    compared: bool,
) -> Result<Measured> {
    let columns = EVALUATORS
        .iter()
        .enumerate()
        .filter(|(_, evaluator)| compared || !evaluator.against_reference());
    let sums: BTreeMap<String, Vec<f64>> = columns
        .map(|(index, evaluator)| {
            let column = predicted(sequences)
                .map(|sequence| (sums[sequence][index] * SUM_STEPS).round() / SUM_STEPS);
            (evaluator.name().to_owned(), column.collect())
        })
        .collect();
    Ok(Measured {
        sums,
        ..Subject::of(variant)?.unmeasured()
    })
}

/// Sequences that predict something.
fn predicted(sequences: &Sequences) -> impl Iterator<Item = usize> + '_ {
    (0..sequences.len()).filter(|&sequence| sequences.sequence(sequence).len() > 1)
}

fn predictions(sequences: &Sequences) -> Predictions {
    Predictions {
        domains: predicted(sequences)
            .map(|sequence| sequences.domains[sequence])
            .collect(),
        documents: predicted(sequences)
            .map(|sequence| sequences.document[sequence])
            .collect(),
        tokens: predicted(sequences)
            .map(|sequence| sequences.sequence(sequence).len() as u32 - 1)
            .collect(),
    }
}

fn provenance(sequences: &Sequences, options: &EvalOptions) -> Provenance {
    let domain = |(index, name): (usize, &String)| {
        let own = || {
            predicted(sequences)
                .filter(move |&sequence| usize::from(sequences.domains[sequence]) == index)
        };
        let tokens = own()
            .map(|sequence| sequences.sequence(sequence).len() as u64 - 1)
            .sum();
        let weight = if tokens == 0 {
            0.0
        } else {
            sequences.weights[index]
        };
        Domain {
            name: name.clone(),
            weight,
            sequences: own().count() as u64,
            documents: own()
                .map(|sequence| sequences.document[sequence])
                .collect::<BTreeSet<_>>()
                .len() as u64,
            tokens,
        }
    };
    let mut domains: Vec<Domain> = sequences.names.iter().enumerate().map(domain).collect();
    let total: f64 = domains.iter().map(|domain| domain.weight).sum();
    for domain in &mut domains {
        domain.weight /= total;
    }
    Provenance {
        created_by: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        corpus: sequences.hash.clone(),
        seq_len: sequences.seq_len,
        bootstrap: Bootstrap {
            resamples: options.resamples,
            confidence: options.confidence,
            seed: options.seed,
        },
        domains,
    }
}

#[cfg(test)]
pub(crate) mod tests;
