//! How good a candidate is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prune_eval::{Evaluation, Variant};
use router_stats::calibration::Sequences;
use router_stats::family::Keep;
use router_stats::progress::Progress;

use super::journal::Line;
use super::{Fitness, Journal, OfMany, SearchText};
use crate::cache::Key;
use crate::Result;

/// Measures candidates on calibration text, each once.
///
/// Nothing runs until a candidate comes that its journal does not hold. Then
/// the original runs once; its hidden states are held until this is dropped.
pub struct Objective<'a> {
    text: &'a SearchText<'a>,
    evaluation: Option<Evaluation<'a>>,
    journal: Journal,
    limit: Option<Duration>,
    progress: &'a dyn Progress,
    /// What the search is doing, and how many candidates it expects.
    detail: String,
    expected: usize,
    /// Candidates that were asked for.
    seen: BTreeSet<String>,
    /// Seconds that measuring them took, now or when they were measured.
    spent: f64,
    passes: usize,
}

impl<'a> Objective<'a> {
    /// Measures on `text`; what `journal` holds is not measured again. `limit`
    /// is the time after which [`expired`](Self::expired).
    pub fn new(
        text: &'a SearchText<'a>,
        journal: Journal,
        limit: Option<Duration>,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            text,
            evaluation: None,
            journal,
            limit,
            progress,
            detail: String::new(),
            expected: 0,
            seen: BTreeSet::new(),
            spent: 0.0,
            passes: 0,
        }
    }

    /// What `keep` leaves of the model is worth. From the journal if it was
    /// measured before; otherwise it is in the journal when this returns.
    ///
    /// # Errors
    /// Those of running the model, an interruption included, and of writing the
    /// journal.
    pub fn measure(&mut self, keep: &Keep) -> Result<Fitness> {
        let name = Key::new("variant").with_keep(keep)?.finish();
        let line = match self.journal.get(&name) {
            Some(line) => line.clone(),
            None => {
                let line = self.run(keep, name.clone())?;
                self.journal.append(line.clone())?;
                self.passes += 1;
                line
            }
        };
        if self.seen.insert(name) {
            self.spent += line.seconds;
        }
        Ok(line.fitness())
    }

    /// Candidates that were run, not those that the journal held.
    pub fn measured(&self) -> usize {
        self.passes
    }

    /// Different candidates that were asked for. A search that was killed and
    /// one that was not ask for as many.
    pub fn asked(&self) -> usize {
        self.seen.len()
    }

    /// Whether the candidates that were asked for took as long to run as is
    /// allowed. Those that the journal held count with the time that they took
    /// then, so that a search that was killed has what was left, and one that is
    /// run again stops at the same candidate.
    pub fn expired(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.spent >= limit.as_secs_f64())
    }

    /// Says what the search is doing (`generation 3`) and how many candidates it
    /// will ask for at most, for whoever watches.
    pub fn describe(&mut self, detail: String, expected: usize) {
        self.detail = detail;
        self.expected = expected;
    }

    /// The text that it measures on.
    pub fn text(&self) -> &SearchText<'a> {
        self.text
    }

    /// Runs a candidate.
    fn run(&mut self, keep: &Keep, name: String) -> Result<Line> {
        let text = self.text;
        let mut evaluation = match self.evaluation.take() {
            Some(evaluation) => evaluation,
            None => Evaluation::new(
                &text.reference,
                &text.sequences,
                &text.options,
                self.progress,
            )?,
        };
        let started = Instant::now();
        let variant = Variant {
            name,
            model: text.reference.model,
            keep: Some(keep.clone()),
        };
        let progress = OfMany {
            inner: self.progress,
            stage: "Searching",
            detail: &self.detail,
            before: self.seen.len() as u64,
            variants: self.candidates(),
            tokens: text.tokens() as u64,
        };
        let measured = evaluation.measure(&variant, &progress)?;
        self.evaluation = Some(evaluation);
        let mean = |evaluator: &str| {
            let sums = measured.sums.get(evaluator);
            sums.and_then(|sums| mean(&text.sequences, sums))
                .ok_or(prune_eval::Error::NoPredictions)
        };
        let fitness = Fitness {
            overlap: mean("overlap")?,
            nll: mean("nll")?,
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Line::new(variant.name, fitness, seconds))
    }

    /// Candidates until the search ends or its time does, by the pace so far.
    fn candidates(&self) -> u64 {
        let asked = self.seen.len();
        let expected = self.expected.max(asked + 1);
        let Some(limit) = self.limit.filter(|_| self.spent > 0.0) else {
            return expected as u64;
        };
        let within = (limit.as_secs_f64() / self.spent * asked as f64).ceil();
        // A cast from f64 saturates.
        expected.min((within as usize).max(asked + 1)) as u64
    }
}

/// Mean outcome per predicted token, domains mixed by weight; `sums` has a value
/// for each sequence that predicts something. `None` if nothing with a weight
/// does.
fn mean(sequences: &Sequences, sums: &[f64]) -> Option<f64> {
    let mut domains = vec![(0.0, 0.0); sequences.names.len()];
    let predicting = (0..sequences.len()).filter(|&at| sequences.sequence(at).len() > 1);
    for (at, sum) in predicting.zip(sums) {
        let (outcomes, tokens) = domains.get_mut(usize::from(sequences.domains[at]))?;
        *outcomes += sum;
        *tokens += (sequences.sequence(at).len() - 1) as f64;
    }
    let (mut mean, mut total) = (0.0, 0.0);
    for ((outcomes, tokens), weight) in domains.iter().zip(&sequences.weights) {
        if *tokens > 0.0 {
            mean += weight * outcomes / tokens;
            total += weight;
        }
    }
    (total > 0.0).then(|| mean / total)
}
