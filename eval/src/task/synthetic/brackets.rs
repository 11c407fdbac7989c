//! Closing what is open: the completion of a prefix of a Dyck word of three
//! kinds of brackets.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Example, Generator};

pub(super) const BRACKETS: Generator = Generator {
    name: "brackets",
    about: "closing the open ones of 3 to 10 nested brackets of three kinds",
    max_tokens: 32,
    draw,
};

const PAIRS: [(char, char); 3] = [('(', ')'), ('[', ']'), ('{', '}')];

fn draw(rng: &mut ChaCha8Rng) -> Example {
    let length = rng.random_range(3..=10);
    let (mut text, mut open) = (Vec::new(), Vec::new());
    for place in 0..length {
        // The last one opens, so that there is something to close.
        let opens = open.is_empty() || place + 1 == length || rng.random_range(0..5) < 3;
        if opens {
            let (opening, closing) = PAIRS[rng.random_range(0..PAIRS.len())];
            text.push(opening);
            open.push(closing);
        } else {
            text.extend(open.pop());
        }
    }
    Example {
        question: format!("Close the brackets: {}", spaced(text.into_iter())),
        answer: spaced(open.into_iter().rev()),
    }
}

fn spaced(text: impl Iterator<Item = char>) -> String {
    text.map(String::from).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(super) fn is_right(question: &str, answer: &str) -> bool {
    let text = question.strip_prefix("Close the brackets: ").unwrap();
    let mut open = Vec::new();
    for bracket in format!("{text} {answer}").split(' ') {
        let bracket = bracket.chars().next().unwrap();
        match PAIRS.iter().find(|(opening, _)| *opening == bracket) {
            Some((_, closing)) => open.push(*closing),
            None if open.pop() == Some(bracket) => {}
            None => return false,
        }
    }
    open.is_empty() && !answer.contains(['(', '[', '{'])
}
