//! Parts of about equal size out of the chunks of rounds.
//!
//! Draws of few large parts among many small ones would tell little about all of
//! them, and many parts cost memory; so a round's chunks join what is there.

use router_stats::stats::{Parts, Stats};

use super::CHUNKS;
use crate::Result;

/// Adds the chunks that a round measured to the `parts` of the rounds before:
/// chunks that are as large as parts become parts, after neighbours are joined
/// if that were too many; smaller ones, of a last round that is cut short, are
/// joined with one part each. There are at most twice [`CHUNKS`] parts.
///
/// # Errors
/// If they are of different models or settings.
pub fn add_round(parts: Vec<Stats>, chunks: Vec<Stats>) -> Result<Vec<Stats>> {
    let many = parts.len() > CHUNKS;
    let least = mean_tokens(&parts) * if many { 1.0 } else { 0.5 };
    if mean_tokens(&chunks) < least {
        let mut chunks = chunks.into_iter();
        return parts
            .into_iter()
            .map(|part| join([Some(part), chunks.next()]))
            .collect();
    }
    let mut joined = Vec::new();
    if many {
        let mut parts = parts.into_iter();
        while let Some(first) = parts.next() {
            joined.push(join([Some(first), parts.next()])?);
        }
    } else {
        joined = parts;
    }
    joined.extend(chunks);
    Ok(joined)
}

fn join(parts: [Option<Stats>; 2]) -> Result<Stats> {
    Ok(Parts::new(parts.into_iter().flatten().collect())?.together())
}

/// Mean number of tokens; 0 of no statistics.
fn mean_tokens(stats: &[Stats]) -> f64 {
    let domains = stats.iter().flat_map(|stats| &stats.provenance.domains);
    let tokens: u64 = domains.map(|domain| domain.tokens).sum();
    tokens as f64 / stats.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    /// Chunks of so many tokens, each counting as much.
    fn chunks(count: usize, tokens: u64) -> Vec<Stats> {
        let chunk = |index: usize| {
            let mut stats = fixture::stats("f");
            stats.provenance.corpus = format!("{index} of {tokens}");
            stats.provenance.domains[0].tokens = tokens;
            stats.provenance.domains[1].tokens = 0;
            let count = stats.tables.get_mut("routing.count").unwrap();
            count.values.fill(tokens as f64);
            stats
        };
        (0..count).map(chunk).collect()
    }

    fn sizes(parts: &[Stats]) -> Vec<u64> {
        let size = |part: &Stats| {
            let tokens = part.provenance.domains[0].tokens;
            assert_eq!(part.tables["routing.count"].values[0], tokens as f64);
            tokens
        };
        parts.iter().map(size).collect()
    }

    #[test]
    fn rounds_that_double_leave_parts_of_one_size() {
        let mut parts = add_round(Vec::new(), chunks(8, 10)).unwrap();
        assert_eq!(sizes(&parts), [10; 8]);
        for (tokens, size) in [(10, 10), (20, 20), (40, 40)] {
            parts = add_round(parts, chunks(8, tokens)).unwrap();
            assert_eq!(sizes(&parts), [size; 16]);
        }
    }

    #[test]
    fn chunks_of_a_short_last_round_join_parts() {
        let parts = add_round(chunks(8, 10), chunks(8, 3)).unwrap();
        assert_eq!(sizes(&parts), [13; 8]);
        let parts = add_round(chunks(16, 10), chunks(7, 6)).unwrap();
        assert_eq!(sizes(&parts), [[16; 7].as_slice(), &[10; 9]].concat());
        let parts = add_round(chunks(8, 10), chunks(5, 7)).unwrap();
        assert_eq!(sizes(&parts), [[10; 8].as_slice(), &[7; 5]].concat());
        assert_eq!(add_round(chunks(8, 10), Vec::new()).unwrap().len(), 8);
    }
}
