//! Documents by domain: the text a model is calibrated and evaluated on.
//!
//! Reads `.txt` and `.jsonl` files and splits documents into calibration and
//! held-out ones. Tokens, budgets and order belong to [`super::Sequences`].

mod file;
mod source;

use sha2::{Digest, Sha256};

pub use source::Source;

use super::ChatTemplate;
use crate::{Error, Result};

/// Documents of one kind, so that statistics can be kept and reweighed apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// Name, unique in a corpus.
    pub name: String,
    /// Share of the mixture, relative to the other domains.
    pub weight: f64,
    /// Texts, chats already rendered; none is empty.
    pub documents: Vec<String>,
}

/// Domains in the order in which they were first named.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Corpus {
    /// The domains.
    pub domains: Vec<Domain>,
}

impl Corpus {
    /// Reads every source. Sources that name the same domain are joined.
    ///
    /// A `.txt` file holds documents separated by a line `<|endoftext|>`; white
    /// space around a document is dropped. A `.jsonl` file holds one object a
    /// line with `text`, or `messages` that `template` renders; with both,
    /// `messages` are used if there is a template and `text` if not.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corpus`] for another suffix, text that is not
    /// UTF-8, a bad line, a file without documents, or a domain given two
    /// weights; [`Error::ChatTemplate`] for `messages` that do not render.
    pub fn read(sources: &[Source], template: Option<&ChatTemplate>) -> Result<Self> {
        let mut corpus = Self::default();
        for source in sources {
            let documents = file::read(&source.path, template)?;
            match corpus
                .domains
                .iter_mut()
                .find(|domain| domain.name == source.domain)
            {
                None => corpus.domains.push(Domain {
                    name: source.domain.clone(),
                    weight: source.weight,
                    documents,
                }),
                Some(domain) if domain.weight == source.weight => {
                    domain.documents.extend(documents);
                }
                Some(domain) => {
                    return Err(Error::Corpus {
                        path: source.path.clone(),
                        line: None,
                        reason: format!(
                            "domain `{}`: expected weight {} as in its other file, found {}",
                            domain.name, domain.weight, source.weight
                        ),
                    })
                }
            }
        }
        Ok(corpus)
    }

    /// Hex SHA-256 of names, weights and documents, in order.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for domain in &self.domains {
            update(&mut hasher, domain.name.as_bytes());
            hasher.update(domain.weight.to_le_bytes());
            hasher.update((domain.documents.len() as u64).to_le_bytes());
            for document in &domain.documents {
                update(&mut hasher, document.as_bytes());
            }
        }
        format!("{:x}", hasher.finalize())
    }

    /// Splits every domain into a calibration and a held-out part, about the
    /// fraction `held_out` of its documents (0 to 1) going to the latter.
    ///
    /// A document's side depends on its text alone: neither on its place nor on
    /// the other documents, except that in a domain of at least two different
    /// documents neither side is left empty. Copies of a document stay
    /// together. A domain whose only document is needed for calibration is
    /// absent from the held-out corpus. At 0 nothing is held out.
    pub fn split(self, held_out: f64) -> (Self, Self) {
        if held_out <= 0.0 {
            return (self, Self::default());
        }
        let (mut calibration, mut evaluation) = (Self::default(), Self::default());
        for Domain {
            name,
            weight,
            documents,
        } in self.domains
        {
            let places: Vec<f64> = documents.iter().map(|text| place(text)).collect();
            let lowest = places.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // At least the lowest place is held out and the highest is not.
            let bound = held_out.min(highest);
            let is_held_out = |place: f64| place < bound || (place == lowest && lowest < highest);
            let (mut kept, mut held) = (Vec::new(), Vec::new());
            for (document, place) in documents.into_iter().zip(places) {
                if is_held_out(place) {
                    held.push(document);
                } else {
                    kept.push(document);
                }
            }
            for (side, documents) in [(&mut calibration, kept), (&mut evaluation, held)] {
                if !documents.is_empty() {
                    side.domains.push(Domain {
                        name: name.clone(),
                        weight,
                        documents,
                    });
                }
            }
        }
        (calibration, evaluation)
    }
}

