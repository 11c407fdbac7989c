//! Whether a generation fell into a loop.
//!
//! Pruned models that have lost their way often repeat one piece of text to
//! the end (Holtzman et al., "The Curious Case of Neural Text Degeneration",
//! arXiv 1904.09751). Perplexity does not see it.

use crate::backend::{Finish, Generation};

/// Longest piece that is looked for, in characters.
const LONGEST: usize = 32;
/// Fewest repetitions.
const REPEATS: usize = 4;

/// Whether a generation that ended for its length alone ends in one piece of
/// 1 to 32 characters, repeated at least 4 times and over more than half of
/// the text.
pub(super) fn looped(generation: &Generation) -> bool {
    if generation.finish == Finish::Stop {
        return false;
    }
    let text: Vec<char> = generation.text.chars().collect();
    (1..=LONGEST).any(|piece| {
        let equal = text
            .iter()
            .rev()
            .zip(text.iter().rev().skip(piece))
            .take_while(|(a, b)| a == b)
            .count();
        let repeated = equal + piece;
        equal > 0 && repeated >= REPEATS * piece && 2 * repeated > text.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_looped(text: &str) -> bool {
        looped(&Generation {
            text: text.to_owned(),
            tokens: 64,
            finish: Finish::Length,
        })
    }

    #[test]
    fn repeated_tails_are_loops() {
        assert!(is_looped("1111"));
        assert!(is_looped("so the the the the the"));
        assert!(is_looped("abc abc abc abc a"));
        assert!(is_looped(&"é and one more step, ".repeat(4)));
    }

    #[test]
    fn other_text_is_not() {
        assert!(!is_looped(""));
        assert!(!is_looped("1"));
        assert!(!is_looped("111"), "three times");
        assert!(!is_looped("the answer is 1000000"), "less than half");
        assert!(!is_looped("aaaaaaaaaaaab"), "not to the end");
        assert!(!is_looped(
            &"a piece that is longer than 32 characters".repeat(5)
        ));
    }

    #[test]
    fn what_stops_by_itself_has_not_looped() {
        assert!(!looped(&Generation {
            text: "1111".to_owned(),
            tokens: 5,
            finish: Finish::Stop,
        }));
    }
}
