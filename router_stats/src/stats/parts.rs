//! Statistics of separate parts of a text, weighed against one another.
//!
//! Owns what parts must have in common and their weighted sum. Which weights a
//! bootstrap draws, and what is decided from a draw, is not known here.

use super::provenance::same;
use super::{Merge, Provenance, Stats, Table};
use crate::{Error, Result};

/// Statistics of one model on texts that have nothing in common.
#[derive(Debug, Clone)]
pub struct Parts {
    parts: Vec<Stats>,
    /// The first part's, with the tokens and sequences of all.
    provenance: Provenance,
}

impl Parts {
    /// Checks that the parts can be added up: same model, domains with the same
    /// weights, and sequence length. Their text, batches and seed may differ; of
    /// one text, they must be different shards.
    ///
    /// # Errors
    /// [`Error::StatsMismatch`] names the first difference;
    /// [`Error::Structure`] for no parts.
    pub fn new(parts: Vec<Stats>) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::Structure {
                what: "statistics of parts".to_owned(),
                expected: "at least one part".to_owned(),
                found: "none".to_owned(),
            });
        };
        let mut provenance = first.provenance.clone();
        for (index, part) in parts.iter().enumerate().skip(1) {
            alike(first, part)?;
            for earlier in &parts[..index] {
                earlier.provenance.expect_apart(&part.provenance)?;
            }
            for (all, domain) in provenance.domains.iter_mut().zip(&part.provenance.domains) {
                all.tokens += domain.tokens;
                all.sequences += domain.sequences;
                all.documents = all.documents.max(domain.documents);
            }
        }
        Ok(Self { parts, provenance })
    }

    /// The parts.
    pub fn parts(&self) -> &[Stats] {
        &self.parts
    }

    /// Takes the parts back.
    pub fn into_parts(self) -> Vec<Stats> {
        self.parts
    }

    /// The first part's provenance, with the tokens and sequences of all.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The statistics of all parts.
    pub fn together(&self) -> Stats {
        let ones = vec![vec![1.0; self.provenance.domains.len()]; self.parts.len()];
        self.weighed(&ones)
    }

    /// Σ_p w_pd · S_pd for every domain d, or the largest entry of parts with
    /// w_pd > 0: `weights[p][d]`, not negative. The provenance is that of all
    /// parts, whatever they weigh.
    pub fn weighed(&self, weights: &[Vec<f64>]) -> Stats {
        let weigh = |name: &String, like: &Table| {
            let mut sum = Table::zeros(like.shape.clone(), like.merge);
            for domain in 0..self.provenance.domains.len() {
                let mut begun = false;
                for (part, weights) in self.parts.iter().zip(weights) {
                    let weight = weights[domain];
                    let Some(table) = part.tables.get(name).filter(|_| weight > 0.0) else {
                        continue;
                    };
                    let (into, from) = (sum.row_mut(&[domain]), table.row(&[domain]));
                    // Zero need not be a lower bound of maxima.
                    if !begun && like.merge == Merge::Max {
                        into.copy_from_slice(from);
                    } else {
                        like.merge.combine(into, from, weight);
                    }
                    begun = true;
                }
            }
            sum
        };
        let tables = self.parts.first().map(|first| {
            let tables = first.tables.iter();
            tables.map(|(name, like)| (name.clone(), weigh(name, like)))
        });
        Stats {
            provenance: self.provenance.clone(),
            tables: tables.into_iter().flatten().collect(),
        }
    }
}

/// Fails unless the sums of both are over the same things.
fn alike(left: &Stats, right: &Stats) -> Result<()> {
    let (a, b) = (&left.provenance, &right.provenance);
    same("model", &a.fingerprint, &b.fingerprint)?;
    let domains = |provenance: &Provenance| -> Vec<(String, f64)> {
        let domains = provenance.domains.iter();
        domains.map(|d| (d.name.clone(), d.weight)).collect()
    };
    same("domains and their weights", &domains(a), &domains(b))?;
    same("sequence length", &a.seq_len, &b.seq_len)?;
    same("experts per layer", &a.experts, &b.experts)?;
    same("hidden size", &a.hidden, &b.hidden)?;
    let shapes = |stats: &Stats| -> Vec<(String, Vec<usize>)> {
        let tables = stats.tables.iter();
        tables
            .map(|(name, table)| (name.clone(), table.shape.clone()))
            .collect()
    };
    same("tables", &shapes(left), &shapes(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::{expert, routing, TOKENS};
    use crate::stats::testing::sample;

    fn shard(index: usize, scale: f64) -> Stats {
        let mut stats = sample();
        stats.provenance.shards = vec![[index, 3]];
        for table in stats.tables.values_mut() {
            table.values.iter_mut().for_each(|value| *value *= scale);
        }
        stats
    }

    #[test]
    fn all_together_are_what_merging_gives() {
        let shards = [shard(0, 1.0), shard(1, 3.0), shard(2, 0.5)];
        let [a, b, c] = shards.clone();
        let merged = a.merge(b).unwrap().merge(c).unwrap();
        let parts = Parts::new(shards.to_vec()).unwrap();
        let together = parts.together();
        assert_eq!(together.tables, merged.tables);
        assert_eq!(together.provenance.domains, merged.provenance.domains);
        assert_eq!(parts.into_parts(), shards);
    }

    #[test]
    fn domains_are_weighed_apart_and_maxima_selected() {
        let parts = Parts::new(vec![shard(0, 1.0), shard(1, 3.0)]).unwrap();
        let mixed = parts.weighed(&[vec![2.0, 0.0], vec![0.0, 0.5]]);
        let base = sample();
        let row = |name: &str, domain: usize| base.tables[name].row(&[domain]).to_vec();
        for (domain, scale) in [(0, 2.0), (1, 1.5)] {
            let expected: Vec<f64> = row(routing::COUNT, domain)
                .iter()
                .map(|count| count * scale)
                .collect();
            assert_eq!(mixed.tables[routing::COUNT].row(&[domain]), expected);
        }
        // A maximum is chosen, not weighed.
        assert_eq!(mixed.tables[expert::MAX].row(&[0]), row(expert::MAX, 0));
        let tripled: Vec<f64> = row(expert::MAX, 1).iter().map(|max| max * 3.0).collect();
        assert_eq!(mixed.tables[expert::MAX].row(&[1]), tripled);
        let none = parts.weighed(&[vec![0.0, 1.0], vec![0.0, 1.0]]);
        assert_eq!(none.tables[TOKENS].values[0], 0.0);
    }

    #[test]
    fn only_like_parts_that_do_not_overlap_are_taken() {
        let named = |right: Stats| match Parts::new(vec![shard(0, 1.0), right]) {
            Err(Error::StatsMismatch { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert!(named(shard(0, 1.0)).contains("must not overlap"));
        let mut other = shard(1, 1.0);
        other.provenance.fingerprint.push('0');
        assert_eq!(named(other), "model");
        let mut other = shard(1, 1.0);
        other.provenance.domains[1].weight = 2.0;
        assert_eq!(named(other), "domains and their weights");
        let mut other = shard(1, 1.0);
        other.tables.remove(expert::MAX);
        assert_eq!(named(other), "tables");
        // Another text may be cut in another way.
        let mut other = shard(0, 1.0);
        other.provenance.corpus.push('0');
        other.provenance.seed += 1;
        assert!(Parts::new(vec![shard(0, 1.0), other]).is_ok());
        assert!(matches!(
            Parts::new(Vec::new()),
            Err(Error::Structure { .. })
        ));
    }
}
