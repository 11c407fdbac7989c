//! Small statistics for this crate's tests.

use std::collections::BTreeMap;

use super::{DomainProvenance, Merge, Provenance, Stats, Table};
use crate::observer::{block, expert, routing, span, SEQUENCES, TOKENS};

/// Two domains; layers of 3 and 2 experts and a dense one; hidden size 2. Every
/// entry differs from its neighbours and is exact in decimal.
pub(crate) fn sample() -> Stats {
    let domain = |name: &str, weight, tokens| DomainProvenance {
        name: name.to_owned(),
        weight,
        tokens,
        sequences: tokens / 8,
        documents: tokens / 16,
    };
    let provenance = Provenance {
        model: "tiny".to_owned(),
        fingerprint: "0f".repeat(32),
        family: "qwen3_moe".to_owned(),
        corpus: "a1".repeat(32),
        domains: vec![domain("code", 1.0, 64), domain("prose", 0.25, 96)],
        seq_len: 16,
        batch_tokens: 32,
        seed: 42,
        experts: vec![3, 2, 0],
        top_k: 1,
        hidden: 2,
        shards: vec![[0, 1]],
        created_by: "router-stats 0.1.0".to_owned(),
    };
    let mut tables: BTreeMap<String, Table> = shapes()
        .into_iter()
        .enumerate()
        .map(|(position, (name, shape))| {
            let merge = if name == expert::MAX {
                Merge::Max
            } else {
                Merge::Sum
            };
            let mut table = Table::zeros(shape, merge);
            for (index, value) in table.values.iter_mut().enumerate() {
                *value = position as f64 + index as f64 * 0.125;
            }
            (name.to_owned(), table)
        })
        .collect();
    for (name, values) in [(TOKENS, vec![64.0, 96.0]), (SEQUENCES, vec![8.0, 12.0])] {
        tables.insert(
            name.to_owned(),
            Table {
                shape: vec![2],
                values,
                merge: Merge::Sum,
            },
        );
    }
    Stats { provenance, tables }
}

/// Name and shape of every table but the two per domain.
fn shapes() -> Vec<(&'static str, Vec<usize>)> {
    let per_expert = [
        routing::COUNT,
        routing::GATE,
        routing::GATE_SQ,
        routing::SOFT_GATE,
        expert::NORM,
        expert::NORM_SQ,
        expert::GATED_NORM,
        expert::GATED_NORM_SQ,
        expert::MAX,
    ];
    let mut shapes: Vec<_> = per_expert.map(|name| (name, vec![2, 3, 3])).into();
    shapes.extend([
        (routing::PAIRS, vec![2, 3, 3, 3]),
        (expert::OUTPUT, vec![2, 3, 3, 2]),
        (block::COS, vec![2, 3, 3]),
        (block::ANGLE, vec![2, 3, 3]),
        (span::ANGLE, vec![2, 4, 4]),
    ]);
    shapes
}