/// Length-prefixed, so that no two lists of fields hash the same bytes.
fn update(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// A uniform number in [0, 1) that a text always gets.
fn place(text: &str) -> f64 {
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let bits = digest
        .iter()
        .take(8)
        .fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
    // 53 bits are what an f64 holds exactly.
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn corpus(documents: &[&str]) -> Corpus {
        let documents = documents.iter().map(|&text| text.to_owned()).collect();
        Corpus {
            domains: vec![Domain {
                name: "d".to_owned(),
                weight: 1.0,
                documents,
            }],
        }
    }

    fn documents(corpus: &Corpus) -> BTreeSet<String> {
        corpus
            .domains
            .iter()
            .flat_map(|domain| domain.documents.clone())
            .collect()
    }

    #[test]
    fn files_of_one_domain_are_joined_and_must_agree_on_its_weight() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a.txt"), "one\n<|endoftext|>\ntwo\n").unwrap();
        std::fs::write(path("b.jsonl"), "{\"text\": \"three\"}\n").unwrap();
        let source = |file: &str, weight| Source {
            domain: "d".to_owned(),
            path: path(file),
            weight,
        };

        let corpus = Corpus::read(&[source("a.txt", 2.0), source("b.jsonl", 2.0)], None).unwrap();
        assert_eq!(corpus.domains.len(), 1);
        assert_eq!(corpus.domains[0].documents, ["one", "two", "three"]);

        let error =
            Corpus::read(&[source("a.txt", 2.0), source("b.jsonl", 1.0)], None).unwrap_err();
        assert!(error.to_string().contains("expected weight 2"), "{error}");
    }

    #[test]
    fn the_hash_sees_text_boundaries_names_and_weights() {
        let base = corpus(&["ab", "c"]);
        assert_eq!(base.hash(), corpus(&["ab", "c"]).hash());
        assert_eq!(base.hash().len(), 64);
        assert_ne!(base.hash(), corpus(&["a", "bc"]).hash());
        let mut renamed = base.clone();
        renamed.domains[0].name.push('2');
        assert_ne!(base.hash(), renamed.hash());
        let mut reweighed = base.clone();
        reweighed.domains[0].weight = 0.5;
        assert_ne!(base.hash(), reweighed.hash());
    }

    #[test]
    fn a_tenth_is_held_out() {
        let texts: Vec<String> = (0..2000).map(|i| format!("document {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (calibration, held_out) = corpus(&texts).split(0.1);
        let held = documents(&held_out).len();
        assert!((140..=260).contains(&held), "{held}");
        assert_eq!(documents(&calibration).len() + held, 2000);
    }

    #[test]
    fn small_domains_keep_both_sides_where_they_can() {
        let (calibration, held_out) = corpus(&["only"]).split(0.5);
        assert_eq!(documents(&calibration).len(), 1);
        assert!(held_out.domains.is_empty());
        for fraction in [1e-9, 0.5, 1.0] {
            let (calibration, held_out) = corpus(&["first", "second"]).split(fraction);
            assert_eq!(
                (documents(&calibration).len(), documents(&held_out).len()),
                (1, 1)
            );
        }
        let (calibration, held_out) = corpus(&["first", "second"]).split(0.0);
        assert_eq!(documents(&calibration).len(), 2);
        assert!(held_out.domains.is_empty());
    }

    proptest! {
        #[test]
        fn splitting_partitions_and_ignores_order(
            texts in prop::collection::vec("[a-z]{1,6}", 1..40),
            fraction in 0.0f64..1.0,
            rotation in 0usize..40,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut permuted = texts.clone();
            permuted.rotate_left(rotation % texts.len());
            permuted.reverse();

            let (calibration, held_out) = corpus(&texts).split(fraction);
            let (calibration_2, held_out_2) = corpus(&permuted).split(fraction);
            prop_assert_eq!(documents(&calibration), documents(&calibration_2));
            prop_assert_eq!(documents(&held_out), documents(&held_out_2));
            prop_assert!(documents(&calibration).is_disjoint(&documents(&held_out)));
            let count = |c: &Corpus| c.domains.iter().map(|d| d.documents.len()).sum::<usize>();
            prop_assert_eq!(count(&calibration) + count(&held_out), texts.len());
        }
    }
}
