//! The terms of a prediction, with what each is.

use super::{Memory, Traffic};
use crate::format;

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What it is called.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// What it is.
    pub about: String,
}

/// The terms of `memory`, which add up to its [peak](Memory::peak) but for the
/// last, that peak. `weights` says how they are stored.
pub fn terms(memory: &Memory, traffic: Traffic, weights: &str) -> Vec<Term> {
    let Traffic { sequences, tokens } = traffic;
    let term = |name, bytes, about: String| Term { name, bytes, about };
    let work = if memory.prompt >= memory.step {
        let rows = format::count((sequences * tokens) as u64);
        format!("a step over {rows} tokens of prompts at once")
    } else {
        "a step while the cache is copied".to_owned()
    };
    let mut terms = vec![
        term(
            "program",
            memory.program,
            "mapped pages of the program".to_owned(),
        ),
        term(
            "engine",
            memory.engine,
            "tokenizer, runtime, threads; measured".to_owned(),
        ),
        term("weights", memory.weights, weights.to_owned()),
        term("positions", memory.positions, "rotary tables".to_owned()),
    ];
    if memory.loading > memory.cache + memory.work() {
        terms.push(term(
            "loading",
            memory.loading,
            "layers being rearranged".to_owned(),
        ));
    } else {
        let each = format!(
            "{sequences} × {} tokens (--max-seqs, --max-seq-len)",
            format::count(tokens as u64)
        );
        terms.push(term("cache", memory.cache, each));
        terms.push(term("work", memory.work(), work));
    }
    terms.push(term("together", memory.peak(), String::new()));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_add_up() {
        let mut memory = Memory {
            program: 1,
            engine: 2,
            weights: 4,
            positions: 8,
            cache: 16,
            prompt: 32,
            step: 31,
            loading: 1,
            scored: 0,
        };
        let traffic = Traffic {
            sequences: 2,
            tokens: 512,
        };
        for loading in [1, 1000] {
            memory.loading = loading;
            let terms = terms(&memory, traffic, "f32");
            let (together, parts) = terms.split_last().unwrap();
            assert_eq!(
                parts.iter().map(|term| term.bytes).sum::<u64>(),
                together.bytes
            );
            assert_eq!(together.bytes, memory.peak());
        }
        assert!(terms(&memory, traffic, "f32")
            .iter()
            .all(|term| term.name != "cache"));
    }
}
