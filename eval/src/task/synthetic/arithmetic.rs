//! Sums of two numbers of one or two digits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Example, Generator};

pub(super) const ARITHMETIC: Generator = Generator {
    name: "arithmetic",
    about: "sums of two numbers of one or two digits",
    max_tokens: 8,
    draw,
};

fn draw(rng: &mut ChaCha8Rng) -> Example {
    let (a, b) = (number(rng), number(rng));
    Example {
        question: format!("What is {a} + {b}?"),
        answer: (a + b).to_string(),
    }
}

/// One digit as often as two.
fn number(rng: &mut ChaCha8Rng) -> u32 {
    if rng.random_range(0..2) == 0 {
        rng.random_range(0..10)
    } else {
        rng.random_range(10..100)
    }
}

#[cfg(test)]
pub(super) fn is_right(question: &str, answer: &str) -> bool {
    let sum = question
        .strip_prefix("What is ")
        .and_then(|rest| rest.strip_suffix('?'))
        .unwrap();
    let (a, b) = sum.split_once(" + ").unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    number(a) < 100 && number(b) < 100 && number(a) + number(b) == number(answer)
}
