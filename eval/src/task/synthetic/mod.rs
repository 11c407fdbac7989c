//! Items made from a seed, for what a small model can do and a damaged one
//! cannot: adding, closing brackets, copying.
//!
//! A generator is one file with a function that draws a question and its
//! answer, and one line in [`GENERATORS`]. Every item is a record for
//! `exact_match`: four solved examples and a question, all different, in the
//! form `Question: …\nAnswer: …`.

mod arithmetic;
mod brackets;
mod copy;

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Solved examples before the question.
const EXAMPLES: usize = 4;
/// Draws in a row that give nothing new before a generator counts as empty.
const PATIENCE: usize = 1000;

/// Every generator of this build.
pub const GENERATORS: &[Generator] = &[arithmetic::ARITHMETIC, brackets::BRACKETS, copy::COPY];

/// What makes a synthetic set.
#[derive(Debug, Clone, Copy)]
pub struct Generator {
    /// Name of the set.
    pub name: &'static str,
    /// What is asked.
    pub about: &'static str,
    /// Most tokens of an answer.
    max_tokens: usize,
    draw: fn(&mut ChaCha8Rng) -> Example,
}

/// A question and its answer, one line each.
struct Example {
    question: String,
    answer: String,
}

impl Generator {
    /// `items` records with different questions. Equal seeds give equal
    /// records, and fewer items are the first of more.
    ///
    /// # Errors
    /// [`Error::Option`] if there are not so many different questions.
    pub(super) fn records(&self, items: usize, seed: u64) -> Result<Vec<Value>> {
        let mut rng = ChaCha8Rng::from_seed(self.key(seed));
        let mut asked = BTreeSet::new();
        let mut records = Vec::with_capacity(items);
        let mut misses = 0;
        while records.len() < items {
            if misses == PATIENCE {
                return Err(Error::Option {
                    option: "items",
                    expected: "at most as many as there are different questions",
                    found: format!("{items}, and `{}` has about {}", self.name, records.len()),
                });
            }
            let example = (self.draw)(&mut rng);
            if !asked.insert(example.question.clone()) {
                misses += 1;
                continue;
            }
            misses = 0;
            records.push(self.record(&mut rng, &example));
        }
        Ok(records)
    }

    /// The question after examples that do not give it away.
    fn record(&self, rng: &mut ChaCha8Rng, asked: &Example) -> Value {
        let mut shown = BTreeSet::from([asked.question.clone()]);
        let mut prompt = String::new();
        while shown.len() <= EXAMPLES {
            let Example { question, answer } = (self.draw)(rng);
            if shown.insert(question.clone()) {
                prompt.push_str(&format!("Question: {question}\nAnswer: {answer}\n\n"));
            }
        }
        prompt.push_str(&format!("Question: {}\nAnswer:", asked.question));
        json!({"prompt": prompt, "answer": asked.answer, "max_tokens": self.max_tokens})
    }

    fn key(&self, seed: u64) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        hasher.update(self.name);
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Question and answer of the item, and of its examples.
    fn parse(record: &Value) -> Vec<(String, String)> {
        let text = format!(
            "{} {}",
            record["prompt"].as_str().unwrap(),
            record["answer"].as_str().unwrap()
        );
        text.split("\n\n")
            .map(|part| {
                let (question, answer) = part.split_once("\nAnswer: ").unwrap();
                let question = question.strip_prefix("Question: ").unwrap();
                (question.to_owned(), answer.to_owned())
            })
            .collect()
    }

    #[test]
    fn a_seed_gives_the_same_items_and_another_others() {
        for generator in GENERATORS {
            let records = generator.records(30, 7).unwrap();
            assert_eq!(records, generator.records(30, 7).unwrap());
            assert_eq!(records[..10], generator.records(10, 7).unwrap());
            assert_ne!(records, generator.records(30, 8).unwrap());
        }
    }

    #[test]
    fn questions_differ_and_are_not_among_their_examples() {
        for generator in GENERATORS {
            let mut asked = BTreeSet::new();
            for record in generator.records(200, 1).unwrap() {
                let examples = parse(&record);
                assert_eq!(examples.len(), EXAMPLES + 1);
                let questions: BTreeSet<_> = examples.iter().map(|(q, _)| q.clone()).collect();
                assert_eq!(questions.len(), EXAMPLES + 1);
                assert!(asked.insert(examples[EXAMPLES].0.clone()));
            }
        }
    }

    #[test]
    fn answers_are_right() {
        for generator in GENERATORS {
            for record in generator.records(100, 3).unwrap() {
                for (question, answer) in parse(&record) {
                    let right = match generator.name {
                        "arithmetic" => arithmetic::is_right(&question, &answer),
                        "brackets" => brackets::is_right(&question, &answer),
                        "copy" => question == format!("Repeat: {answer}"),
                        other => panic!("no check of {other}"),
                    };
                    assert!(right, "{question}: {answer}");
                }
            }
        }
    }

    #[test]
    fn more_items_than_questions_are_refused() {
        let error = arithmetic::ARITHMETIC.records(20_000, 0).unwrap_err();
        assert!(
            error.to_string().starts_with("items: expected at most"),
            "{error}"
        );
    }
}
