//! How much blocks and their sublayers turn the residual stream.

use super::{sums, table, Observer, Shape, Tables};
use crate::forward::{rows, Batch, BlockPart, Event};
use crate::stats::Table;
use crate::Result;

/// Σ cos(x_in, x_out) over tokens, for block, attention and MLP
/// ([`BlockPart`]): D × L × 3. Block influence is 1 − its mean (ShortGPT,
/// arXiv 2403.03853).
pub const COS: &str = "block.cos";
/// Σ arccos(cos(x_in, x_out))/π over the last token of each sequence: D × L × 3.
pub const ANGLE: &str = "block.angle";

/// See the module documentation.
pub struct Blocks;

impl Observer for Blocks {
    fn tables(&self, shape: &Shape) -> Vec<(&'static str, Table)> {
        [COS, ANGLE]
            .map(|name| (name, sums([shape.domains, BlockPart::COUNT])))
            .into()
    }

    fn observe(&self, event: &Event<'_>, batch: &Batch, tables: &mut Tables) -> Result<()> {
        let &Event::Residual {
            part,
            input,
            output,
        } = event
        else {
            return Ok(());
        };
        let cosines = rows::cosines(input, output)?;
        let cos = table(tables, COS);
        for (&domain, &cosine) in batch.domains.iter().zip(&cosines) {
            cos.row_mut(&[usize::from(domain)])[part as usize] += f64::from(cosine);
        }
        let angle = table(tables, ANGLE);
        for sequence in batch.sequences() {
            let last = sequence.end - 1;
            let domain = usize::from(batch.domains[last]);
            angle.row_mut(&[domain])[part as usize] += super::span::angle(f64::from(cosines[last]));
        }
        Ok(())
    }
}
