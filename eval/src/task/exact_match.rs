//! Short answers that are right or wrong: `prompt` and `answer`, and
//! `max_tokens` where an answer may have more than 64.
//!
//! The model continues the prompt up to the end of the line.
//!
//! * `exact_match`: what it wrote, without white space at its ends, is the
//!   answer;
//! * `looped`: it fell into a loop;
//! * `answer_bits_per_byte`: −ln p(" " + answer) / (ln 2 · bytes), which tells
//!   models apart that are always wrong.

use serde_json::Value;

use super::looped::looped;
use super::record::{bits_per_byte, generation_and_score, some_text, text, unusable};
use super::{metric, Answer, Request, Task};
use crate::evaluator::Metric;
use crate::Result;

/// Most tokens of an answer unless the record says otherwise.
const MAX_TOKENS: u64 = 64;
/// What a record may ask for.
const MOST_TOKENS: u64 = 4096;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct ExactMatch;

const METRICS: &[Metric] = &[
    metric::share("exact_match", "exact match", true),
    metric::LOOPED,
    metric::ANSWER_BITS,
];

/// The answer, one line without white space at its ends.
fn answer(record: &Value) -> Result<&str> {
    let answer = some_text(record, "answer")?;
    if answer.contains('\n') || answer.trim().len() < answer.len() {
        let expected = "one line without white space at its ends";
        return Err(unusable("answer", expected, &record["answer"]));
    }
    Ok(answer)
}

fn max_tokens(record: &Value) -> Result<usize> {
    match &record["max_tokens"] {
        Value::Null => Ok(MAX_TOKENS as usize),
        value => match value.as_u64() {
            Some(tokens @ 1..=MOST_TOKENS) => Ok(tokens as usize),
            _ => {
                let expected = format!("an integer from 1 to {MOST_TOKENS}");
                Err(unusable("max_tokens", &expected, value))
            }
        },
    }
}

impl Task for ExactMatch {
    fn name(&self) -> &'static str {
        "exact_match"
    }

    fn about(&self) -> &'static str {
        "prompt and answer: is the rest of the line the answer?"
    }

    fn reads(&self, record: &Value) -> bool {
        record.get("prompt").is_some() && record.get("answer").is_some()
    }

    fn requests(&self, record: &Value) -> Result<Vec<Request>> {
        let prompt = text(record, "prompt")?;
        Ok(vec![
            Request::Generate {
                prompt: prompt.to_owned(),
                stop: vec!["\n"],
                max_tokens: max_tokens(record)?,
            },
            Request::Score {
                context: prompt.to_owned(),
                continuation: format!(" {}", answer(record)?),
            },
        ])
    }

    fn outcomes(&self, record: &Value, answers: &[Answer]) -> Result<Vec<f64>> {
        let answer = answer(record)?;
        let (generation, score) = generation_and_score(answers)?;
        let right = generation.text.trim() == answer;
        Ok(vec![
            f64::from(u8::from(right)),
            f64::from(u8::from(looped(generation))),
            bits_per_byte(score.ln_p, &format!(" {answer}")),
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
    use crate::backend::{Finish, Generation};

    fn outcomes(text: &str, finish: Finish) -> Vec<f64> {
        let record = json!({"prompt": "2 + 2 =", "answer": "4"});
        let answers = [
            Answer::Generation(Generation {
                text: text.to_owned(),
                tokens: 3,
                finish,
            }),
            Answer::Score {
                ln_p: -3.0,
                tokens: 1,
                greedy: false,
            },
        ];
        ExactMatch.outcomes(&record, &answers).unwrap()
    }

    #[test]
    fn the_whole_line_must_be_the_answer() {
        let bits = 3.0 / (LN_2 * 2.0);
        assert_eq!(outcomes(" 4", Finish::Stop), [1.0, 0.0, bits]);
        assert_eq!(outcomes("4 ", Finish::Length), [1.0, 0.0, bits]);
        assert_eq!(outcomes(" 42", Finish::Stop), [0.0, 0.0, bits]);
        assert_eq!(outcomes(" 4 4 4 4 4", Finish::Length), [0.0, 1.0, bits]);
    }

    #[test]
    fn the_answer_is_both_generated_and_scored() {
        let record = json!({"prompt": "2 + 2 =", "answer": "4", "max_tokens": 5});
        assert!(ExactMatch.reads(&record));
        assert_eq!(
            ExactMatch.requests(&record).unwrap(),
            [
                Request::Generate {
                    prompt: "2 + 2 =".to_owned(),
                    stop: vec!["\n"],
                    max_tokens: 5
                },
                Request::Score {
                    context: "2 + 2 =".to_owned(),
                    continuation: " 4".to_owned()
                },
            ]
        );
    }

    #[test]
    fn unusable_fields_are_named() {
        for (record, field) in [
            (json!({"prompt": "", "answer": ""}), "`answer`"),
            (json!({"prompt": "", "answer": "a\nb"}), "`answer`"),
            (json!({"prompt": "", "answer": " a"}), "`answer`"),
            (
                json!({"prompt": "", "answer": "a", "max_tokens": 0}),
                "`max_tokens`: expected an integer from 1 to 4096, found 0",
            ),
            (
                json!({"prompt": "", "answer": "a", "max_tokens": 1e9}),
                "`max_tokens`",
            ),
        ] {
            let error = ExactMatch.requests(&record).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        let record = json!({"prompt": "", "answer": "a"});
        assert!(ExactMatch.outcomes(&record, &[]).is_err());
    }
}
