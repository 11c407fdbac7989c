//! The last word of a passage: `context` and `continuation`, as in LAMBADA
//! (Paperno et al., "The LAMBADA dataset", ACL 2016, arXiv 1606.06031).
//!
//! The continuation is scored after the context, with one space between them
//! unless it begins with white space itself.
//!
//! * `acc`: every token of the continuation is the most probable one, so that
//!   greedy decoding would give it;
//! * `perplexity`: exp of the mean over items of −ln p(continuation), which is
//!   per word, not per token.
//!
//! Source: lm-evaluation-harness 0.4.13, `lambada_openai.yaml`:
//! `doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"`,
//! `doc_to_target: "{{' '+text.split(' ')[-1]}}"`, and `loglikelihood` of
//! `process_results` in `lm_eval/api/task.py`: `{"acc": int(is_greedy)}`.

use serde_json::Value;

use super::record::{scores, some_text, text};
use super::{metric, Answer, Request, Task};
use crate::evaluator::{Metric, Statistic, Unit};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct LastWord;

const METRICS: &[Metric] = &[
    metric::ACCURACY,
    Metric {
        name: "perplexity",
        title: "perplexity per last word",
        unit: Unit::Perplexity,
        higher_is_better: false,
        statistic: Statistic::Exp,
    },
];

impl Task for LastWord {
    fn name(&self) -> &'static str {
        "last_word"
    }

    fn about(&self) -> &'static str {
        "context and continuation: would greedy decoding give the word? (LAMBADA)"
    }

    fn reads(&self, record: &Value) -> bool {
        record.get("context").is_some() && record.get("continuation").is_some()
    }

    fn requests(&self, record: &Value) -> Result<Vec<Request>> {
        let continuation = some_text(record, "continuation")?;
        let space = if continuation.starts_with(char::is_whitespace) {
            ""
        } else {
            " "
        };
        Ok(vec![Request::Score {
            context: text(record, "context")?.to_owned(),
            continuation: format!("{space}{continuation}"),
        }])
    }

    fn outcomes(&self, _: &Value, answers: &[Answer]) -> Result<Vec<f64>> {
        let score = scores(answers, 1)?[0];
        Ok(vec![f64::from(u8::from(score.greedy)), -score.ln_p])
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_word_follows_one_space() {
        for word in ["door", " door"] {
            let record = json!({"context": "She shut the", "continuation": word});
            assert!(LastWord.reads(&record));
            assert_eq!(
                LastWord.requests(&record).unwrap(),
                [Request::Score {
                    context: "She shut the".to_owned(),
                    continuation: " door".to_owned(),
                }]
            );
        }
        assert!(LastWord.requests(&json!({"context": "a"})).is_err());
    }

    #[test]
    fn accuracy_is_greedy_and_perplexity_per_word() {
        let outcomes = |greedy| {
            let answer = Answer::Score {
                ln_p: -0.75,
                tokens: 3,
                greedy,
            };
            LastWord.outcomes(&json!({}), &[answer]).unwrap()
        };
        assert_eq!(outcomes(true), [1.0, 0.75]);
        assert_eq!(outcomes(false), [0.0, 0.75]);
        assert_eq!(METRICS[1].statistic.transform(0.75), 0.75f64.exp());
    }
}
