//! Metrics as Prometheus reads them: text format 0.0.4.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::PoisonError;

use super::Metrics;

/// The media type.
pub(in super::super) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// All of it, with the memory of the process in bytes where it is known.
    pub(in super::super) fn text(&self, resident: Option<u64>) -> String {
        let mut out = String::with_capacity(4096);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, resident);
        out
    }

    fn write(&self, out: &mut String, resident: Option<u64>) -> std::fmt::Result {
        let name = "mistralrs_prune_requests_total";
        head(
            out,
            name,
            "counter",
            "Finished requests by route and status",
        )?;
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for ((route, status), count) in requests {
            writeln!(
                out,
                "{name}{{route=\"{route}\",status=\"{status}\"}} {count}"
            )?;
        }
        let name = "mistralrs_prune_rejected_total";
        head(
            out,
            name,
            "counter",
            "Requests turned away before the model saw them",
        )?;
        for (why, count) in ["queue", "time", "body"].iter().zip(&self.rejected) {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{name}{{reason=\"{why}\"}} {count}")?;
        }
        let (prompt, completion) = self.tokens();
        for (name, kind, help, value) in [
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of answered prompts",
                prompt,
            ),
            (
                "completion_tokens_total",
                "counter",
                "Tokens generated",
                completion,
            ),
            (
                "in_flight",
                "gauge",
                "Requests that have a slot",
                self.running(),
            ),
            (
                "queued",
                "gauge",
                "Requests that wait for a slot",
                self.queued(),
            ),
        ] {
            let name = format!("mistralrs_prune_{name}");
            head(out, &name, kind, help)?;
            writeln!(out, "{name} {value}")?;
        }
        self.latency.write(
            out,
            "mistralrs_prune_answer_seconds",
            "Time from a request to the end of the model's answer",
        )?;
        self.first_token.write(
            out,
            "mistralrs_prune_first_token_seconds",
            "Time from a request to the first token of the answer",
        )?;
        let name = "mistralrs_prune_uptime_seconds";
        head(out, name, "gauge", "Time since the model was loaded")?;
        writeln!(out, "{name} {}", self.uptime())?;
        if let Some(resident) = resident {
            let name = "process_resident_memory_bytes";
            head(out, name, "gauge", "Resident memory")?;
            writeln!(out, "{name} {resident}")?;
        }
        let name = "mistralrs_prune_build_info";
        head(
            out,
            name,
            "gauge",
            "Versions of this program and of mistral.rs",
        )?;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(out, "{name}{{version=\"{version}\",engine=\"0.8.1\"}} 1")
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Rejection;
    use super::*;

    #[test]
    fn every_sample_has_a_type() {
        let metrics = Metrics::new();
        metrics.request("/v1/models", 200);
        metrics.request("/v1/models", 200);
        metrics.request("other", 404);
        metrics.reject(Rejection::Time);
        metrics.answer(
            Duration::from_millis(20),
            Some(Duration::from_millis(7)),
            12,
        );
        metrics.generated(8);
        let text = metrics.text(Some(1024));
        for line in [
            "mistralrs_prune_requests_total{route=\"/v1/models\",status=\"200\"} 2",
            "mistralrs_prune_requests_total{route=\"other\",status=\"404\"} 1",
            "mistralrs_prune_rejected_total{reason=\"time\"} 1",
            "mistralrs_prune_prompt_tokens_total 12",
            "mistralrs_prune_completion_tokens_total 8",
            "mistralrs_prune_first_token_seconds_count 1",
            "process_resident_memory_bytes 1024",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let end = line.find(['{', ' ']).unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| line[..end].strip_suffix(suffix))
                .unwrap_or(&line[..end]);
            assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok());
        }
    }
}
