//! How large the outputs of experts are, over the tokens routed to them.

use super::{sums, table, Observer, Shape, Tables};
use crate::forward::{rows, Batch, Event};
use crate::stats::{Merge, Table};
use crate::Result;

/// Σ ‖f_j(x)‖₂: D × L × E.
pub const NORM: &str = "expert.norm";
/// Σ ‖f_j(x)‖₂²: D × L × E.
pub const NORM_SQ: &str = "expert.norm_sq";
/// Σ g_j(x)·‖f_j(x)‖₂: D × L × E.
pub const GATED_NORM: &str = "expert.gated_norm";
/// Σ (g_j(x)·‖f_j(x)‖₂)²: D × L × E.
pub const GATED_NORM_SQ: &str = "expert.gated_norm_sq";
/// max ‖f_j(x)‖∞: D × L × E.
pub const MAX: &str = "expert.max";
/// Σ f_j(x): D × L × E × H.
pub const OUTPUT: &str = "expert.output";

/// See the module documentation.
pub struct Experts;

impl Observer for Experts {
    fn tables(&self, shape: &Shape) -> Vec<(&'static str, Table)> {
        let per_expert = vec![shape.domains, shape.experts];
        let mut tables: Vec<_> = [NORM, NORM_SQ, GATED_NORM, GATED_NORM_SQ]
            .map(|name| (name, sums(per_expert.clone())))
            .into();
        tables.push((MAX, Table::zeros(per_expert.clone(), Merge::Max)));
        tables.push((OUTPUT, sums([&per_expert[..], &[shape.hidden]].concat())));
        tables
    }

    fn observe(&self, event: &Event<'_>, batch: &Batch, tables: &mut Tables) -> Result<()> {
        let &Event::Expert {
            expert,
            rows,
            gates,
            output,
        } = event
        else {
            return Ok(());
        };
        let domains: Vec<u16> = rows
            .iter()
            .map(|&row| batch.domains[row as usize])
            .collect();
        let norms = rows::norms(output)?;
        let mut add = |name: &str, value: &dyn Fn(f64, f64) -> f64| {
            let table = table(tables, name);
            for ((&domain, &gate), &(norm, _)) in domains.iter().zip(gates).zip(&norms) {
                table.row_mut(&[usize::from(domain)])[expert] +=
                    value(f64::from(gate), f64::from(norm));
            }
        };
        add(NORM, &|_, norm| norm);
        add(NORM_SQ, &|_, norm| norm * norm);
        add(GATED_NORM, &|gate, norm| gate * norm);
        add(GATED_NORM_SQ, &|gate, norm| (gate * norm) * (gate * norm));
        let table_max = table(tables, MAX);
        for (&domain, &(_, max)) in domains.iter().zip(&norms) {
            let seen = &mut table_max.row_mut(&[usize::from(domain)])[expert];
            *seen = seen.max(f64::from(max));
        }
        let outputs = table(tables, OUTPUT);
        let (domain_count, hidden) = (outputs.shape[0], outputs.shape[2]);
        let mut sums = vec![0f64; domain_count * hidden];
        rows::sum_by_group(output, &domains, &mut sums)?;
        for (domain, sums) in sums.chunks_exact(hidden).enumerate() {
            let table = outputs.row_mut(&[domain, expert]);
            table
                .iter_mut()
                .zip(sums)
                .for_each(|(table, sum)| *table += sum);
        }
        Ok(())
    }
}
