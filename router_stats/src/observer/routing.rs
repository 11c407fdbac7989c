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
/// Σ softmax(z)_j over all tokens, chosen or not: D × L × E.
pub const SOFT_GATE: &str = "routing.soft_gate";
/// Tokens routed to both i and j; the diagonal is N_j: D × L × E × E.
pub const PAIRS: &str = "routing.pairs";

/// See the module documentation.
pub struct Routing;

impl Observer for Routing {
    fn tables(&self, shape: &Shape) -> Vec<(&'static str, Table)> {
        let per_expert = [shape.domains, shape.layers, shape.experts];
        let pairs = [shape.domains, shape.layers, shape.experts, shape.experts];
        let mut tables: Vec<_> = [COUNT, GATE, GATE_SQ, SOFT_GATE]
            .map(|name| (name, sums(per_expert)))
            .into();
        tables.push((PAIRS, sums(pairs)));
        tables
    }

    fn observe(&self, event: &Event<'_>, batch: &Batch, tables: &mut Tables) -> Result<()> {
        let &Event::Routing { layer, routes } = event else {
            return Ok(());
        };
        let experts = routes.expert_count();
        let chosen = || routes.experts.chunks_exact(routes.top_k);
        let gates = || routes.gates.chunks_exact(routes.top_k);
        let mut add = |name: &str, row: &mut dyn FnMut(usize, &mut [f64])| {
            let table = table(tables, name);
            for (index, &domain) in batch.domains.iter().enumerate() {
                row(index, table.row_mut(&[usize::from(domain), layer]));
            }
        };
        let chosen: Vec<&[u32]> = chosen().collect();
        let gates: Vec<&[f32]> = gates().collect();
        add(COUNT, &mut |row, sums| {
            chosen[row]
                .iter()
                .for_each(|&expert| sums[expert as usize] += 1.0);
        });
        add(GATE, &mut |row, sums| {
            for (&expert, &gate) in chosen[row].iter().zip(gates[row]) {
                sums[expert as usize] += f64::from(gate);
            }
        });
        add(GATE_SQ, &mut |row, sums| {
            for (&expert, &gate) in chosen[row].iter().zip(gates[row]) {
                sums[expert as usize] += f64::from(gate) * f64::from(gate);
            }
        });
        add(SOFT_GATE, &mut |row, sums| {
            for (sum, &score) in sums
                .iter_mut()
                .zip(&routes.scores[row * experts..][..experts])
            {
                *sum += f64::from(score);
            }
        });
        add(PAIRS, &mut |row, sums| {
            let width = (sums.len() as f64).sqrt() as usize;
            for &i in chosen[row] {
                for &j in chosen[row] {
                    sums[i as usize * width + j as usize] += 1.0;
                }
            }
        });
        Ok(())
    }
}
