//! Reports as text: aligned for a terminal, or Markdown.
//!
//! One block per metric, models down, domains across. How a block is written
//! belongs to [`block`].

mod block;
mod signs;
mod sizes;
mod speed;

use std::fmt::Write;

use super::format::{cell, number, rounded, short, thousands, wrap};
use super::{Domain, Model, Report};
use crate::evaluator::{self, Metric, Unit};
use crate::figure::Table;

pub(crate) use block::Block;

/// Metrics that are printed; a report holds more.
const SHOWN: [&str; 5] = [
    "perplexity",
    "perplexity_change",
    "top1_agreement",
    "overlap",
    "kl",
];
/// The metric that variants are ranked by.
const RANKED_BY: &str = "perplexity";
/// The metric that has a worst domain, and marks.
const WORST_OF: &str = "perplexity_change";
/// What is said of a difference that chance explains.
const UNDISTINGUISHED: &str = "not distinguishable";

impl Report {
    /// Aligned plain text, at most `width` columns wide unless a single
    /// column of numbers is wider. Columns that do not fit go below.
    pub fn to_text(&self, width: usize) -> String {
        let mut text = String::new();
        for line in self.facts() {
            for line in wrap(&line, width) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        for block in self.blocks() {
            text.push('\n');
            block.text(width, &mut text);
        }
        text
    }

    /// GitHub-flavoured Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        for block in self.blocks() {
            block.markdown(&mut text);
            text.push('\n');
        }
        for fact in self.facts() {
            // Infallible: the target is a string.
            let _ = writeln!(text, "- {fact}");
        }
        text
    }

    /// Every table, for a page.
    pub fn tables(&self) -> Vec<Table> {
        self.blocks().into_iter().map(Table::from).collect()
    }

    /// Where the numbers come from and how to read them.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = if self.has_text() {
            self.text_facts()
        } else {
            let fingerprint = short(&self.reference.fingerprint);
            vec![format!("reference {} ({fingerprint})", self.reference.name)]
        };
        facts.extend(self.task_facts());
        facts
    }

    fn has_text(&self) -> bool {
        self.domains().next().is_some()
    }

    fn text_facts(&self) -> Vec<String> {
        let provenance = &self.provenance;
        let bootstrap = &provenance.bootstrap;
        let tokens: u64 = self.domains().map(|domain| domain.tokens).sum();
        let sequences: u64 = self.domains().map(|domain| domain.sequences).sum();
        let clusters: u64 = self.domains().map(|domain| domain.documents).sum();
        let domains: Vec<String> = self
            .domains()
            .map(|d| {
                format!(
                    "{} {} in {} (weight {})",
                    d.name,
                    thousands(d.tokens),
                    d.documents,
                    rounded(d.weight, 3)
                )
            })
            .collect();
        let mut facts = vec![
            format!(
                "reference {} ({}), text {}",
                self.reference.name,
                short(&self.reference.fingerprint),
                short(&provenance.corpus)
            ),
            format!(
                "{} predicted tokens in {sequences} sequences, {clusters} clusters by document: {}",
                thousands(tokens),
                domains.join(", ")
            ),
            format!(
                "[{}% intervals]: paired bootstrap over clusters, {} resamples, seed {}",
                rounded(100.0 * bootstrap.confidence, 1),
                bootstrap.resamples,
                bootstrap.seed
            ),
        ];
        if self.domains().count() > 1 {
            facts.push("all: domains mixed by weight, whatever their size".to_owned());
        }
        facts.extend(self.without_interval());
        if !self.variants.is_empty() {
            facts.push(format!(
                "≈, {UNDISTINGUISHED}: p above {} after Holm's correction for the models of a column",
                rounded(1.0 - bootstrap.confidence, 4)
            ));
        }
        facts
    }

    /// Why a domain, and the mixture with it, has no interval, if one has not.
    pub(crate) fn without_interval(&self) -> Option<String> {
        let single: Vec<&Domain> = self.domains().filter(|d| d.documents < 2).collect();
        let names: Vec<&str> = single.iter().map(|domain| domain.name.as_str()).collect();
        let mixed = self.domains().count() > 1 && single.iter().any(|domain| domain.weight > 0.0);
        (!single.is_empty()).then(|| {
            format!(
                "[?]: no interval from a single cluster: {}{}",
                names.join(", "),
                if mixed { "; nor has all" } else { "" }
            )
        })
    }

    /// Whether chance explains how a variant differs from another model.
    fn undistinguished(&self, model: &Model, against: &Model, domain: Option<&str>) -> bool {
        let level = 1.0 - self.provenance.bootstrap.confidence;
        self.comparison(&model.name, &against.name, domain)
            .and_then(|comparison| comparison.bootstrap)
            .is_some_and(|value| value.adjusted > level)
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = if self.has_text() {
            self.text_blocks()
        } else {
            Vec::new()
        };
        blocks.extend(self.task_blocks());
        blocks.extend(self.sizes());
        blocks.extend(self.speeds());
        blocks
    }

    fn text_blocks(&self) -> Vec<Block> {
        let shown = SHOWN
            .into_iter()
            .filter_map(|name| evaluator::metric(name).ok());
        let mut blocks: Vec<Block> = shown.map(|(_, metric)| self.block(metric)).collect();
        blocks.retain(|block| !block.rows.is_empty());
        blocks.extend(self.ranking());
        blocks.extend(self.sign_tests());
        blocks
    }

    /// The columns of numbers: all and every domain, or the only domain.
    fn columns(&self) -> Vec<Option<&str>> {
        let domains: Vec<Option<&str>> = self
            .domains()
            .map(|domain| Some(domain.name.as_str()))
            .collect();
        if domains.len() == 1 {
            domains
        } else {
            std::iter::once(None).chain(domains).collect()
        }
    }

    fn header(&self) -> Vec<String> {
        let names = self
            .columns()
            .into_iter()
            .map(|column| column.unwrap_or("all").to_owned());
        std::iter::once(String::new()).chain(names).collect()
    }

    /// One metric of every model that has it.
    fn block(&self, metric: &Metric) -> Block {
        let better = if metric.higher_is_better {
            "higher is better"
        } else {
            "lower is better"
        };
        let mut block = Block {
            title: format!("{} ({better})", metric.title),
            header: self.header(),
            rows: Vec::new(),
        };
        let with_worst = metric.name == WORST_OF && self.domains().count() > 1;
        if with_worst {
            block.header.push("worst domain".to_owned());
        }
        let row = |model: &Model| -> Option<Vec<String>> {
            let mut row = vec![model.name.clone()];
            for column in self.columns() {
                let estimate = model.estimate(metric.name, column)?;
                let mut text = cell(metric.unit, metric.statistic.is_paired(), estimate);
                if metric.name == WORST_OF && self.undistinguished(model, &self.reference, column) {
                    text.push_str(" ≈");
                }
                row.push(text);
            }
            Some(row)
        };
        block.rows.extend(row(&self.reference));
        for (index, variant) in self.variants.iter().enumerate() {
            let Some(mut row) = row(variant) else {
                continue;
            };
            if with_worst {
                let worst = self.worst_domain(index);
                row.push(worst.map_or_else(String::new, |(name, e)| {
                    format!("{name} {}", number(metric.unit, true, e.value))
                }));
            }
            block.rows.push(row);
        }
        block
    }

    /// Every variant against the one with the lowest perplexity; `None` if
    /// there are fewer than two.
    fn ranking(&self) -> Option<Block> {
        if self.variants.len() < 2 {
            return None;
        }
        let best = self.best()?;
        let place = self.variants.iter().position(|v| v.name == best.name)?;
        let mut block = Block {
            title: format!("{RANKED_BY} above that of {}, the lowest", best.name),
            header: self.header(),
            rows: Vec::new(),
        };
        for (index, variant) in self.variants.iter().enumerate() {
            if index == place {
                continue;
            }
            let mut row = vec![variant.name.clone()];
            for column in self.columns() {
                row.push(if self.undistinguished(variant, best, column) {
                    UNDISTINGUISHED.to_owned()
                } else {
                    let difference = self.difference(index, place, RANKED_BY, column).ok()?;
                    cell(Unit::Percent, true, &difference)
                });
            }
            block.rows.push(row);
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::format::length;
    use crate::report::tests::sample;

    fn report() -> Report {
        sample(&[("reap-50", 0.1), ("frequency-50", 0.4), ("reap-again", 0.1)])
    }

    #[test]
    fn text_shows_every_block_aligned() {
        let text = report().to_text(200);
        for title in [
            "perplexity (lower is better)",
            "change of perplexity (lower is better)",
            "top-1 agreement with the reference (higher is better)",
            "overlap with the reference (higher is better)",
            "KL divergence from the reference, nats per token (lower is better)",
            "perplexity above that of reap-50, the lowest",
            "clusters predicted worse and better than by the reference (sign test)",
        ] {
            assert!(text.contains(title), "no `{title}` in\n{text}");
        }
        let block: Vec<&str> = text.split("\n\n").nth(1).unwrap().lines().collect();
        assert_eq!(block.len(), 6);
        assert!(block[2].starts_with("original"));
        assert!(
            block[1..]
                .iter()
                .all(|line| length(line) == length(block[1])),
            "{text}"
        );
        assert!(text.contains("reap-again") && text.contains(UNDISTINGUISHED));
        assert!(!text.contains("empty"), "domains without text are left out");
        let signs = text.split("\n\n").last().unwrap();
        assert!(
            signs.contains("reap-50          16       0  <0.001\n"),
            "{signs}"
        );
    }

    #[test]
    fn text_keeps_to_its_width_and_loses_no_number() {
        let report = report();
        let numbers = |text: &str| text.matches('[').count();
        let wide = report.to_text(200);
        for width in [40, 60, 80, 100] {
            let text = report.to_text(width);
            let longest = text.lines().map(length).max().unwrap();
            assert!(
                longest <= width,
                "{longest} columns at width {width}:\n{text}"
            );
            assert_eq!(numbers(&text), numbers(&wide), "at width {width}:\n{text}");
        }
        assert!(!report.to_text(0).is_empty());
    }

    #[test]
    fn markdown_rows_have_as_many_cells_as_their_header() {
        let text = report().to_markdown();
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells: Vec<usize> = table
                .lines()
                .map(|line| line.matches('|').count())
                .collect();
            assert!(
                cells.len() > 3 && cells.windows(2).all(|pair| pair[0] == pair[1]),
                "{table}"
            );
        }
        assert!(
            text.contains(
                "|  | all | code | math | worst domain |\n| --- | ---: | ---: | ---: | ---: |\n"
            ),
            "{text}"
        );
        assert!(text.contains("- reference original (00000000000"));
    }

    #[test]
    fn a_reference_alone_has_its_perplexity() {
        let text = sample(&[]).to_text(100);
        assert!(
            text.contains("perplexity (lower is better)") && !text.contains("change"),
            "{text}"
        );
    }
}
