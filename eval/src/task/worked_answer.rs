//! Word problems whose worked answer ends in a number: `question` and
//! `answer`, as in GSM8K (Cobbe et al., "Training Verifiers to Solve Math Word
//! Problems", arXiv 2110.14168), whose answers end in `#### 18`.
//!
//! The model continues `Question: …\nAnswer:` by at most 256 tokens, without
//! examples: a model that does not know `####` scores in `flexible_extract`
//! alone.
//!
//! * `strict_match`: the first number after `#### ` is the answer's;
//! * `flexible_extract`: the last number is;
//! * `looped`: it fell into a loop;
//! * `answer_bits_per_byte`: −ln p(" " + answer) / (ln 2 · bytes).
//!
//! Source of the first two: lm-evaluation-harness 0.4.13, `gsm8k.yaml`: the
//! filters `#### (\-?[0-9\.\,]+)` and `(-?[$0-9.,]{2,})|(-?[0-9]+)` (of its
//! matches the last), then `exact_match` with `,`, `\$`, `(?s).*#### ` and
//! `\.$` ignored; it stops at `Question:`, `</s>` and `<|im_end|>`. The harness
//! itself gives five examples first.

use serde_json::Value;

use super::looped::looped;
use super::record::{bits_per_byte, generation_and_score, some_text};
use super::{metric, Answer, Request, Task};
use crate::evaluator::Metric;
use crate::Result;

/// What stands before the number.
const MARK: &str = "#### ";
/// Most tokens of an answer, `max_gen_toks` of the harness.
const MAX_TOKENS: usize = 256;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct WorkedAnswer;

const METRICS: &[Metric] = &[
    metric::share("strict_match", "exact match after ####", true),
    metric::share("flexible_extract", "exact match of the last number", true),
    metric::LOOPED,
    metric::ANSWER_BITS,
];

impl Task for WorkedAnswer {
    fn name(&self) -> &'static str {
        "worked_answer"
    }

    fn about(&self) -> &'static str {
        "question and answer: is the final number right? (GSM8K, without examples)"
    }

    fn reads(&self, record: &Value) -> bool {
        record.get("question").is_some() && record.get("answer").is_some()
    }

    fn requests(&self, record: &Value) -> Result<Vec<Request>> {
        let prompt = format!("Question: {}\nAnswer:", some_text(record, "question")?);
        let answer = some_text(record, "answer")?;
        Ok(vec![
            Request::Generate {
                prompt: prompt.clone(),
                stop: vec!["Question:", "</s>", "<|im_end|>"],
                max_tokens: MAX_TOKENS,
            },
            Request::Score {
                context: prompt,
                continuation: format!(" {answer}"),
            },
        ])
    }

    fn outcomes(&self, record: &Value, answers: &[Answer]) -> Result<Vec<f64>> {
        let answer = some_text(record, "answer")?;
        let (generation, score) = generation_and_score(answers)?;
        let gold = normal(answer);
        let right = |found: Option<&str>| {
            f64::from(u8::from(found.is_some_and(|found| normal(found) == gold)))
        };
        Ok(vec![
            right(strict(&generation.text)),
            right(flexible(&generation.text)),
            f64::from(u8::from(looped(generation))),
            bits_per_byte(score.ln_p, &format!(" {answer}")),
        ])
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

/// The first match of `#### (\-?[0-9\.\,]+)`: what is in brackets.
fn strict(text: &str) -> Option<&str> {
    text.match_indices(MARK).find_map(|(at, _)| {
        let rest = &text[at + MARK.len()..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = run(&rest[sign..], |c| c.is_ascii_digit() || ".,".contains(c));
        (digits > 0).then(|| &rest[..sign + digits])
    })
}

/// The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`.
fn flexible(text: &str) -> Option<&str> {
    let (mut last, mut rest) = (None, text);
    while let Some(first) = rest.chars().next() {
        let sign = usize::from(first == '-');
        let wide = run(&rest[sign..], |c| c.is_ascii_digit() || "$.,".contains(c));
        let digits = run(&rest[sign..], |c| c.is_ascii_digit());
        let length = if wide >= 2 { wide } else { digits };
        if length > 0 {
            last = Some(&rest[..sign + length]);
            rest = &rest[sign + length..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    last
}

/// Bytes of the longest prefix of such characters.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

/// What is compared: without `,` and `$`, what precedes the last `#### ` and
/// a full stop at the end, in lower case.
fn normal(text: &str) -> String {
    let text = text.replace([',', '$'], "");
    let text = text.rsplit_once(MARK).map_or(text.as_str(), |(_, end)| end);
    text.strip_suffix('.').unwrap_or(text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::{Finish, Generation};

    fn outcomes(answer: &str, text: &str) -> Vec<f64> {
        let answers = [
            Answer::Generation(Generation {
                text: text.to_owned(),
                tokens: 9,
                finish: Finish::Stop,
            }),
            Answer::Score {
                ln_p: -8.0,
                tokens: 3,
                greedy: false,
            },
        ];
        let record = json!({"question": "?", "answer": answer});
        WorkedAnswer.outcomes(&record, &answers).unwrap()
    }

    #[test]
    fn both_extractions_of_a_generation() {
        let gold = "She makes 9 * 2 = $<<9*2=18>>18.\n#### 18";
        for (text, strict, flexible) in [
            (" 9 * 2 = 18\n#### 18", 1.0, 1.0),
            (" The answer is 18.", 0.0, 1.0),
            (" It is $18.00", 0.0, 0.0),
            (" #### 18\nThat leaves 3", 1.0, 0.0),
            (" #### -18", 0.0, 0.0),
            (" 18 apples and none left", 0.0, 1.0),
            (" #### eighteen", 0.0, 0.0),
            ("", 0.0, 0.0),
        ] {
            assert_eq!(outcomes(gold, text)[..2], [strict, flexible], "{text:?}");
        }
        assert_eq!(outcomes("#### 1,080", " #### 1080")[..2], [1.0, 1.0]);
        assert_eq!(outcomes("#### 1080", " so $1,080.")[1], 1.0);
    }

    #[test]
    fn patterns_match_as_python_has_them() {
        assert_eq!(strict("#### -3.5, then"), Some("-3.5,"));
        assert_eq!(strict("#### x #### 4"), Some("4"));
        assert_eq!(strict("####4"), None);
        assert_eq!(flexible("a 3 b"), Some("3"));
        assert_eq!(flexible("3 is $4"), Some("$4"));
        assert_eq!(flexible("5 ..."), Some("..."), "as the pattern has it");
        assert_eq!(flexible("5 -"), Some("5"));
        assert_eq!(flexible("7-5"), Some("-5"));
        assert_eq!(flexible("é 12é"), Some("12"));
        assert_eq!(flexible("$"), None);
    }

    #[test]
    fn the_question_is_asked_as_the_harness_asks_it() {
        let record = json!({"question": "How many?", "answer": "#### 3"});
        assert!(WorkedAnswer.reads(&record));
        let requests = WorkedAnswer.requests(&record).unwrap();
        assert!(matches!(
            &requests[0],
            Request::Generate { prompt, .. } if prompt == "Question: How many?\nAnswer:"
        ));
        assert!(matches!(
            &requests[1],
            Request::Score { continuation, .. } if continuation == " #### 3"
        ));
        assert!(WorkedAnswer.requests(&json!({"question": "?"})).is_err());
    }
}
