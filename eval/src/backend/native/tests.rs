//! Scores and continuations of a small checkpoint, against naive arithmetic.

use std::sync::atomic::{AtomicU64, Ordering};

use router_stats::family::Keep;
use router_stats::forward::Model;
use router_stats::progress::Silent;

use super::*;
use crate::backend::testing::{tokenizer, END};
use crate::evaluate::tests::{model, variant, without_an_expert};

fn vocab() -> usize {
    tokenizer().get_vocab_size(true)
}

/// Logits [tokens][V] of one sequence in f64.
fn naive(model: &Model, keep: Option<&Keep>, tokens: &[u32]) -> Vec<Vec<f64>> {
    let sequence = pack(&[tokens.to_vec()]);
    let hidden = model.hidden_states(&sequence, keep, 64, &Silent).unwrap();
    let logits = model.logits(&model.head().unwrap(), &hidden[0]).unwrap();
    let rows: Vec<Vec<f32>> = logits.to_vec2().unwrap();
    rows.into_iter()
        .map(|row| row.into_iter().map(f64::from).collect())
        .collect()
}

fn argmax(logits: &[f64]) -> u32 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().position(|&z| z == largest).unwrap() as u32
}

fn sequences() -> Vec<Vec<u32>> {
    (0..7u32)
        .map(|s| {
            (0..2 + s * 5)
                .map(|i| (i * i * 3 + s * 11) % vocab() as u32)
                .collect()
        })
        .collect()
}

#[test]
fn scores_are_those_of_a_full_softmax() {
    let (_dir, model) = model(vocab());
    for keep in [None, Some(without_an_expert(&model))] {
        let variant = variant("v", &model, keep.clone());
        let mut native = Native::new(&variant, tokenizer(), &[END], 16);
        let found = native.score(&sequences(), &Silent).unwrap();
        assert_eq!(found.len(), sequences().len());
        let mut greedy = 0;
        for (tokens, found) in sequences().iter().zip(found) {
            let logits = naive(&model, keep.as_ref(), tokens);
            assert_eq!(found.len(), tokens.len() - 1);
            for ((row, &target), found) in logits.iter().zip(&tokens[1..]).zip(found) {
                let sum: f64 = row.iter().map(|z| z.exp()).sum();
                let expected = row[target as usize] - sum.ln();
                assert!(
                    (f64::from(found.ln_p) - expected).abs() < 1e-5,
                    "{found:?} {expected}"
                );
                assert_eq!(found.greedy, argmax(row) == target);
                greedy += u32::from(found.greedy);
            }
        }
        assert!(greedy < 20);
    }
}

/// `tokens` and what step-by-step argmax appends.
fn continued(model: &Model, tokens: &[u32], steps: usize) -> Vec<u32> {
    let mut tokens = tokens.to_vec();
    for _ in 0..steps {
        let logits = naive(model, None, &tokens);
        tokens.push(argmax(&logits[tokens.len() - 1]));
    }
    tokens
}

fn prompt(tokens: &[u32], stop: &[&str], max_tokens: usize) -> Prompt {
    Prompt {
        tokens: tokens.to_vec(),
        stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
        max_tokens,
    }
}

#[test]
fn generation_is_step_by_step_argmax() {
    let (_dir, model) = model(vocab());
    let variant = variant("v", &model, None);
    let mut native = Native::new(&variant, tokenizer(), &[], 16);
    let prompts = [
        prompt(&[5, 9, 70], &[], 6),
        prompt(&[33], &[], 3),
        prompt(&[8, 8], &[], 0),
    ];
    let found = native.generate(&prompts, &Silent).unwrap();
    for (prompt, found) in prompts.iter().zip(&found) {
        let all = continued(&model, &prompt.tokens, prompt.max_tokens);
        let text = tokenizer()
            .decode(&all[prompt.tokens.len()..], true)
            .unwrap();
        let expected = Generation {
            text,
            tokens: prompt.max_tokens,
            finish: Finish::Length,
        };
        assert_eq!(found, &expected);
    }
    assert!(!found[0].text.is_empty() && found[2].text.is_empty());
}

