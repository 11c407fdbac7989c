//! Which side is ahead in how much of the text, as a table.

use super::Block;
use crate::report::format::{p_value, thousands};
use crate::report::Report;

impl Report {
    /// How many clusters every variant predicts worse than the reference, p-values
    /// corrected for the number of variants; `None` without variants.
    pub(super) fn sign_tests(&self) -> Option<Block> {
        let column = *self.columns().first()?;
        let rows: Vec<Vec<String>> = self
            .variants
            .iter()
            .filter_map(|variant| {
                let compared = self.comparison(&variant.name, &self.reference.name, column)?;
                Some(vec![
                    variant.name.clone(),
                    thousands(compared.worse),
                    thousands(compared.better),
                    p_value(compared.sign.adjusted),
                ])
            })
            .collect();
        (!rows.is_empty()).then(|| Block {
            title: "clusters predicted worse and better than by the reference (sign test)"
                .to_owned(),
            header: ["", "worse", "better", "p"].map(str::to_owned).to_vec(),
            rows,
        })
    }
}
