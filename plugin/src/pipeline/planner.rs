//! Statistics, and text where a criterion measures → a planner.

use router_stats::calibration::{Corpus, PackOptions, Sequences};
use router_stats::family::Keep;
use router_stats::stats::Stats;

use super::{texts, Model, Reporter};
use crate::cache::Cache;
use crate::format;
use crate::layers::Evidence;
use crate::plan::{self, PlanOptions, Planner};
use crate::search::{Journal, Objective, SearchText, SEARCH_TOKENS};
use crate::{Error, Result};

/// Calibration text to measure candidates on, and how it is packed. Of its
/// budget a measurement takes the part that it needs: the first sequences of
/// every domain.
#[derive(Debug, Clone, Copy)]
pub struct SearchOn<'a> {
    /// The text.
    pub corpus: &'a Corpus,
    /// How it was packed for the statistics.
    pub pack: &'a PackOptions,
}

/// What a plan is decided from.
#[derive(Debug, Clone, Copy)]
pub struct Grounds<'a> {
    /// Statistics of the whole model.
    pub stats: &'a Stats,
    /// Text for what measures candidates; `None` refuses that.
    pub text: Option<SearchOn<'a>>,
}

impl<'a> Grounds<'a> {
    /// The text.
    ///
    /// # Errors
    /// [`Error::Option`] if there is none.
    pub(super) fn expect_text(self) -> Result<SearchOn<'a>> {
        self.text.ok_or_else(|| Error::Option {
            option: "--calibration",
            expected: "text to run candidates on".to_owned(),
            found: "statistics alone".to_owned(),
        })
    }
}

/// A planner of `model`: which layers and sublayers go is decided. A criterion
/// that measures does so on [`SEARCH_TOKENS`] of the text; what it measured is in
/// the cache, so that it goes on where it was stopped.
///
/// # Errors
/// Those of [`Planner::new`] and of measuring.
pub fn planner<'a>(
    model: &'a Model,
    grounds: Grounds<'a>,
    options: &'a PlanOptions,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Planner<'a>> {
    let new = |evidence: Evidence<'a, '_>| {
        Planner::new(
            evidence,
            model.checkpoint(),
            model.family(),
            model.topology(),
            options,
        )
    };
    let Grounds { stats, text } = grounds;
    let passes = plan::measurements(options, model.topology())?;
    if passes == 0 || text.is_none() {
        return new(stats.into());
    }
    let text = search_text(model, mixture(stats, options)?, grounds, SEARCH_TOKENS)?;
    let journal = Journal::open(cache, &text.header()?, reporter)?;
    let mut objective = Objective::new(&text, journal, None, reporter);
    let mut cost = |keep: &Keep| {
        objective.describe(options.layer_criterion.clone(), passes);
        Ok(objective.measure(keep)?.nll)
    };
    let planner = new(Evidence {
        stats,
        cost: Some(&mut cost),
    })?;
    let said = format!(
        "{} candidates of {} on {} calibration tokens, {} of them before",
        format::count(objective.asked() as u64),
        options.layer_criterion,
        format::count(text.tokens() as u64),
        format::count((objective.asked() - objective.measured()) as u64)
    );
    reporter.report("Measured", &said);
    Ok(planner)
}

/// The domains of `stats` with their weights under `options`, before they are
/// balanced.
///
/// # Errors
/// Those of [`Planner::new`] about domains.
pub(super) fn mixture<'s>(stats: &'s Stats, options: &PlanOptions) -> Result<Vec<(&'s str, f64)>> {
    let weights = plan::weights(stats, options)?;
    let domains = stats.provenance.domains.iter().zip(weights);
    let domains = domains.map(|(domain, weight)| (domain.name.as_str(), weight));
    Ok(domains.collect())
}

/// The model, and the text that [`packed`] gives.
///
/// # Errors
/// Those of [`packed`].
pub(super) fn search_text<'a>(
    model: &'a Model,
    domains: Vec<(&str, f64)>,
    grounds: Grounds<'_>,
    tokens: usize,
) -> Result<SearchText<'a>> {
    let sequences = packed(model, domains, grounds, tokens)?;
    Ok(SearchText::new(
        &model.forward,
        sequences,
        &model.companions,
    ))
}

/// The text of `domains`, which are given with their weights: `tokens` of it at
/// most.
///
/// # Errors
/// [`Error::Option`] if there is no text, or it lacks a domain that weighs
/// anything; those of packing.
pub(super) fn packed(
    model: &Model,
    domains: Vec<(&str, f64)>,
    grounds: Grounds<'_>,
    tokens: usize,
) -> Result<Sequences> {
    let on = grounds.expect_text()?;
    let weighing: Vec<_> = domains.into_iter().filter(|(_, it)| *it > 0.0).collect();
    let found = |name: &str| on.corpus.domains.iter().find(|domain| domain.name == name);
    let mut corpus = Corpus::default();
    for &(name, weight) in &weighing {
        let Some(text) = found(name) else {
            let expected: Vec<_> = weighing.iter().map(|&(name, _)| name).collect();
            let domains = on.corpus.domains.iter();
            let there: Vec<_> = domains.map(|domain| domain.name.as_str()).collect();
            return Err(Error::Option {
                option: "--calibration",
                expected: format!(
                    "text of the domains of the statistics: {}",
                    expected.join(", ")
                ),
                found: there.join(", "),
            });
        };
        let mut text = text.clone();
        text.weight = weight;
        corpus.domains.push(text);
    }
    let pack = PackOptions {
        tokens: tokens.min(on.pack.tokens),
        ..on.pack.clone()
    };
    texts::sequences(&corpus, model, &pack)
}
