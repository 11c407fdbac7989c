//! Bootstrap draws of parts, apart for every domain.
//!
//! Every domain has its own number of tokens by design, so it is drawn by
//! itself (stratified), and what is drawn weighs as many tokens as there are:
//! parts of different sizes would otherwise vary sums for their sizes alone. Of
//! n parts n − 1 are drawn with replacement, so that the variance of a draw is
//! that of the sum without bias (McCarthy and Snowden, "The Bootstrap and Finite
//! Population Sampling", 1985).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use router_stats::stats::{Parts, Provenance};

/// Draws the weights of parts.
pub(super) struct Draws {
    rng: ChaCha8Rng,
    parts: usize,
    /// For every domain, the parts that have text of it and how many tokens.
    with_text: Vec<Vec<(usize, f64)>>,
}

impl Draws {
    pub(super) fn new(parts: &Parts, seed: u64) -> Self {
        let stats = parts.parts();
        let domains = 0..parts.provenance().domains.len();
        let has = |domain: usize| {
            let tokens = stats
                .iter()
                .map(|part| part.provenance.domains[domain].tokens as f64);
            let parts = tokens.enumerate();
            parts.filter(|&(_, tokens)| tokens > 0.0).collect()
        };
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            parts: stats.len(),
            with_text: domains.map(has).collect(),
        }
    }

    /// Domains that are in two parts or more, and so differ between draws.
    pub(super) fn varied(&self) -> usize {
        let varied = self.with_text.iter().filter(|parts| parts.len() > 1);
        varied.count()
    }

    /// Names of the domains whose text is all in one part.
    pub(super) fn fixed(&self, provenance: &Provenance) -> Vec<String> {
        let domains = provenance.domains.iter().zip(&self.with_text);
        domains
            .filter(|(_, parts)| parts.len() == 1)
            .map(|(domain, _)| domain.name.clone())
            .collect()
    }

    /// Weight of every part in every domain: `[p][d]`.
    pub(super) fn next(&mut self) -> Vec<Vec<f64>> {
        let mut weights = vec![vec![0.0; self.with_text.len()]; self.parts];
        for (domain, parts) in self.with_text.iter().enumerate() {
            let mut drawn = parts.clone();
            if parts.len() > 1 {
                let one = |_| parts[self.rng.random_range(0..parts.len())];
                drawn = (1..parts.len()).map(one).collect();
            }
            let tokens = |parts: &[(usize, f64)]| parts.iter().map(|(_, n)| n).sum::<f64>();
            let weight = tokens(parts) / tokens(&drawn);
            for (part, _) in drawn {
                weights[part][domain] += weight;
            }
        }
        weights
    }
}
