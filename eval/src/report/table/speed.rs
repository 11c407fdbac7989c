//! How fast the models of a report are.

use super::Block;
use crate::report::format::{rounded, thousands};
use crate::report::Report;
use crate::speed::{Measured, ModelSpeed};

impl Report {
    /// Speed and memory of every model, if they were measured.
    pub(super) fn speeds(&self) -> Option<Block> {
        let speed = self.speed.as_ref()?;
        let header = [
            "",
            "prefill tok/s",
            "decode tok/s",
            "first token s",
            "peak memory",
            "weights",
        ];
        Some(Block {
            title: format!("speed ({}; median of rounds)", speed.engine),
            header: header.map(str::to_owned).to_vec(),
            rows: speed.models.iter().map(row).collect(),
        })
    }
}

fn row(model: &ModelSpeed) -> Vec<String> {
    let megabytes = |bytes: u64| format!("{} MB", thousands(bytes.div_ceil(1_000_000)));
    vec![
        model.name.clone(),
        cell(&model.prefill),
        cell(&model.decode),
        cell(&model.first_token),
        model.peak_resident.map_or("?".to_owned(), megabytes),
        megabytes(model.weights),
    ]
}

/// `812 ×1.21 [1.18, 1.25]`: the median, and against the reference the ratio
/// with its interval, or of the reference the interval of the median.
fn cell(measured: &Measured) -> String {
    let shown = |value: f64| {
        let digits = if value >= 100.0 { 0 } else { 3 };
        rounded(value, digits).to_string()
    };
    let mut text = shown(measured.median.value);
    let interval = match measured.ratio {
        None => measured.median.interval(),
        Some(ratio) => {
            text += &format!(" ×{:.2}", ratio.value);
            ratio.interval()
        }
    };
    if let Some((low, high)) = interval {
        text += &format!(" [{}, {}]", shown(low), shown(high));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::report::tests::sample;
    use crate::speed::{Round, Speed, Timing};

    #[test]
    fn speeds_are_listed_with_their_ratios() {
        let mut report = sample(&[("half", 0.1)]);
        assert!(report.speeds().is_none());
        let rounds = |first: f64| {
            let timing = Timing {
                prompt: 128,
                generated: 33,
                first,
                rest: 2.0,
            };
            let round = Round {
                timings: vec![timing],
                peak_resident: Some(2_500_000),
            };
            vec![round; 6]
        };
        let models = vec![
            ("original".to_owned(), 2_000_000, rounds(0.5)),
            ("half".to_owned(), 1_000_000, rounds(0.25)),
        ];
        report.speed = Some(Speed::new("here".to_owned(), 0.95, models));
        let rows = report.speeds().unwrap().rows;
        assert_eq!(
            rows[0],
            [
                "original",
                "256 [256, 256]",
                "16 [16, 16]",
                "0.5 [0.5, 0.5]",
                "3 MB",
                "2 MB"
            ]
        );
        assert_eq!(rows[1][1], "512 ×2.00 [2, 2]");
        assert!(report.to_text(100).contains("×2.00"));
    }
}
