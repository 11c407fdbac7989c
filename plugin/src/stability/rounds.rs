//! A calibration in rounds, each with twice the text of the one before.
//!
//! Owns which sequences are new in which round and which of them go together
//! through the model as a chunk. A round holds the sequences that packing the
//! same documents under a smaller budget gives, so what is measured up to it is
//! a calibration with that budget.

use router_stats::calibration::Sequences;

/// Chunks that the new text of a round is divided into.
pub const CHUNKS: usize = 8;

/// Tokens of a chunk of the first round, at least.
const FIRST_TOKENS: usize = 2048;

/// How a packed text is divided.
#[derive(Debug)]
pub struct Rounds {
    /// Sequences of each domain, in the order of its text: `[D][…]`.
    domains: Vec<Vec<usize>>,
    /// Sequences of every domain in the first round.
    first: usize,
    seq_len: usize,
    /// Budget under which the whole text was packed.
    budget: usize,
}

impl Rounds {
    /// Divides `sequences`, which were packed under `budget` tokens. The first
    /// round has as many sequences of every domain for each chunk as make
    /// 2,048 tokens together, and one at least.
    pub fn new(sequences: &Sequences, budget: usize) -> Self {
        let mut domains = vec![Vec::new(); sequences.names.len()];
        for (index, &domain) in sequences.domains.iter().enumerate() {
            domains[usize::from(domain)].push(index);
        }
        let row = sequences.seq_len * domains.len();
        Self {
            first: CHUNKS * FIRST_TOKENS.div_ceil(row.max(1)),
            domains,
            seq_len: sequences.seq_len,
            budget,
        }
    }

    /// Number of rounds until the text ends.
    pub fn count(&self) -> usize {
        let most = self.domains.iter().map(Vec::len).max().unwrap_or(0);
        let ends = |round: &usize| self.upto(*round) >= most;
        (0..usize::BITS as usize).find(ends).unwrap_or(0) + 1
    }

    /// Tokens under which packing gives what rounds 0 to `round` hold.
    pub fn budget(&self, round: usize) -> usize {
        if round + 1 >= self.count() {
            return self.budget;
        }
        self.upto(round) * self.seq_len * self.domains.len()
    }

    /// Sequences of each chunk that is new in `round`, domain by domain, so that
    /// a larger budget has the same chunks in all rounds but its last. Chunks
    /// follow one another in the text of every domain; none is empty.
    pub fn chunks(&self, round: usize) -> Vec<Vec<usize>> {
        let from = round.checked_sub(1).map_or(0, |before| self.upto(before));
        let to = self.upto(round);
        let mut chunks = vec![Vec::new(); CHUNKS];
        for sequences in &self.domains {
            let end = sequences.len();
            let new = &sequences[from.min(end)..to.min(end)];
            for (index, chunk) in chunks.iter_mut().enumerate() {
                let part = |index: usize| new.len() * index / CHUNKS;
                chunk.extend_from_slice(&new[part(index)..part(index + 1)]);
            }
        }
        chunks.retain(|chunk| !chunk.is_empty());
        chunks
    }

    /// Sequences of every domain, if it has so many, in rounds 0 to `round`.
    fn upto(&self, round: usize) -> usize {
        let doubled = u32::try_from(round)
            .ok()
            .and_then(|n| 2usize.checked_pow(n));
        doubled.map_or(usize::MAX, |times| self.first.saturating_mul(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences of so many windows in each domain, interleaved.
    fn packed(windows: &[usize], seq_len: usize) -> Sequences {
        let most = windows.iter().copied().max().unwrap();
        let domains: Vec<u16> = (0..most)
            .flat_map(|at| (0..windows.len()).filter(move |&d| at < windows[d]))
            .map(|domain| domain as u16)
            .collect();
        Sequences {
            tokens: vec![0; domains.len() * seq_len],
            starts: (0..=domains.len()).map(|index| index * seq_len).collect(),
            names: windows.iter().map(ToString::to_string).collect(),
            weights: vec![1.0; windows.len()],
            document: vec![0; domains.len()],
            documents: vec![1; windows.len()],
            seq_len,
            seed: 0,
            hash: String::new(),
            domains,
        }
    }

    #[test]
    fn rounds_double_and_hold_every_sequence_once() {
        let sequences = packed(&[70, 70, 11], 1024);
        let rounds = Rounds::new(&sequences, 70 * 3 * 1024);
        // One sequence of each domain in every chunk: 8, 16, 32, 64, all.
        assert_eq!(rounds.count(), 5);
        let mut seen = Vec::new();
        for (round, of_first) in [(0, 8), (1, 16), (2, 32), (3, 64), (4, 70)] {
            let chunks = rounds.chunks(round);
            assert!(chunks.len() <= CHUNKS);
            seen.extend(chunks.into_iter().flatten());
            let held = |domain: u16| {
                let held = seen.iter().filter(|&&at| sequences.domains[at] == domain);
                held.count()
            };
            assert_eq!(
                (held(0), held(1), held(2)),
                (of_first, of_first, of_first.min(11))
            );
            assert_eq!(rounds.budget(round), of_first * 3 * 1024);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..sequences.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_chunk_of_few_short_domains_is_not_tiny() {
        let rounds = Rounds::new(&packed(&[600], 64), 600 * 64);
        let chunks = rounds.chunks(0);
        assert_eq!(chunks.len(), CHUNKS);
        assert!(chunks.iter().all(|chunk| chunk.len() * 64 == 2048));
        assert_eq!(chunks[1], (32..64).collect::<Vec<_>>());
    }

    #[test]
    fn a_short_text_is_one_round_of_fewer_chunks() {
        let rounds = Rounds::new(&packed(&[3, 2], 512), 9999);
        assert_eq!((rounds.count(), rounds.budget(0)), (1, 9999));
        let chunks = rounds.chunks(0);
        assert_eq!(chunks.len(), 4);
        assert_eq!(chunks.concat().len(), 5);
    }
}
