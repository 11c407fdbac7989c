//! How long things take: counts per bucket of seconds.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, in seconds: from a cached prompt to a long
/// answer of a large model on a CPU.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// A distribution of times.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Times in each bucket alone; the last is beyond all bounds.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// Sum in microseconds.
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub(super) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|&bound| bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The mean in seconds; `None` of nothing.
    pub(super) fn mean(&self) -> Option<f64> {
        let count: u64 = self
            .counts
            .iter()
            .map(|it| it.load(Ordering::Relaxed))
            .sum();
        (count > 0).then(|| self.seconds() / count as f64)
    }

    fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Writes it as Prometheus reads it; buckets add up.
    pub(super) fn write(&self, out: &mut String, name: &str, help: &str) -> std::fmt::Result {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram")?;
        let mut total = 0;
        for (index, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            match BOUNDS.get(index) {
                Some(bound) => writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}")?,
                None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}")?,
            }
        }
        writeln!(out, "{name}_sum {}\n{name}_count {total}", self.seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::default();
        assert!(histogram.mean().is_none());
        for seconds in [0.005, 0.3, 1000.0] {
            histogram.observe(Duration::from_secs_f64(seconds));
        }
        let mut text = String::new();
        histogram.write(&mut text, "t", "Times").unwrap();
        for line in [
            "t_bucket{le=\"0.005\"} 1",
            "t_bucket{le=\"0.25\"} 1",
            "t_bucket{le=\"0.5\"} 2",
            "t_bucket{le=\"600\"} 2",
            "t_bucket{le=\"+Inf\"} 3",
            "t_sum 1000.305",
            "t_count 3",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        assert!((histogram.mean().unwrap() - 1000.305 / 3.0).abs() < 1e-9);
    }
}
