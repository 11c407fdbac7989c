//! A random sample of documents of bounded size.
//!
//! Every document draws a number; those with the largest are kept, as many as
//! fit. Once one has been let go, no document with a smaller number is let in,
//! so that early and late, crowded and quiet times weigh the same (bottom-k
//! sampling with a threshold that adapts; Cohen and Kaplan, "Summarizing data
//! using bottom-k sketches", 2007).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A text and its size.
pub(super) struct Document {
    /// The text.
    pub(super) text: String,
    /// Tokens of it.
    pub(super) tokens: usize,
}

/// The sample.
pub(super) struct Reservoir {
    most: usize,
    tokens: usize,
    seen: u64,
    /// By the number drawn; the place in the stream tells equals apart.
    kept: BTreeMap<(u64, u64), Document>,
    /// The largest number of those that were let go.
    threshold: u64,
    rng: ChaCha8Rng,
}

impl Reservoir {
    /// An empty sample of at most `most` tokens.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            tokens: 0,
            seen: 0,
            kept: BTreeMap::new(),
            threshold: 0,
            rng: ChaCha8Rng::seed_from_u64(0),
        }
    }

    /// Keeps the document, or does not.
    pub(super) fn offer(&mut self, document: Document) {
        self.seen += 1;
        let drawn = self.rng.random();
        if drawn < self.threshold {
            return;
        }
        self.tokens += document.tokens;
        self.kept.insert((drawn, self.seen), document);
        while self.tokens > self.most {
            let Some(((drawn, _), gone)) = self.kept.pop_first() else {
                break;
            };
            self.tokens -= gone.tokens;
            self.threshold = drawn;
        }
    }

    /// The texts that are kept.
    pub(super) fn texts(&self) -> Vec<String> {
        self.kept.values().map(|it| it.text.clone()).collect()
    }

    /// Documents that are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Tokens that are kept.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Documents that were offered.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: impl Into<String>, tokens: usize) -> Document {
        Document {
            text: text.into(),
            tokens,
        }
    }

    #[test]
    fn the_sample_is_never_larger_than_it_may_be() {
        let mut reservoir = Reservoir::new(100);
        for index in 0..1000 {
            reservoir.offer(document(index.to_string(), 1 + index % 12));
            assert!(reservoir.tokens() <= 100);
            let kept: usize = reservoir.kept.values().map(|it| it.tokens).sum();
            assert_eq!(kept, reservoir.tokens());
        }
        assert_eq!(reservoir.seen(), 1000);
        assert_eq!(reservoir.texts().len(), reservoir.len());
        assert!(reservoir.tokens() > 50, "{}", reservoir.tokens());
    }

    #[test]
    fn what_comes_early_and_what_comes_late_is_kept_alike() {
        let mut early = 0;
        let mut all = 0;
        for seed in 0..200 {
            let mut reservoir = Reservoir {
                rng: ChaCha8Rng::seed_from_u64(seed),
                ..Reservoir::new(50)
            };
            (0..400).for_each(|index| reservoir.offer(document(index.to_string(), 1)));
            let texts = reservoir.texts();
            let first = |text: &&String| text.parse::<usize>().unwrap() < 200;
            early += texts.iter().filter(first).count();
            all += texts.len();
        }
        // 10,000 draws of one half: five standard deviations are 250.
        assert_eq!(all, 10_000);
        assert!((4750..=5250).contains(&early), "{early}");
    }

    #[test]
    fn all_is_kept_while_there_is_room() {
        let mut reservoir = Reservoir::new(10);
        for text in ["a", "b", "c"] {
            reservoir.offer(document(text, 3));
        }
        let mut texts = reservoir.texts();
        texts.sort();
        assert_eq!(texts, ["a", "b", "c"]);
    }
}
