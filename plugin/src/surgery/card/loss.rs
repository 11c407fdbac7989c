//! What a model card says of a report.

use prune_eval::Report;

/// Perplexity on held-out text before and after pruning.
#[derive(Debug)]
pub(super) struct Loss {
    /// Tokens it was measured on.
    pub(super) tokens: u64,
    /// Probability that an interval holds its change: 0.95.
    pub(super) confidence: f64,
    /// One row per domain, in the order they are shown.
    pub(super) rows: Vec<DomainLoss>,
}

/// Perplexity of one domain's held-out text before and after pruning.
#[derive(Debug)]
pub(super) struct DomainLoss {
    pub(super) domain: String,
    /// Perplexity of the original model.
    pub(super) before: f64,
    /// Perplexity of the pruned model.
    pub(super) after: f64,
    /// Relative change of perplexity: 0.1 is ten per cent more.
    pub(super) change: f64,
    /// Both ends of the interval of `change`; `None` if the text is too short
    /// for one.
    pub(super) interval: Option<(f64, f64)>,
}

impl Loss {
    /// Of the first variant of `report`, in the domains that have text.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let pruned = report.variants.first()?;
        let rows = report
            .domains()
            .filter_map(|domain| {
                let of = |model: &prune_eval::report::Model, metric| {
                    model.estimate(metric, Some(&domain.name)).copied()
                };
                let change = of(pruned, "perplexity_change")?;
                Some(DomainLoss {
                    domain: domain.name.clone(),
                    before: of(&report.reference, "perplexity")?.value,
                    after: of(pruned, "perplexity")?.value,
                    change: change.value,
                    interval: change.interval(),
                })
            })
            .collect();
        Some(Self {
            tokens: report.domains().map(|domain| domain.tokens).sum(),
            confidence: report.provenance.bootstrap.confidence,
            rows,
        })
    }
}
