//! Which of several contexts makes one continuation more probable: `contexts`,
//! `continuation` and the index `gold`. WinoGrande is asked so, the sentence
//! being cut after the option ("partial evaluation": Trinh and Le, "A Simple
//! Method for Commonsense Reasoning", arXiv 1806.02847).
//!
//! Every context is asked for " " + continuation, the continuation without
//! white space at its ends. With ln p(c) the log-probability of the
//! continuation after context c:
//!
//! * `acc`: argmax_c ln p(c) is the gold context, the first of equal ones;
//! * `gold_bits_per_byte`: −ln p(gold) / (ln 2 · bytes(" " + continuation)).
//!
//! Source: lm-evaluation-harness 0.4.13, `doc_to_target` of
//! `lm_eval/tasks/winogrande/preprocess_winogrande.py`:
//! `return doc["sentence"][idx:].strip()`, and `multiple_input` of
//! `lm_eval/api/task.py`:
//! `arguments = [(context, f"{target_delimiter}{cont}") for context in ctx]`.

use serde_json::Value;

use super::multiple_choice::first_largest;
use super::record::{bits_per_byte, index, scores, some_text, texts};
use super::{metric, Answer, Request, Task};
use crate::evaluator::Metric;
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Partial;

const METRICS: &[Metric] = &[
    metric::ACCURACY,
    Metric {
        title: "bits per byte after the gold context",
        ..metric::GOLD_BITS
    },
];

/// What is scored.
fn continuation(record: &Value) -> Result<String> {
    Ok(format!(" {}", some_text(record, "continuation")?.trim()))
}

impl Task for Partial {
    fn name(&self) -> &'static str {
        "partial"
    }

    fn about(&self) -> &'static str {
        "contexts, continuation and gold: after which context is it most probable? (WinoGrande)"
    }

    fn reads(&self, record: &Value) -> bool {
        record.get("contexts").is_some() && record.get("continuation").is_some()
    }

    fn requests(&self, record: &Value) -> Result<Vec<Request>> {
        let contexts = texts(record, "contexts", 2)?;
        index(record, "gold", contexts.len())?;
        let continuation = continuation(record)?;
        Ok(contexts
            .into_iter()
            .map(|context| Request::Score {
                context: context.to_owned(),
                continuation: continuation.clone(),
            })
            .collect())
    }

    fn outcomes(&self, record: &Value, answers: &[Answer]) -> Result<Vec<f64>> {
        let contexts = texts(record, "contexts", 2)?;
        let gold = index(record, "gold", contexts.len())?;
        let scores = scores(answers, contexts.len())?;
        let best = first_largest(scores.iter().map(|score| score.ln_p));
        Ok(vec![
            f64::from(u8::from(best == gold)),
            bits_per_byte(scores[gold].ln_p, &continuation(record)?),
        ])
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_sentence_is_scored_after_its_option() {
        let record = json!({
            "sentence": "Ann paid Bob so _ was glad.",
            "contexts": ["Ann paid Bob so Ann", "Ann paid Bob so Bob"],
            "continuation": " was glad.",
            "gold": 1,
        });
        assert!(Partial.reads(&record));
        let requests = Partial.requests(&record).unwrap();
        assert_eq!(
            requests[1],
            Request::Score {
                context: "Ann paid Bob so Bob".to_owned(),
                continuation: " was glad.".to_owned(),
            }
        );
        let score = |ln_p| Answer::Score {
            ln_p,
            tokens: 3,
            greedy: false,
        };
        let outcomes = |a, b| Partial.outcomes(&record, &[score(a), score(b)]).unwrap();
        assert_eq!(outcomes(-5.0, -4.0), [1.0, 4.0 / (LN_2 * 10.0)]);
        assert_eq!(outcomes(-4.0, -5.0)[0], 0.0);
        assert_eq!(outcomes(-4.0, -4.0)[0], 0.0, "the first of equal ones");
    }

    #[test]
    fn white_space_around_the_continuation_is_dropped() {
        let record = json!({"contexts": ["a", "b"], "continuation": "  was so. ", "gold": 0});
        assert_eq!(continuation(&record).unwrap(), " was so.");
        let record = json!({"contexts": ["a", "b"], "continuation": "", "gold": 0});
        let error = Partial.requests(&record).unwrap_err().to_string();
        assert_eq!(
            error,
            "`continuation`: expected a string that is not empty, found \"\""
        );
    }
}
