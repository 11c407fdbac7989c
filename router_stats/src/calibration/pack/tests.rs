use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use tokenizers::TruncationParams;

use super::*;
use crate::calibration::{ChatTemplate, Domain, Source};

const SEPARATOR: u32 = 0;

/// One token a word: `w7` is token 7, and 0 is the separator.
fn words() -> Tokenizer {
    let vocabulary: serde_json::Map<_, _> = (0..2000)
        .map(|id| {
            (
                if id == 0 {
                    "<sep>".to_owned()
                } else {
                    format!("w{id}")
                },
                id.into(),
            )
        })
        .collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<sep>"},
    });
    json.to_string().parse().unwrap()
}

/// Domains whose documents have the given lengths, no word being used twice.
fn corpus(lengths: &[Vec<usize>]) -> Corpus {
    let mut next = 1..;
    let mut document = |length: usize| {
        let words: Vec<String> = next
            .by_ref()
            .take(length)
            .map(|id| format!("w{id}"))
            .collect();
        words.join(" ")
    };
    let domain = |(index, lengths): (usize, &Vec<usize>)| Domain {
        name: format!("d{index}"),
        weight: 1.0 + index as f64,
        documents: lengths.iter().map(|&length| document(length)).collect(),
    };
    Corpus {
        domains: lengths.iter().enumerate().map(domain).collect(),
    }
}

fn options(seq_len: usize, tokens: usize, seed: u64) -> PackOptions {
    PackOptions {
        seq_len,
        tokens,
        seed,
    }
}

fn pack(corpus: &Corpus, options: &PackOptions) -> Sequences {
    Sequences::pack(corpus, &words(), Some(SEPARATOR), options).unwrap()
}

#[test]
fn documents_are_joined_with_the_separator_and_cut() {
    let packed = pack(&corpus(&[vec![3, 3, 3]]), &options(4, 100, 0));
    let lengths: Vec<_> = (0..packed.len())
        .map(|i| packed.sequence(i).len())
        .collect();
    assert_eq!(lengths, [4, 4, 4]);
    assert!(
        (0..3).all(|i| packed.sequence(i)[3] == SEPARATOR),
        "{packed:?}"
    );
    assert_eq!(packed.documents, [3]);
    let bare = Sequences::pack(
        &corpus(&[vec![3, 3, 3]]),
        &words(),
        None,
        &options(4, 100, 0),
    )
    .unwrap();
    assert_eq!(bare.tokens.len(), 8, "the ninth token would be alone");
}

#[test]
fn the_budget_is_split_evenly_and_unused_parts_stay_unused() {
    let packed = pack(
        &corpus(&[vec![50; 4], vec![5], vec![50; 4]]),
        &options(8, 100, 1),
    );
    let mut of_domain = [0; 3];
    for index in 0..packed.len() {
        of_domain[usize::from(packed.domains[index])] += packed.sequence(index).len();
    }
    // 34 + 33 + 33: the rest goes to the first, and six tokens are all of the second.
    assert_eq!(of_domain, [34, 6, 32]);
    assert_eq!(packed.documents, [1, 1, 1]);
    assert_eq!(packed.weights, [1.0, 2.0, 3.0]);
}

#[test]
fn a_sequence_is_of_the_document_that_most_of_it_is_of() {
    // Documents of 5, 2, 2, 2 and 5 tokens with their separators, in an order
    // that the first token of each tells.
    let corpus = corpus(&[vec![4, 1, 1, 1, 4]]);
    let packed = pack(&corpus, &options(4, 100, 3));
    let (mut own, mut document) = (Vec::new(), 0);
    for &token in &packed.tokens {
        own.push(document);
        document += u32::from(token == SEPARATOR);
    }
    assert_eq!(packed.tokens.len(), 16, "no token is dropped");
    let most = |range: Range<usize>| {
        let count = |document| {
            own[range.clone()]
                .iter()
                .filter(|&&d| d == document)
                .count()
        };
        // The first of the largest.
        (0..5)
            .rev()
            .max_by_key(|&document| count(document))
            .unwrap()
    };
    let expected: Vec<u32> = packed
        .starts
        .windows(2)
        .map(|ends| most(ends[0]..ends[1]))
        .collect();
    assert_eq!(packed.document, expected);

    let long = pack(&self::corpus(&[vec![50], vec![50; 2]]), &options(8, 120, 0));
    for domain in [0, 1] {
        let documents: BTreeSet<u32> = (0..long.len())
            .filter(|&index| long.domains[index] == domain)
            .map(|index| long.document[index])
            .collect();
        assert_eq!(documents, (0..=u32::from(domain)).collect());
    }
}

