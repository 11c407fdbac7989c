//! Files → a page: what was removed, what it costs, and where the numbers come
//! from.
//!
//! Owns what a report says and in which order. Figures and HTML belong to
//! [`prune_eval::figure`] and [`prune_eval::page`]; nothing is measured here
//! but, if asked for, [the load of experts](count).

mod commands;
mod cost;
mod count;
mod provenance;
mod removed;
mod routing;
#[cfg(test)]
mod tests;
mod trade;

use std::path::PathBuf;

use prune_eval::figure::{Figure, Plot};
use prune_eval::page::{Page, Part, Section};
use prune_eval::{Report, Sweep};
use router_stats::stats::Stats;

pub(crate) use commands::command;
pub use count::{count, Counted};

use crate::plan::Plan;
use crate::{Error, Result};

/// A file and what it holds.
#[derive(Debug, Clone)]
pub struct Source<T> {
    /// Its path, as it was given.
    pub path: PathBuf,
    /// Its content.
    pub content: T,
}

/// What a report is made of, all of one model.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Statistics of the original.
    pub stats: Option<Source<Stats>>,
    /// What goes.
    pub plan: Option<Source<Plan>>,
    /// What it costs.
    pub eval: Option<Source<Report>>,
    /// What more and less of it costs, all on one text.
    pub sweeps: Vec<Source<Sweep>>,
    /// Routing load before and after.
    pub counted: Option<Counted>,
    /// The command that makes this report.
    pub command: String,
}

impl Inputs {
    /// Name and fingerprint of the model, from the first file.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no file; [`Error::MixedModels`] if they
    /// are of several models.
    pub fn model(&self) -> Result<(&str, &str)> {
        let mut models = self.models().into_iter();
        let Some((first, name, fingerprint)) = models.next() else {
            return Err(Error::Option {
                option: "report",
                expected: "--stats, --plan, --eval or --sweep".to_owned(),
                found: "none of them".to_owned(),
            });
        };
        match models.find(|(_, _, other)| *other != fingerprint) {
            None => Ok((name, fingerprint)),
            Some((second, other_name, other)) => Err(Error::MixedModels {
                first: first.clone().into(),
                name: name.into(),
                fingerprint: fingerprint.into(),
                second: second.clone().into(),
                other_name: other_name.into(),
                other: other.into(),
            }),
        }
    }

    /// Path, name of the model and its fingerprint, of every file.
    fn models(&self) -> Vec<(&PathBuf, &str, &str)> {
        let plan = self.plan.as_ref().map(|source| {
            let model = &source.content.model;
            (
                &source.path,
                model.name.as_str(),
                model.fingerprint.as_str(),
            )
        });
        let stats = self.stats.as_ref().map(|source| {
            let provenance = &source.content.provenance;
            let name = provenance.model.as_str();
            (&source.path, name, provenance.fingerprint.as_str())
        });
        let eval = self.eval.as_ref().map(|source| {
            let model = &source.content.reference;
            (
                &source.path,
                model.name.as_str(),
                model.fingerprint.as_str(),
            )
        });
        let sweeps = self.sweeps.iter().map(|source| {
            let model = &source.content.header.base.reference;
            (
                &source.path,
                model.name.as_str(),
                model.fingerprint.as_str(),
            )
        });
        [plan, stats, eval]
            .into_iter()
            .flatten()
            .chain(sweeps)
            .collect()
    }

    /// Weights of the domains for what is derived from statistics: the plan's,
    /// if it was made from these.
    fn weights(&self, stats: &Stats) -> Vec<f64> {
        let plan = self.plan.as_ref().map(|source| &source.content.stats);
        match plan.filter(|from| from.hash == stats.hash()) {
            Some(from) => from.domains.iter().map(|domain| domain.weight).collect(),
            None => stats.weights(),
        }
    }

    fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref().map(|source| &source.content)
    }

    fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref().map(|source| &source.content)
    }

    fn eval(&self) -> Option<&Report> {
        self.eval.as_ref().map(|source| &source.content)
    }

    /// All sweeps as one.
    ///
    /// # Errors
    /// [`Error::Option`] if their settings differ, so that their numbers cannot
    /// be compared.
    fn sweep(&self) -> Result<Option<Sweep>> {
        let mut sources = self.sweeps.iter();
        let Some(first) = sources.next() else {
            return Ok(None);
        };
        let mut all = first.content.clone();
        for source in sources {
            let (ours, theirs) = (&all.header.settings, &source.content.header.settings);
            let mut names = ours.keys().chain(theirs.keys());
            if let Some(name) = names.find(|name| ours.get(*name) != theirs.get(*name)) {
                return Err(Error::Option {
                    option: "--sweep",
                    expected: format!("files of the same {name} as {}", first.path.display()),
                    found: format!("another in {}", source.path.display()),
                });
            }
            for line in &source.content.lines {
                if all.at(&line.point).is_none() {
                    all.lines.push(line.clone());
                }
            }
        }
        Ok(Some(all))
    }
}

/// Makes the page.
///
/// # Errors
/// Those of [`Inputs::model`]; [`Figure`](prune_eval::Error::Figure) for
/// numbers that cannot be drawn; those of reading statistics.
pub fn page(inputs: &Inputs) -> Result<Page> {
    let (name, _) = inputs.model()?;
    let sections = [
        removed::section(inputs)?,
        cost::section(inputs)?,
        trade::section(inputs)?,
        routing::section(inputs)?,
        Some(provenance::section(inputs)),
    ];
    Ok(Page {
        title: removed::title(inputs, name),
        summary: [removed::summary(inputs), cost::summary(inputs)]
            .into_iter()
            .flatten()
            .collect(),
        facts: [removed::facts(inputs), cost::facts(inputs)].concat(),
        sections: sections.into_iter().flatten().collect(),
        created_by: concat!("mistralrs-prune ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

/// A part that is a figure.
fn figure(plot: &dyn Plot) -> Result<Part> {
    Ok(Part::Figure(Box::new(Figure::new(plot)?)))
}

/// A section, unless it has nothing to show.
fn section(title: &str, text: Vec<String>, parts: Vec<Part>) -> Option<Section> {
    (!parts.is_empty()).then(|| Section {
        title: title.to_owned(),
        text,
        parts,
    })
}
