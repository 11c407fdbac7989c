//! Fields of a record, and answers of the right kind.

use std::f64::consts::LN_2;

use serde_json::Value;

use super::Answer;
use crate::backend::Generation;
use crate::{Error, Result};

/// Longest piece of a value that an error shows, in characters.
const SHOWN: usize = 40;

/// What a score request was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    pub(super) ln_p: f64,
    pub(super) greedy: bool,
}

/// A string field.
pub(super) fn text<'a>(record: &'a Value, field: &str) -> Result<&'a str> {
    record[field]
        .as_str()
        .ok_or_else(|| unusable(field, "a string", &record[field]))
}

/// A string field that is not empty.
pub(super) fn some_text<'a>(record: &'a Value, field: &str) -> Result<&'a str> {
    match text(record, field)? {
        "" => Err(unusable(
            field,
            "a string that is not empty",
            &record[field],
        )),
        text => Ok(text),
    }
}

/// A field that is a list of at least `least` strings, none of them empty.
pub(super) fn texts<'a>(record: &'a Value, field: &str, least: usize) -> Result<Vec<&'a str>> {
    let expected = || format!("a list of at least {least} strings that are not empty");
    let list = record[field]
        .as_array()
        .filter(|list| list.len() >= least)
        .ok_or_else(|| unusable(field, &expected(), &record[field]))?;
    list.iter()
        .map(|value| match value.as_str() {
            Some("") | None => Err(unusable(field, &expected(), value)),
            Some(text) => Ok(text),
        })
        .collect()
}

/// A field that is an index below `count`.
pub(super) fn index(record: &Value, field: &str, count: usize) -> Result<usize> {
    record[field]
        .as_u64()
        .and_then(|index| usize::try_from(index).ok())
        .filter(|&index| index < count)
        .ok_or_else(|| {
            unusable(
                field,
                &format!("an integer from 0 to {}", count.saturating_sub(1)),
                &record[field],
            )
        })
}

/// Answers to `count` score requests.
pub(super) fn scores(answers: &[Answer], count: usize) -> Result<Vec<Scored>> {
    let scores: Vec<Scored> = answers
        .iter()
        .filter_map(|answer| match *answer {
            Answer::Score { ln_p, greedy, .. } => Some(Scored { ln_p, greedy }),
            Answer::Generation(_) => None,
        })
        .collect();
    if scores.len() == count && answers.len() == count {
        return Ok(scores);
    }
    Err(mismatch(&format!("{count} scores"), answers))
}

/// Answers to a request to generate and one to score.
pub(super) fn generation_and_score(answers: &[Answer]) -> Result<(&Generation, Scored)> {
    match answers {
        [Answer::Generation(generation), score] => {
            Ok((generation, scores(std::slice::from_ref(score), 1)?[0]))
        }
        _ => Err(mismatch("1 generation and 1 score", answers)),
    }
}

/// −ln p / (ln 2 · bytes of the text).
pub(super) fn bits_per_byte(ln_p: f64, text: &str) -> f64 {
    -ln_p / (LN_2 * text.len() as f64)
}

/// An error that shows the beginning of what was found.
pub(super) fn unusable(field: &str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        found => found.to_string(),
    };
    let shown: String = found.chars().take(SHOWN).collect();
    let rest = if shown.len() < found.len() { "…" } else { "" };
    Error::Field {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: format!("{shown}{rest}"),
    }
}

fn mismatch(expected: &str, answers: &[Answer]) -> Error {
    Error::Field {
        field: "answers".to_owned(),
        expected: expected.to_owned(),
        found: format!("{} answers", answers.len()),
    }
}
