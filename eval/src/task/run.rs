//! Asks a backend everything about the items of a task.

use router_stats::progress::Progress;

use super::{Answer, Request, TaskSet};
use crate::backend::{Backend, Encoder, Prompt, TokenScore};
use crate::{Error, Result};

/// What one model's answers to one set are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutcomes {
    /// Name of the set.
    pub task: String,
    /// Outcomes `[items][metrics]`, in the order of the set's records and its
    /// kind's metrics.
    pub items: Vec<Vec<f64>>,
}

/// Runs several sets one after another.
///
/// # Errors
/// Those of [`run_task`].
pub fn run_tasks(
    backend: &mut dyn Backend,
    sets: &[TaskSet],
    progress: &dyn Progress,
) -> Result<Vec<TaskOutcomes>> {
    sets.iter()
        .map(|set| run_task(backend, set, progress))
        .collect()
}

/// Asks about every record, all scores together and then all generations, and
/// turns the answers into outcomes.
///
/// # Errors
/// [`Error::Tokenizer`] for text that does not become tokens; what the backend
/// gives; [`Error::Backend`] for answers that are too few or not numbers.
pub fn run_task(
    backend: &mut dyn Backend,
    set: &TaskSet,
    progress: &dyn Progress,
) -> Result<TaskOutcomes> {
    let encoder = Encoder::new(backend.tokenizer(), backend.end_of_text().first().copied())?;
    let requests: Vec<Vec<Request>> = set
        .records
        .iter()
        .map(|record| set.kind.requests(record))
        .collect::<Result<_>>()?;
    let (mut sequences, mut contexts, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
    for request in requests.iter().flatten() {
        match request {
            Request::Score {
                context,
                continuation,
            } => {
                let pair = encoder.pair(context, continuation)?;
                contexts.push(pair.context);
                sequences.push(pair.tokens);
            }
            Request::Generate {
                prompt,
                stop,
                max_tokens,
            } => prompts.push(Prompt {
                tokens: encoder.prompt(prompt)?,
                stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
                max_tokens: *max_tokens,
            }),
        }
    }
    let scores = match sequences.is_empty() {
        true => Vec::new(),
        false => backend.score(&sequences, progress)?,
    };
    let generations = match prompts.is_empty() {
        true => Vec::new(),
        false => backend.generate(&prompts, progress)?,
    };
    count(set, "scored sequences", sequences.len(), scores.len())?;
    count(set, "generations", prompts.len(), generations.len())?;

    let mut scored = sequences.iter().zip(&contexts).zip(&scores);
    let mut generated = generations.into_iter();
    let mut answer = |request: &Request| match request {
        Request::Score { .. } => scored
            .next()
            .map(|((tokens, context), scores)| sum(set, tokens.len(), *context, scores))
            .transpose(),
        Request::Generate { .. } => Ok(generated.next().map(Answer::Generation)),
    };
    let mut items = Vec::with_capacity(set.records.len());
    for (record, requests) in set.records.iter().zip(&requests) {
        let answers: Vec<Answer> = requests
            .iter()
            .filter_map(|request| answer(request).transpose())
            .collect::<Result<_>>()?;
        items.push(set.kind.outcomes(record, &answers)?);
    }
    Ok(TaskOutcomes {
        task: set.name.clone(),
        items,
    })
}

/// The continuation's scores, those after `context` tokens of `length`, as one
/// answer. The first token of a sequence has no score.
fn sum(set: &TaskSet, length: usize, context: usize, scores: &[TokenScore]) -> Result<Answer> {
    count(set, "scores of a sequence", length - 1, scores.len())?;
    let own = &scores[context - 1..];
    let ln_p: f64 = own.iter().map(|score| f64::from(score.ln_p)).sum();
    if !ln_p.is_finite() {
        return Err(unexpected(
            set,
            "finite log-probabilities".to_owned(),
            ln_p.to_string(),
        ));
    }
    Ok(Answer::Score {
        ln_p,
        tokens: own.len(),
        greedy: own.iter().all(|score| score.greedy),
    })
}

fn count(set: &TaskSet, what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(unexpected(
        set,
        format!("{expected} {what}"),
        found.to_string(),
    ))
}

fn unexpected(set: &TaskSet, expected: String, found: String) -> Error {
    Error::Backend {
        name: format!("answers to `{}`", set.name),
        expected,
        found,
        advice: None,
    }
}

#[cfg(test)]
mod tests;