#[test]
fn every_prefix_is_balanced() {
    let packed = pack(&corpus(&[vec![80; 3], vec![40; 3]]), &options(10, 400, 2));
    let half = &packed.domains[..packed.len() / 2];
    let of_first = half.iter().filter(|&&domain| domain == 0).count();
    let of_second = half.len() - of_first;
    assert!(of_first.abs_diff(of_second * 5 / 3) <= 2, "{half:?}");
}

#[test]
fn batches_cover_every_sequence_once() {
    let packed = pack(&corpus(&[vec![25; 3], vec![10]]), &options(8, 200, 3));
    for limit in [0, 1, 8, 9, 20, 1000] {
        let batches = packed.batches(limit);
        let covered: Vec<usize> = batches.iter().cloned().flatten().collect();
        assert_eq!(covered, (0..packed.len()).collect::<Vec<_>>());
        for batch in batches {
            let tokens = packed.starts[batch.end] - packed.starts[batch.start];
            assert!(
                tokens <= limit || batch.len() == 1,
                "{batch:?} has {tokens} tokens"
            );
        }
    }
    assert_eq!(packed.batches(1000).len(), 1);
}

#[test]
fn the_hash_sees_tokens_and_settings_but_not_weights() {
    let corpus = corpus(&[vec![9; 9]]);
    let base = pack(&corpus, &options(8, 64, 5));
    assert_eq!(base.hash.len(), 64);
    for other in [options(4, 64, 5), options(8, 63, 5), options(8, 64, 6)] {
        assert_ne!(base.hash, pack(&corpus, &other).hash, "{other:?}");
    }
    let mut reweighed = corpus.clone();
    reweighed.domains[0].weight = 9.0;
    assert_eq!(base.hash, pack(&reweighed, &options(8, 64, 5)).hash);
    let mut renamed = corpus;
    renamed.domains[0].name = "other".to_owned();
    assert_ne!(base.hash, pack(&renamed, &options(8, 64, 5)).hash);
}

#[test]
fn what_holds_no_sequence_is_refused() {
    let tokenizer = words();
    let refuse = |corpus: &Corpus, options: &PackOptions| {
        Sequences::pack(corpus, &tokenizer, None, options).unwrap_err()
    };
    let two = corpus(&[vec![9], vec![9]]);
    assert!(matches!(
        refuse(&two, &options(1, 64, 0)),
        Error::Structure { .. }
    ));
    assert!(matches!(
        refuse(&two, &options(8, 3, 0)),
        Error::Structure { .. }
    ));
    assert!(matches!(
        refuse(&Corpus::default(), &options(8, 64, 0)),
        Error::TooLittleText { .. }
    ));
    let error = refuse(&corpus(&[vec![9], vec![1]]), &options(8, 64, 0));
    assert_eq!(
        error.to_string(),
        "domain `d1`: expected at least 2 tokens, found 1"
    );
}

#[test]
fn truncation_of_the_tokenizer_is_not_applied() {
    let mut tokenizer = words();
    let limit = TruncationParams {
        max_length: 3,
        ..TruncationParams::default()
    };
    tokenizer.with_truncation(Some(limit)).unwrap();
    let corpus = corpus(&[vec![40]]);
    let packed =
        Sequences::pack(&corpus, &tokenizer, Some(SEPARATOR), &options(64, 64, 0)).unwrap();
    assert_eq!(packed, pack(&corpus, &options(64, 64, 0)));
    assert_eq!(packed.tokens.len(), 41);
}

#[test]
fn a_long_document_gives_the_same_tokens_as_the_whole_of_it() {
    let tokenizer = words();
    let corpus = corpus(&[vec![1900]]);
    let whole = tokenizer
        .encode_fast(corpus.domains[0].documents[0].as_str(), false)
        .unwrap();
    let packed = pack(&corpus, &options(64, 50, 0));
    assert_eq!(packed.tokens, whole.get_ids()[..50]);
}

