//! What is refused before a model runs.

use std::collections::BTreeSet;

use router_stats::calibration::Sequences;

use super::{predicted, EvalOptions, Variant};
use crate::{Error, Result};

/// Settings that no evaluation can have.
pub(super) fn options(options: &EvalOptions) -> Result<()> {
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
    Ok(())
}

/// Models that a report could not tell apart.
pub(super) fn names<'a>(variants: impl Iterator<Item = &'a Variant<'a>>) -> Result<()> {
    unique("model", variants.map(|variant| &variant.name))
}

/// A variant that predicts other tokens than the reference.
pub(super) fn vocabulary(reference: &Variant<'_>, variant: &Variant<'_>) -> Result<()> {
    let expected = reference.model.topology().vocab;
    let found = variant.model.topology().vocab;
    if found == expected {
        return Ok(());
    }
    Err(Error::Vocabulary {
        reference: reference.name.clone(),
        variant: variant.name.clone(),
        expected,
        found,
    })
}

/// Text that says nothing, or not to this model.
pub(super) fn text(reference: &Variant<'_>, sequences: &Sequences) -> Result<()> {
    unique("domain", sequences.names.iter())?;
    let vocabulary = reference.model.topology().vocab;
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
