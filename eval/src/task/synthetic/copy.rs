//! Repeating a list of words: what induction heads do.
//!
//! Source: Olsson et al., "In-context Learning and Induction Heads", arXiv
//! 2209.11895.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Example, Generator};

pub(super) const COPY: Generator = Generator {
    name: "copy",
    about: "repeating 3 to 8 common words in order",
    max_tokens: 48,
    draw,
};

const WORDS: [&str; 24] = [
    "apple", "bird", "blue", "book", "chair", "cold", "door", "fish", "green", "hand", "house",
    "lamp", "milk", "moon", "paper", "rain", "red", "river", "salt", "stone", "table", "tree",
    "water", "wind",
];

fn draw(rng: &mut ChaCha8Rng) -> Example {
    let count = rng.random_range(3..=8);
    let words: Vec<&str> = (0..count)
        .map(|_| WORDS[rng.random_range(0..WORDS.len())])
        .collect();
    let answer = words.join(" ");
    Example {
        question: format!("Repeat: {answer}"),
        answer,
    }
}