#[test]
fn stop_strings_and_end_of_text_end_it() {
    let (_dir, model) = model(vocab());
    let variant = variant("v", &model, None);
    let mut free = Native::new(&variant, tokenizer(), &[], 64);
    let whole = free
        .generate(&[prompt(&[5, 9, 70], &[], 8)], &Silent)
        .unwrap()
        .remove(0);
    let all = continued(&model, &[5, 9, 70], 8);

    // The last character that did not come before.
    let (at, stop) = whole
        .text
        .char_indices()
        .rfind(|&(at, c)| at > 0 && !c.is_whitespace() && whole.text.find(c) == Some(at))
        .unwrap();
    let stopped = free
        .generate(
            &[prompt(&[5, 9, 70], &["never", &stop.to_string()], 8)],
            &Silent,
        )
        .unwrap()
        .remove(0);
    assert_eq!(
        (stopped.text.as_str(), stopped.finish),
        (&whole.text[..at], Finish::Stop)
    );

    let end = all[5];
    let first = all[3..].iter().position(|&token| token == end).unwrap();
    let mut ending = Native::new(&variant, tokenizer(), &[end], 64);
    let ended = ending
        .generate(&[prompt(&[5, 9, 70], &[], 8)], &Silent)
        .unwrap()
        .remove(0);
    let text = tokenizer().decode(&all[3..3 + first], true).unwrap();
    let expected = Generation {
        text,
        tokens: first + 1,
        finish: Finish::Stop,
    };
    assert_eq!(ended, expected);
}

#[test]
fn parts_hold_every_sequence_once() {
    let sequences = sequences();
    for most in [1, 20, 1000] {
        let parts = parts(&sequences, most);
        let indices: Vec<usize> = parts.iter().cloned().flatten().collect();
        assert_eq!(indices, (0..sequences.len()).collect::<Vec<_>>());
        for part in &parts {
            let tokens: usize = sequences[part.clone()].iter().map(Vec::len).sum();
            assert!(tokens <= most || part.len() == 1);
        }
    }
    assert_eq!(parts(&sequences, 1000).len(), 1);
}

#[test]
fn too_short_and_foreign_sequences_are_refused() {
    let (_dir, model) = model(vocab());
    let variant = variant("v", &model, None);
    let mut native = Native::new(&variant, tokenizer(), &[END], 64);
    let error = native.score(&[vec![1, 2], vec![1]], &Silent).unwrap_err();
    assert!(error.to_string().contains("at least 2 tokens"), "{error}");
    assert!(native.generate(&[prompt(&[], &[], 1)], &Silent).is_err());
    let error = native.score(&[vec![1, 60_000]], &Silent).unwrap_err();
    assert!(error.to_string().contains("60000"), "{error}");
    assert!(native.score(&[], &Silent).unwrap().is_empty());
}

#[test]
fn progress_covers_every_token_and_stops_the_work() {
    struct Count(AtomicU64, AtomicU64, bool);
    impl Progress for Count {
        fn update(&self, update: &Update<'_>) {
            self.0.fetch_max(update.done, Ordering::Relaxed);
            self.1.store(update.total, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.2
        }
    }
    let (_dir, model) = model(vocab());
    let variant = variant("v", &model, None);
    let mut native = Native::new(&variant, tokenizer(), &[END], 16);
    let count = Count(AtomicU64::new(0), AtomicU64::new(0), false);
    native.score(&sequences(), &count).unwrap();
    let tokens = sequences().iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(count.0.into_inner(), tokens);
    assert_eq!(count.1.into_inner(), tokens);
    let stop = Count(AtomicU64::new(0), AtomicU64::new(0), true);
    assert!(native.score(&sequences(), &stop).is_err());
    assert!(native.generate(&[prompt(&[1], &[], 2)], &stop).is_err());
}
