//! Statistics of several texts, kept apart as domains.

use sha2::{Digest, Sha256};

use super::provenance::same;
use super::{names, Stats};
use crate::checkpoint::hex;
use crate::{Error, Result};

impl Stats {
    /// Statistics of both texts, the domains of `other` after these. Nothing is
    /// added up, so texts that were cut in other ways may be put together;
    /// shards of one text are [merged](Self::merge).
    ///
    /// # Errors
    /// [`Error::StatsMismatch`] if they are of different models, share a
    /// domain, or lack a shard.
    pub fn beside(self, other: Self) -> Result<Self> {
        let (a, b) = (&self.provenance, &other.provenance);
        same("model", &a.fingerprint, &b.fingerprint)?;
        same("model family", &a.family, &b.family)?;
        same("experts per layer", &a.experts, &b.experts)?;
        same("experts per token", &a.top_k, &b.top_k)?;
        same("hidden size", &a.hidden, &b.hidden)?;
        for whole in [a, b] {
            same("shards, all of them", &vec![[0, 1]], &whole.shards)?;
        }
        let domains = |stats: &Self| -> Vec<String> {
            let domains = stats.provenance.domains.iter();
            domains.map(|domain| domain.name.clone()).collect()
        };
        let (mine, theirs) = (domains(&self), domains(&other));
        if mine.iter().any(|name| theirs.contains(name)) {
            return Err(Error::StatsMismatch {
                what: "domains, which must have different names".to_owned(),
                left: mine.join(", "),
                right: theirs.join(", "),
            });
        }
        same("tables", &names(&self.tables), &names(&other.tables))?;
        let mut all = self;
        for ((name, table), from) in all.tables.iter_mut().zip(other.tables.into_values()) {
            same(name, &&table.shape[1..], &&from.shape[1..])?;
            // The domain is the first dimension.
            table.shape[0] += from.shape[0];
            table.values.extend(from.values);
        }
        let into = &mut all.provenance;
        let both = [into.corpus.as_bytes(), other.provenance.corpus.as_bytes()].concat();
        into.corpus = hex(&Sha256::digest(both));
        into.domains.extend(other.provenance.domains);
        into.seq_len = into.seq_len.max(other.provenance.seq_len);
        into.batch_tokens = into.batch_tokens.max(other.provenance.batch_tokens);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::{routing, TOKENS};
    use crate::stats::testing::sample;

    /// Statistics of another text, three times the sample's.
    fn traffic() -> Stats {
        let mut stats = sample();
        stats.provenance.corpus = "b2".repeat(32);
        for (domain, name) in stats.provenance.domains.iter_mut().zip(["chat", "mail"]) {
            domain.name = name.to_owned();
        }
        for table in stats.tables.values_mut() {
            table.values.iter_mut().for_each(|value| *value *= 3.0);
        }
        stats
    }

    #[test]
    fn domains_stay_what_they_were() {
        let (base, traffic) = (sample(), traffic());
        let both = base.clone().beside(traffic.clone()).unwrap();
        for (index, domain) in both.provenance.domains.iter().enumerate() {
            let (from, at) = match index {
                0 | 1 => (&base, index),
                _ => (&traffic, index - 2),
            };
            assert_eq!(*domain, from.provenance.domains[at]);
            for name in [TOKENS, routing::COUNT] {
                assert_eq!(
                    both.tables[name].row(&[index]),
                    from.tables[name].row(&[at])
                );
            }
        }
        // A weight of 0 leaves a text out.
        let mixed = both.layer(0, &[1.0, 0.5, 0.0, 0.0]).unwrap();
        assert_eq!(mixed, base.layer(0, &[1.0, 0.5]).unwrap());
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("both.stats");
        both.write(&path).unwrap();
        assert_eq!(Stats::read(&path).unwrap(), both);
    }

    #[test]
    fn other_models_the_same_domain_and_parts_are_refused() {
        type Change = fn(&mut Stats);
        let changes: [(&str, Change); 5] = [
            ("model", |it| it.provenance.fingerprint.push('0')),
            ("experts per layer", |it| it.provenance.experts[0] += 1),
            ("shards, all of them", |it| {
                it.provenance.shards = vec![[0, 2]];
            }),
            ("domains, which must have different names", |it| {
                it.provenance.domains[1].name = "code".to_owned();
            }),
            ("tables", |it| {
                it.tables.remove(routing::PAIRS);
            }),
        ];
        for (named, change) in changes {
            let mut other = traffic();
            change(&mut other);
            match sample().beside(other) {
                Err(Error::StatsMismatch { what, .. }) => assert_eq!(what, named),
                other => panic!("{named}: {other:?}"),
            }
        }
    }
}
