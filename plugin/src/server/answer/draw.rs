//! Drawing a token by seed, which the engine (0.8.1) does not.

use std::hash::{BuildHasher, Hasher};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How tokens are drawn: the same seed and logits give the same tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Draw {
    /// Seed of ChaCha8, with one stream per token.
    pub(super) seed: u64,
    /// Divides the logits; 0 takes the most probable token.
    pub(super) temperature: f64,
    /// Most probable tokens to draw from; 0 for all.
    pub(super) top_k: usize,
    /// The most probable tokens that together have this probability; 1 for
    /// all.
    pub(super) top_p: f64,
    /// Tokens at least this fraction as probable as the most probable one.
    pub(super) min_p: f64,
}

/// A seed that no other request has.
pub(super) fn any_seed() -> u64 {
    // Random state is new every time.
    std::hash::RandomState::new().build_hasher().finish()
}

impl Draw {
    /// For choice `index` of a request, whose tokens are to differ from those
    /// of the others.
    pub(super) fn of_choice(self, index: usize) -> Self {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let seed = self.seed.wrapping_add(GOLDEN.wrapping_mul(index as u64));
        Self { seed, ..self }
    }

    /// The token at `position` of the answer, from logits [V]. It is drawn
    /// from p ∝ exp(z / temperature), cut by top_k, then top_p, then min_p.
    pub(super) fn token(&self, logits: &[f32], position: usize) -> u32 {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let logit = |token: u32| logits[token as usize];
        // Of equals the lower id comes first.
        let descending = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then_with(|| a.cmp(b));
        const COLD: f64 = 1e-7;
        if self.temperature < COLD {
            return order.into_iter().min_by(descending).unwrap_or(0);
        }
        if (1..order.len()).contains(&self.top_k) {
            order.select_nth_unstable_by(self.top_k - 1, descending);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(descending);
        let Some(&best) = order.first() else {
            return 0;
        };
        let weight =
            |&token: &u32| (f64::from(logit(token) - logit(best)) / self.temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let mut before = 0.0;
        let kept = weights.iter().take_while(|&&weight| {
            let kept = before < self.top_p * sum && weight >= self.min_p;
            before += weight;
            kept
        });
        let kept = kept.count().max(1);
        weights.truncate(kept);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(position as u64);
        let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        order[drawn.unwrap_or(kept - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw {
        seed: 7,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };

    /// How often each of the tokens comes in many draws.
    fn shares(draw: Draw, logits: &[f32]) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut counts = vec![0u32; logits.len()];
        for position in 0..DRAWS {
            counts[draw.token(logits, position) as usize] += 1;
        }
        counts
            .into_iter()
            .map(|it| f64::from(it) / DRAWS as f64)
            .collect()
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        let p = [0.5f32, 0.3, 0.15, 0.05];
        let logits = p.map(f32::ln);
        for (share, p) in shares(DRAW, &logits).iter().zip(p) {
            assert!((share - f64::from(p)).abs() < 0.015, "{share} {p}");
        }
        let cut = |draw| shares(draw, &logits);
        let two = cut(Draw { top_k: 2, ..DRAW });
        assert!((two[0] - 0.625).abs() < 0.015 && two[2] == 0.0, "{two:?}");
        assert_eq!(
            cut(Draw {
                top_p: 0.79,
                ..DRAW
            })[2],
            0.0
        );
        assert!(
            cut(Draw {
                top_p: 0.81,
                ..DRAW
            })[2]
                > 0.0
        );
        assert_eq!(cut(Draw { top_p: 0.0, ..DRAW })[0], 1.0);
        assert_eq!(cut(Draw { min_p: 0.5, ..DRAW })[2], 0.0);
        let cold = Draw {
            temperature: 0.0,
            ..DRAW
        };
        assert_eq!(cold.token(&[1.0, 3.0, 3.0], 0), 1);
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let drawn = |draw: Draw| {
            (0..20)
                .map(|at| draw.token(&logits, at))
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(DRAW), drawn(DRAW));
        assert_eq!(DRAW.of_choice(0), DRAW);
        assert_ne!(drawn(DRAW), drawn(DRAW.of_choice(1)));
        assert_ne!(drawn(DRAW), drawn(Draw { seed: 8, ..DRAW }));
        assert_ne!(any_seed(), any_seed());
    }
}
