//! What it costs: held-out text and tasks.

use prune_eval::figure::{Bar, Domains, Group, Unit};
use prune_eval::page::{Fact, Part, Section};
use prune_eval::report::Model;
use prune_eval::{Estimate, Report};

use super::{figure, section as of, Inputs};
use crate::format;
use crate::pipeline::plan_name;
use crate::Result;

/// The metric of the bars.
pub(super) const CHANGE: &str = "perplexity_change";
/// Most variants that have bars; tables hold them all.
const BARS: usize = 4;

/// Interval of an estimate, as figures have it.
pub(super) fn interval(estimate: &Estimate) -> Option<[f64; 2]> {
    estimate.interval().map(<[f64; 2]>::from)
}

/// The variant that the report is about: the plan's by name, or the only one.
pub(super) fn subject<'a>(inputs: &Inputs, report: &'a Report) -> Option<(usize, &'a Model)> {
    let named = inputs.plan.as_ref().map(|plan| plan_name(&plan.path));
    let mut variants = report.variants.iter().enumerate();
    match report.variants.len() {
        1 => variants.next(),
        _ => variants.find(|(_, model)| Some(&model.name) == named.as_ref()),
    }
}

/// Perplexity, and where it rises most, in words.
pub(super) fn summary(inputs: &Inputs) -> Option<String> {
    let report = inputs.eval()?;
    let (index, model) = subject(inputs, report)?;
    let change = model.estimate(CHANGE, None)?;
    let perplexity = |model: &Model| model.estimate("perplexity", None).map(|it| it.value);
    let tokens: u64 = report.domains().map(|domain| domain.tokens).sum();
    let names: Vec<&str> = report
        .domains()
        .map(|domain| domain.name.as_str())
        .collect();
    let mut text = format!(
        "On {} tokens of held-out text ({}) perplexity goes from {} to {}: {}, a {:.0}% interval.",
        format::count(tokens),
        names.join(", "),
        Unit::Number.value(perplexity(&report.reference)?),
        Unit::Number.value(perplexity(model)?),
        Unit::Change.estimate(change.value, interval(change)),
        100.0 * report.provenance.bootstrap.confidence,
    );
    if change.interval().is_some() && !change.excludes_zero() {
        text.push_str(" That is not distinguishable from no change.");
    }
    if let Some((domain, worst)) = report.worst_domain(index) {
        text.push_str(&format!(
            " It rises most on {domain}: {}.",
            Unit::Change.estimate(worst.value, interval(worst))
        ));
    }
    Some(text)
}

/// Perplexity, agreement, worst domain.
pub(super) fn facts(inputs: &Inputs) -> Vec<Fact> {
    let Some((report, (index, model))) = inputs
        .eval()
        .and_then(|report| Some((report, subject(inputs, report)?)))
    else {
        return Vec::new();
    };
    let bounds = |unit: Unit, estimate: &Estimate| match estimate.interval() {
        Some((low, high)) => format!("[{}, {}]", unit.value(low), unit.value(high)),
        None => String::new(),
    };
    let fact = |name: &str, unit: Unit, estimate: &Estimate| Fact {
        name: name.to_owned(),
        value: unit.value(estimate.value),
        detail: bounds(unit, estimate),
    };
    let mut facts = Vec::new();
    if let Some(change) = model.estimate(CHANGE, None) {
        facts.push(fact("perplexity", Unit::Change, change));
    }
    if let Some((domain, worst)) = report.worst_domain(index) {
        let name = format!("perplexity, {domain}");
        facts.push(fact(&name, Unit::Change, worst));
    }
    if let Some(agreement) = model.estimate("top1_agreement", None) {
        facts.push(fact("top token agrees", Unit::Percent, agreement));
    }
    facts
}

/// Bars by domain, then every table of the evaluation.
pub(super) fn section(inputs: &Inputs) -> Result<Option<Section>> {
    let Some(report) = inputs.eval() else {
        return Ok(None);
    };
    let mut parts = Vec::new();
    if let Some(plot) = domains(inputs, report) {
        parts.push(figure(&plot)?);
    }
    parts.extend(report.tables().into_iter().map(Part::Table));
    Ok(of("What it costs", vec![sentences(&report.facts())], parts))
}

/// Facts as one paragraph.
pub(super) fn sentences(facts: &[String]) -> String {
    let facts: Vec<String> = facts
        .iter()
        .map(|fact| {
            let mut characters = fact.chars();
            let first = characters.next().into_iter().flat_map(char::to_uppercase);
            first.chain(characters).collect()
        })
        .collect();
    if facts.is_empty() {
        return String::new();
    }
    facts.join(". ") + "."
}

fn domains(inputs: &Inputs, report: &Report) -> Option<Domains> {
    let subject = subject(inputs, report).map(|(index, _)| index);
    let mut shown: Vec<usize> = subject.into_iter().collect();
    let others = (0..report.variants.len()).filter(|index| Some(*index) != subject);
    shown.extend(others.take(BARS.saturating_sub(shown.len())));
    let bar = |index: usize, domain: &str| {
        let model = &report.variants[index];
        let change = model.estimate(CHANGE, Some(domain))?;
        Some(Bar {
            name: model.name.clone(),
            value: change.value,
            low: change.low,
            high: change.high,
        })
    };
    let groups: Vec<Group> = report
        .domains()
        .map(|domain| Group {
            domain: domain.name.clone(),
            bars: shown
                .iter()
                .filter_map(|&index| bar(index, &domain.name))
                .collect(),
        })
        .filter(|group| !group.bars.is_empty())
        .collect();
    (!groups.is_empty()).then(|| Domains {
        metric: "change of perplexity".to_owned(),
        unit: Unit::Change,
        confidence: report.provenance.bootstrap.confidence,
        groups,
    })
}
