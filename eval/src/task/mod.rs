//! What is measured of items that have an answer: questions with choices,
//! words to guess, text to generate.
//!
//! A kind of task is one file that implements [`Task`] and one line in
//! [`TASKS`]. It owns what a model is asked about a record and what its
//! answers are worth. Models are run by a [`Backend`](crate::backend::Backend);
//! intervals belong to [`crate::compare`].

mod exact_match;
mod last_word;
mod looped;
mod metric;
mod multiple_choice;
mod partial;
mod record;
mod run;
mod set;
mod synthetic;
mod worked_answer;

use std::fmt::Debug;

use serde_json::Value;

pub use run::{run_task, run_tasks, TaskOutcomes};
pub use set::TaskSet;
pub use synthetic::{Generator, GENERATORS};

use crate::backend::Generation;
use crate::evaluator::Metric;
use crate::Result;

/// Every kind of task of this build. The first that reads a record is taken.
pub const TASKS: &[&dyn Task] = &[
    &multiple_choice::MultipleChoice,
    &partial::Partial,
    &last_word::LastWord,
    &worked_answer::WorkedAnswer,
    &exact_match::ExactMatch,
];

/// The kind of task of this name.
pub fn kind(name: &str) -> Option<&'static dyn Task> {
    TASKS.iter().copied().find(|kind| kind.name() == name)
}

/// One question to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// How probable is this continuation of this context?
    Score {
        /// What stands before; may be empty.
        context: String,
        /// What is scored; not empty.
        continuation: String,
    },
    /// What follows, at temperature 0?
    Generate {
        /// What stands before; may be empty.
        prompt: String,
        /// Strings that end the answer and are not part of it.
        stop: Vec<&'static str>,
        /// Most tokens of an answer.
        max_tokens: usize,
    },
}

/// A model's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Request::Score`].
    Score {
        /// Natural logarithm of the continuation's probability.
        ln_p: f64,
        /// Tokens of the continuation.
        tokens: usize,
        /// Whether greedy decoding would give the continuation.
        greedy: bool,
    },
    /// To [`Request::Generate`].
    Generation(Generation),
}

/// A kind of task.
pub trait Task: Sync + Debug {
    /// Its name: `multiple_choice`.
    fn name(&self) -> &'static str;

    /// What is asked and measured, and its source.
    fn about(&self) -> &'static str;

    /// Whether a record is of this kind, by the names of its fields.
    fn reads(&self, record: &Value) -> bool;

    /// What to ask about a record, at least one request.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) names a field that is absent or
    /// unusable.
    fn requests(&self, record: &Value) -> Result<Vec<Request>>;

    /// The outcome of an item, one number per entry of
    /// [`metrics`](Self::metrics), from one answer per request. Finite.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), as for
    /// [`requests`](Self::requests), or for answers that are not to them.
    fn outcomes(&self, record: &Value, answers: &[Answer]) -> Result<Vec<f64>>;

    /// What is reported of each outcome's mean over items.
    fn metrics(&self) -> &'static [Metric];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let kinds: BTreeSet<&str> = TASKS.iter().map(|kind| kind.name()).collect();
        assert_eq!(kinds.len(), TASKS.len());
        for task in TASKS {
            let metrics: BTreeSet<&str> = task.metrics().iter().map(|m| m.name).collect();
            assert_eq!(metrics.len(), task.metrics().len());
            assert!(!metrics.is_empty() && !task.about().is_empty());
            assert_eq!(kind(task.name()).map(Task::name), Some(task.name()));
            assert!(!task.reads(&Value::Null));
        }
        assert!(kind("riddle").is_none());
    }
}
