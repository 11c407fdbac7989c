//! What the models of a report weigh.

use super::Block;
use crate::evaluator::Unit;
use crate::report::format::{number, thousands};
use crate::report::{Model, Report};

impl Report {
    /// Bytes of every model whose bytes are known; `None` unless the
    /// reference's and a variant's are.
    pub(super) fn sizes(&self) -> Option<Block> {
        let whole = self.reference.bytes?;
        let row = |model: &Model| {
            let bytes = model.bytes?;
            let share = bytes as f64 / whole as f64;
            Some(vec![
                model.name.clone(),
                thousands(bytes),
                number(Unit::Percent, false, share),
            ])
        };
        let models = std::iter::once(&self.reference).chain(&self.variants);
        let rows: Vec<Vec<String>> = models.filter_map(row).collect();
        (rows.len() > 1).then(|| Block {
            title: "weights".to_owned(),
            header: ["", "bytes", "of the reference"]
                .map(str::to_owned)
                .to_vec(),
            rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tests::sample;

    #[test]
    fn models_of_known_size_are_listed() {
        let mut report = sample(&[("q4k", 0.1), ("served", 0.2), ("half", 0.3)]);
        assert!(report.sizes().is_none());
        report.reference.bytes = Some(2_000_000);
        assert!(report.sizes().is_none());
        report.variants[0].bytes = Some(562_500);
        report.variants[2].bytes = Some(1_000_000);
        let block = report.sizes().unwrap();
        let rows: Vec<String> = block.rows.iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            rows,
            [
                "original 2,000,000 100.0%",
                "q4k 562,500 28.1%",
                "half 1,000,000 50.0%"
            ]
        );
        assert!(report.to_text(80).contains("562,500"));
    }
}
