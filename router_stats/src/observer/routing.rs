//! How often and how strongly experts are chosen.

use super::{sums, table, Observer, Shape, Tables};
use crate::forward::{Batch, Event};
use crate::stats::Table;
use crate::Result;

/// N_j, tokens routed to each expert: D × L × E.
pub const COUNT: &str = "routing.count";
/// Σ g_j, gate values applied: D × L × E.
pub const GATE: &str = "routing.gate";
/// Σ g_j²: D × L × E.
pub const GATE_SQ: &str = "routing.gate_sq";
/// Σ p_j over all tokens, chosen or not, where p are the scores before the
/// choice, such as softmax(z): D × L × E.
pub const SOFT_GATE: &str = "routing.soft_gate";
/// Tokens routed to both i and j; the diagonal is N_j: D × L × E × E.
pub const PAIRS: &str = "routing.pairs";

/// See the module documentation.
pub struct Routing;

impl Observer for Routing {
    fn tables(&self, shape: &Shape) -> Vec<(&'static str, Table)> {
        let per_expert = [shape.domains, shape.experts];
        let pairs = [shape.domains, shape.experts, shape.experts];
        let mut tables: Vec<_> = [COUNT, GATE, GATE_SQ, SOFT_GATE]
            .map(|name| (name, sums(per_expert)))
            .into();
        tables.push((PAIRS, sums(pairs)));
        tables
    }

    fn observe(&self, event: &Event<'_>, batch: &Batch, tables: &mut Tables) -> Result<()> {
        let &Event::Routing { routes } = event else {
            return Ok(());
        };
        let experts = routes.expert_count();
        let chosen: Vec<&[u32]> = routes.experts.chunks_exact(routes.top_k).collect();
        let gates: Vec<&[f32]> = routes.gates.chunks_exact(routes.top_k).collect();
        let mut add = |name: &str, row: &dyn Fn(usize, &mut [f64])| {
            let table = table(tables, name);
            for (index, &domain) in batch.domains.iter().enumerate() {
                row(index, table.row_mut(&[usize::from(domain)]));
            }
        };
        let gated = |row: usize| chosen[row].iter().zip(gates[row]);
        add(COUNT, &|row, sums| {
            for &expert in chosen[row] {
                sums[expert as usize] += 1.0;
            }
        });
        add(GATE, &|row, sums| {
            for (&expert, &gate) in gated(row) {
                sums[expert as usize] += f64::from(gate);
            }
        });
        add(GATE_SQ, &|row, sums| {
            for (&expert, &gate) in gated(row) {
                sums[expert as usize] += f64::from(gate) * f64::from(gate);
            }
        });
        add(SOFT_GATE, &|row, sums| {
            let scores = &routes.scores[row * experts..][..experts];
            for (sum, &score) in sums.iter_mut().zip(scores) {
                *sum += f64::from(score);
            }
        });
        let pairs = table(tables, PAIRS);
        for (row, &domain) in batch.domains.iter().enumerate() {
            for &i in chosen[row] {
                let sums = pairs.row_mut(&[usize::from(domain), i as usize]);
                for &j in chosen[row] {
                    sums[j as usize] += 1.0;
                }
            }
        }
        Ok(())
    }
}
