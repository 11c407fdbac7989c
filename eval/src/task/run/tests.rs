//! A backend that answers by rule, and the native one on a small checkpoint.

use router_stats::progress::Silent;
use serde_json::json;
use tokenizers::Tokenizer;

use super::*;
use crate::backend::testing::{tokenizer, END};
use crate::backend::{Finish, Generation, Native};
use crate::evaluate::tests::{model, variant};

/// Gives every token −its id/10, calls even ids greedy, and continues every
/// prompt with the same text.
struct Rule {
    tokenizer: Tokenizer,
    text: &'static str,
    lose: bool,
    infinite: bool,
}

fn rule(text: &'static str) -> Rule {
    Rule {
        tokenizer: tokenizer(),
        text,
        lose: false,
        infinite: false,
    }
}

impl Backend for Rule {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn end_of_text(&self) -> &[u32] {
        &[END]
    }

    fn score(&mut self, sequences: &[Vec<u32>], _: &dyn Progress) -> Result<Vec<Vec<TokenScore>>> {
        let score = |&token: &u32| TokenScore {
            ln_p: if self.infinite {
                f32::NEG_INFINITY
            } else {
                token as f32 / -10.0
            },
            greedy: token % 2 == 0,
        };
        let first = 1 + usize::from(self.lose);
        Ok(sequences
            .iter()
            .map(|tokens| tokens[first..].iter().map(score).collect())
            .collect())
    }

    fn generate(&mut self, prompts: &[Prompt], _: &dyn Progress) -> Result<Vec<Generation>> {
        let generation = |prompt: &Prompt| Generation {
            text: self.text.to_owned(),
            tokens: prompt.max_tokens,
            finish: Finish::Length,
        };
        Ok(prompts.iter().map(generation).collect())
    }
}

fn set(records: &[serde_json::Value]) -> TaskSet {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.jsonl");
    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    TaskSet::read(path.to_str().unwrap(), None).unwrap()
}

fn id(text: &str) -> f64 {
    f64::from(tokenizer().token_to_id(text).unwrap())
}

#[test]
fn only_the_continuation_is_summed() {
    let set = set(&[
        json!({"context": "a b", "continuation": "c"}),
        json!({"context": "", "continuation": "z"}),
    ]);
    let found = run_task(&mut rule(""), &set, &Silent).unwrap();
    assert_eq!(found.task, "set");
    for (item, token) in found.items.iter().zip(["Ġc", "Ġz"]) {
        assert!((item[1] - id(token) / 10.0).abs() < 1e-6);
        assert_eq!(item[0], f64::from(u8::from(id(token) % 2.0 == 0.0)));
    }
}

#[test]
fn answers_go_to_their_items_in_order() {
    let prompt = |answer: &str| json!({"prompt": "2 + 2 =", "answer": answer});
    let set = set(&[prompt("4"), prompt("5"), prompt("4")]);
    let found = run_tasks(&mut rule(" 4"), std::slice::from_ref(&set), &Silent).unwrap();
    let matches: Vec<f64> = found[0].items.iter().map(|item| item[0]).collect();
    assert_eq!(matches, [1.0, 0.0, 1.0]);
    let bits = |item: usize| found[0].items[item][2];
    let expected = |token: &str| id(token) / 10.0 / (std::f64::consts::LN_2 * 2.0);
    assert!((bits(0) - expected("Ġ4")).abs() < 1e-6);
    assert!((bits(1) - expected("Ġ5")).abs() < 1e-6);
}

#[test]
fn missing_and_infinite_answers_are_refused() {
    let set = set(&[json!({"context": "a b", "continuation": "c"})]);
    let mut losing = rule("");
    losing.lose = true;
    let error = run_task(&mut losing, &set, &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "answers to `set`: expected 2 scores of a sequence, found 1"
    );
    let mut infinite = rule("");
    infinite.infinite = true;
    let error = run_task(&mut infinite, &set, &Silent).unwrap_err();
    assert!(error.to_string().contains("found -inf"), "{error}");
}

#[test]
fn every_kind_and_every_synthetic_set_runs_natively() {
    let (_dir, model) = model(tokenizer().get_vocab_size(true));
    let variant = variant("v", &model, None);
    let mut native = Native::new(&variant, tokenizer(), &[END], 256);
    let mut sets: Vec<TaskSet> = ["arithmetic", "brackets", "copy"]
        .map(|name| TaskSet::make(name, 2, 1).unwrap())
        .into();
    sets.push(set(&[
        json!({"query": "Q", "choices": ["a", "b c"], "gold": 0}),
        json!({"query": "", "choices": ["a", "b c"], "gold": 1}),
    ]));
    sets.push(set(&[
        json!({"contexts": ["a", "b"], "continuation": " c d", "gold": 0}),
    ]));
    sets.push(set(&[json!({"context": "a b", "continuation": "c"})]));
    for (set, outcomes) in sets
        .iter()
        .zip(run_tasks(&mut native, &sets, &Silent).unwrap())
    {
        assert_eq!(outcomes.items.len(), set.records.len());
        for item in outcomes.items {
            assert_eq!(item.len(), set.kind.metrics().len());
            assert!(item.iter().all(|outcome| outcome.is_finite()), "{item:?}");
        }
    }
}
