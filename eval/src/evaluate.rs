//! Runs a reference and its variants over held-out text.

use std::collections::{BTreeMap, BTreeSet};

use router_stats::calibration::Sequences;
use router_stats::family::Keep;
use router_stats::forward::Model;
use router_stats::progress::Progress;

use crate::compare::{Bootstrap, CONFIDENCE, RESAMPLES};
use crate::evaluator::EVALUATORS;
use crate::report::{Domain, Model as Measured, Predictions, Provenance, Report};
use crate::score::{score, Meter, Outcomes, Run};
use crate::{Error, Result};

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
/// [`Error::Option`], [`Error::DuplicateName`], [`Error::Vocabulary`],
/// [`Error::Token`] and [`Error::NoPredictions`] before anything runs;
/// [`Error::NonFinite`] for a model that does not predict; otherwise what
/// running a checkpoint can give, an interruption included.
pub fn evaluate(
    reference: &Variant<'_>,
    variants: &[Variant<'_>],
    sequences: &Sequences,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    check(reference, variants, sequences, options)?;
    let batches = sequences.batches(options.batch_tokens);
    let hidden = |variant: &Variant<'_>| {
        variant.model.hidden_states(
            sequences,
            variant.keep.as_ref(),
            options.batch_tokens,
            progress,
        )
    };
    let tokens = sequences.tokens.len() as u64;
    let meter = |pass: usize| Meter {
        progress,
        done: tokens * pass as u64,
        total: tokens * variants.len().max(1) as u64,
    };

    let expected = hidden(reference)?;
    let head = reference.model.head()?;
    let original = Run {
        variant: reference,
        head: &head,
        hidden: &expected,
    };
    let mut of_reference = None;
    let mut measured = Vec::new();
    for (pass, variant) in variants.iter().enumerate() {
        let states = hidden(variant)?;
        // A masked model has the head of the original, which may be large.
        let own = if std::ptr::eq(variant.model, reference.model) {
            None
        } else {
            Some(variant.model.head()?)
        };
        let run = Run {
            variant,
            head: own.as_ref().unwrap_or(&head),
            hidden: &states,
        };
        let sums = score(original, Some(run), sequences, &batches, meter(pass))?;
        measured.push(measure(variant, sequences, &sums.variant, true)?);
        of_reference.get_or_insert(sums.reference);
    }
    let of_reference = match of_reference {
        Some(sums) => sums,
        None => score(original, None, sequences, &batches, meter(0))?.reference,
    };
    let reference = measure(reference, sequences, &of_reference, false)?;
    Ok(Report::new(
        provenance(sequences, options),
        predictions(sequences),
        reference,
        measured,
    ))
}

/// Names a model and rounds its sums; sequences without predictions are left
/// out.
fn measure(
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
        name: variant.name.clone(),
        fingerprint: variant.model.checkpoint().fingerprint()?,
        masked: variant
            .keep
            .as_ref()
            .is_some_and(|keep| !keep.is_identity(variant.model.topology())),
        all: BTreeMap::new(),
        domains: BTreeMap::new(),
        sums,
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

/// Everything that can be refused before a model runs.
fn check(
    reference: &Variant<'_>,
    variants: &[Variant<'_>],
    sequences: &Sequences,
    options: &EvalOptions,
) -> Result<()> {
    let unusable = |option, expected, found: String| {
        Err(Error::Option {
            option,
            expected,
            found,
        })
    };
    if options.resamples < 2 {
        return unusable("resamples", "at least 2", options.resamples.to_string());
    }
    if !(options.confidence > 0.0 && options.confidence < 1.0) {
        return unusable(
            "confidence",
            "a number between 0 and 1",
            options.confidence.to_string(),
        );
    }
    if options.batch_tokens == 0 {
        return unusable("batch tokens", "at least 1", "0".to_owned());
    }
    unique(
        "model",
        std::iter::once(reference)
            .chain(variants)
            .map(|variant| &variant.name),
    )?;
    unique("domain", sequences.names.iter())?;
    let vocabulary = reference.model.topology().vocab;
    for variant in variants {
        let found = variant.model.topology().vocab;
        if found != vocabulary {
            return Err(Error::Vocabulary {
                reference: reference.name.clone(),
                variant: variant.name.clone(),
                expected: vocabulary,
                found,
            });
        }
    }
    for sequence in 0..sequences.len() {
        if let Some(&token) = sequences
            .sequence(sequence)
            .iter()
            .find(|&&token| token as usize >= vocabulary)
        {
            return Err(Error::Token {
                model: reference.name.clone(),
                vocabulary,
                token,
                sequence,
            });
        }
    }
    let weighs = |sequence| sequences.weights[usize::from(sequences.domains[sequence])] > 0.0;
    if predicted(sequences).any(weighs) {
        Ok(())
    } else {
        Err(Error::NoPredictions)
    }
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::DuplicateName {
                what,
                name: name.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
