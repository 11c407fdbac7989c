//! Questions with choices: `query`, `choices` and the index `gold`.
//!
//! Each choice is scored as the continuation " " + choice of the query.
//! With ln p(c) the log-probability of a choice's tokens:
//!
//! * `acc`: argmax_c ln p(c) is the gold choice, the first of equal ones;
//! * `acc_norm`: argmax_c ln p(c) / characters(c) is, the space not counted;
//! * `gold_bits_per_byte`: −ln p(gold) / (ln 2 · bytes(" " + gold)), which
//!   tells small models apart that are at chance in the other two.
//!
//! Source: lm-evaluation-harness 0.4.13, `multiple_choice` of
//! `ConfigurableTask.process_results` in `lm_eval/api/task.py`:
//! `completion_len = np.array([float(len(i)) for i in choices])`,
//! `pred_norm = np.argmax(lls / completion_len)`, where `len` counts
//! characters (bytes are the separate `acc_bytes`); the delimiter is
//! `target_delimiter: " "`.

use serde_json::Value;

use super::record::{bits_per_byte, index, scores, text, texts};
use super::{metric, Answer, Request, Task};
use crate::evaluator::Metric;
use crate::Result;

/// Stands between a query and a choice.
const DELIMITER: &str = " ";

/// See the module documentation.
#[derive(Debug)]
pub(super) struct MultipleChoice;

const METRICS: &[Metric] = &[
    metric::ACCURACY,
    metric::share("acc_norm", "accuracy by log-likelihood per character", true),
    metric::GOLD_BITS,
];

impl Task for MultipleChoice {
    fn name(&self) -> &'static str {
        "multiple_choice"
    }

    fn about(&self) -> &'static str {
        "query, choices and gold: is the gold choice the most probable? (lm-evaluation-harness)"
    }

    fn reads(&self, record: &Value) -> bool {
        record.get("query").is_some() && record.get("choices").is_some()
    }

    fn requests(&self, record: &Value) -> Result<Vec<Request>> {
        let query = text(record, "query")?;
        let choices = texts(record, "choices", 2)?;
        index(record, "gold", choices.len())?;
        Ok(choices
            .into_iter()
            .map(|choice| Request::Score {
                context: query.to_owned(),
                continuation: format!("{DELIMITER}{choice}"),
            })
            .collect())
    }

    fn outcomes(&self, record: &Value, answers: &[Answer]) -> Result<Vec<f64>> {
        let choices = texts(record, "choices", 2)?;
        let gold = index(record, "gold", choices.len())?;
        let scores = scores(answers, choices.len())?;
        let plain = scores.iter().map(|score| score.ln_p);
        let normal = scores
            .iter()
            .zip(&choices)
            .map(|(score, choice)| score.ln_p / choice.chars().count() as f64);
        let hit = |best: usize| f64::from(u8::from(best == gold));
        let continuation = format!("{DELIMITER}{}", choices[gold]);
        Ok(vec![
            hit(first_largest(plain)),
            hit(first_largest(normal)),
            bits_per_byte(scores[gold].ln_p, &continuation),
        ])
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

/// Index of the largest value, the first of equal ones.
pub(super) fn first_largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use serde_json::json;

    use super::*;

    fn score(ln_p: f64) -> Answer {
        Answer::Score {
            ln_p,
            tokens: 3,
            greedy: false,
        }
    }

    #[test]
    fn every_choice_is_asked_after_a_space() {
        let record = json!({"query": "Q:", "choices": ["yes", "no"], "gold": 1});
        assert!(MultipleChoice.reads(&record));
        assert_eq!(
            MultipleChoice.requests(&record).unwrap(),
            [" yes", " no"].map(|continuation| Request::Score {
                context: "Q:".to_owned(),
                continuation: continuation.to_owned(),
            })
        );
    }

    #[test]
    fn outcomes_by_hand() {
        // Per character: −4/2 = −2, −6/6 = −1, −5/4. é is one character, two bytes.
        let record = json!({"query": "", "choices": ["ab", "abcdéf", "abcd"], "gold": 1});
        let answers = [score(-4.0), score(-6.0), score(-5.0)];
        let outcomes = MultipleChoice.outcomes(&record, &answers).unwrap();
        assert_eq!(outcomes[..2], [0.0, 1.0]);
        assert!((outcomes[2] - 6.0 / (LN_2 * 8.0)).abs() < 1e-12);
        assert_eq!(outcomes.len(), MultipleChoice.metrics().len());
    }

    #[test]
    fn characters_not_bytes_normalise() {
        // −3.9/2 characters is below −1.9/1; −3.9/4 bytes would be above.
        let record = json!({"query": "", "choices": ["éé", "a"], "gold": 1});
        let outcomes = MultipleChoice
            .outcomes(&record, &[score(-3.9), score(-1.9)])
            .unwrap();
        assert_eq!(outcomes[1], 1.0);
    }

    #[test]
    fn the_first_of_equal_choices_is_taken() {
        let record = |gold| json!({"query": "", "choices": ["a", "b"], "gold": gold});
        let acc = |gold| {
            MultipleChoice
                .outcomes(&record(gold), &[score(-1.0), score(-1.0)])
                .unwrap()[0]
        };
        assert_eq!((acc(0), acc(1)), (1.0, 0.0));
    }

    #[test]
    fn unusable_fields_are_named() {
        for (record, message) in [
            (
                json!({"choices": ["a", "b"], "gold": 0}),
                "`query`: expected a string, found nothing",
            ),
            (
                json!({"query": 3, "choices": ["a", "b"], "gold": 0}),
                "`query`: expected a string, found 3",
            ),
            (
                json!({"query": "", "choices": ["a"], "gold": 0}),
                "`choices`: expected a list of at least 2 strings that are not empty, found [\"a\"]",
            ),
            (
                json!({"query": "", "choices": ["a", ""], "gold": 0}),
                "found \"\"",
            ),
            (
                json!({"query": "", "choices": ["a", "b"], "gold": 2}),
                "`gold`: expected an integer from 0 to 1, found 2",
            ),
            (
                json!({"query": "", "choices": ["a", "b"], "gold": "1"}),
                "`gold`: expected an integer from 0 to 1, found \"1\"",
            ),
        ] {
            let error = MultipleChoice.requests(&record).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let record = json!({"query": "", "choices": ["a", "b"], "gold": 0});
        let error = MultipleChoice
            .outcomes(&record, &[score(-1.0)])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`answers`: expected 2 scores, found 1 answers"
        );
    }
}