#[test]
fn special_tokens_of_a_rendered_chat_are_special() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let tokenizer = Tokenizer::from_file(demo.join("tokenizer.json")).unwrap();
    let template = ChatTemplate::read(&demo).unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.jsonl");
    std::fs::write(
        &path,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello there\"}]}\n",
    )
    .unwrap();
    let source = Source {
        domain: "chat".to_owned(),
        path,
        weight: 1.0,
    };

    let corpus = Corpus::read(&[source], Some(&template)).unwrap();
    let packed = Sequences::pack(&corpus, &tokenizer, None, &options(64, 64, 0)).unwrap();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    assert_eq!(packed.tokens[0], id("<|im_start|>"));
    let ends = packed
        .tokens
        .iter()
        .filter(|&&token| token == id("<|im_end|>"))
        .count();
    assert_eq!(ends, 1);
    assert_eq!(
        tokenizer.decode(&packed.tokens, true).unwrap(),
        "user\nHello there\n"
    );
}

#[test]
fn a_selection_is_known_by_its_sequences() {
    let corpus = corpus(&[vec![30; 3], vec![30; 3]]);
    let (small, large) = (
        pack(&corpus, &options(8, 96, 5)),
        pack(&corpus, &options(8, 160, 5)),
    );
    let of = |packed: &Sequences, domain: u16| -> Vec<usize> {
        let all = 0..packed.len();
        all.filter(|&index| packed.domains[index] == domain)
            .take(3)
            .collect()
    };
    let selected = small.select(&of(&small, 1));
    let same = large.select(&of(&large, 1));
    assert_eq!(selected.tokens, same.tokens);
    assert_eq!(selected.hash, same.hash);
    assert_eq!((selected.len(), selected.starts.len()), (3, 4));
    assert_eq!(selected.sequence(2), small.sequence(of(&small, 1)[2]));
    assert_eq!(selected.domains, [1, 1, 1]);
    assert_ne!(selected.hash, small.select(&of(&small, 0)).hash);
}

proptest! {
    #[test]
    fn a_larger_budget_has_all_sequences_of_one_that_fills_them(
        lengths in prop::collection::vec(prop::collection::vec(2usize..40, 1..8), 1..4),
        seq_len in 2usize..20,
        windows in 1usize..8,
        more in 0usize..300,
        seed in any::<u64>(),
    ) {
        let corpus = corpus(&lengths);
        // So many full sequences of every domain that has them.
        let budget = windows * seq_len * lengths.len();
        let small = pack(&corpus, &options(seq_len, budget, seed));
        let large = pack(&corpus, &options(seq_len, budget + more, seed));
        for domain in 0..lengths.len() as u16 {
            let of = |packed: &Sequences| -> Vec<Vec<u32>> {
                let all = 0..packed.len();
                all.filter(|&index| packed.domains[index] == domain)
                    .map(|index| packed.sequence(index).to_vec())
                    .collect()
            };
            let (small, large) = (of(&small), of(&large));
            prop_assert!(small.len() <= windows);
            prop_assert_eq!(&large[..small.len()], &small[..]);
        }
    }

    #[test]
    fn no_token_is_used_twice_and_no_limit_is_passed(
        lengths in prop::collection::vec(prop::collection::vec(2usize..40, 1..8), 1..4),
        seq_len in 2usize..50,
        budget in 8usize..400,
        seed in any::<u64>(),
    ) {
        let corpus = corpus(&lengths);
        let options = options(seq_len, budget, seed);
        let packed = pack(&corpus, &options);

        prop_assert!(packed.tokens.len() <= budget);
        prop_assert_eq!(packed.starts.len(), packed.len() + 1);
        prop_assert_eq!(packed.starts.last(), Some(&packed.tokens.len()));
        prop_assert_eq!(packed.document.len(), packed.len());
        for index in 0..packed.len() {
            prop_assert!((2..=seq_len).contains(&packed.sequence(index).len()));
            let documents = packed.documents[usize::from(packed.domains[index])];
            prop_assert!(u64::from(packed.document[index]) < documents);
        }
        let used: Vec<u32> = packed.tokens.iter().copied().filter(|&t| t != SEPARATOR).collect();
        prop_assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len());
        prop_assert_eq!(&packed, &pack(&corpus, &options));
    }

    #[test]
    fn another_seed_gives_another_order(seed in any::<u64>()) {
        let corpus = corpus(&[vec![7; 60]]);
        let one = pack(&corpus, &options(32, 480, seed));
        let other = pack(&corpus, &options(32, 480, seed.wrapping_add(1)));
        prop_assert_ne!(&one.tokens, &other.tokens);
        let sorted = |packed: &Sequences| {
            let mut tokens = packed.tokens.clone();
            tokens.sort_unstable();
            tokens
        };
        prop_assert_eq!(sorted(&one), sorted(&other));
    }
}
