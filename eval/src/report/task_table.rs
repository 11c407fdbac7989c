//! Tasks as tables: what every model scored, and how variants changed.

use super::format::{cell, p_value, rounded, short, thousands};
use super::table::Block;
use super::{Report, TaskReport};
use crate::evaluator::{Metric, Statistic, Unit};
use crate::task;

impl Report {
    /// What is said about the tables of tasks.
    pub(super) fn task_facts(&self) -> Vec<String> {
        if self.tasks.is_empty() {
            return Vec::new();
        }
        let sets: Vec<String> = self
            .tasks
            .iter()
            .map(|task| {
                format!(
                    "{} {} {} ({})",
                    task.name,
                    thousands(task.items as u64),
                    task.kind,
                    short(&task.hash)
                )
            })
            .collect();
        let bootstrap = &self.provenance.bootstrap;
        let mut facts = vec![
            format!("tasks: {}", sets.join(", ")),
            format!(
                "[{}% intervals] of tasks: paired bootstrap over items, {} resamples, seed {}",
                rounded(100.0 * bootstrap.confidence, 1),
                bootstrap.resamples,
                bootstrap.seed
            ),
            "↑ higher is better, ↓ lower is better".to_owned(),
        ];
        if !self.variants.is_empty() {
            facts.push(format!(
                "p: sign test over items that changed, Holm's correction for the variants; ≈ not \
                 distinguishable, p above {}",
                rounded(1.0 - bootstrap.confidence, 4)
            ));
        }
        facts
    }

    /// Of every task what the models scored and what changed.
    pub(super) fn task_blocks(&self) -> Vec<Block> {
        let blocks = self.tasks.iter().flat_map(|task| {
            let metrics = task::kind(&task.kind).map_or(&[][..], |kind| kind.metrics());
            [scores(task, metrics), self.changes(task, metrics)]
        });
        blocks.filter(|block| !block.rows.is_empty()).collect()
    }

    fn changes(&self, task: &TaskReport, metrics: &[Metric]) -> Block {
        let level = 1.0 - self.provenance.bootstrap.confidence;
        let column = |model: &super::TaskModel, metric: &Metric| {
            let change = model.metrics.get(metric.name)?.change.as_ref()?;
            let unit = match metric.statistic.paired() {
                Statistic::Ratio => Unit::Percent,
                _ => metric.unit,
            };
            let mark = if change.sign.adjusted > level {
                " ≈"
            } else {
                ""
            };
            Some(format!(
                "{} p {}{mark}",
                cell(unit, true, &change.estimate),
                p_value(change.sign.adjusted)
            ))
        };
        let row = |model: &super::TaskModel| {
            let cells = metrics.iter().map(|metric| column(model, metric));
            std::iter::once(Some(model.name.clone()))
                .chain(cells)
                .collect()
        };
        Block {
            title: format!("{}: change against {}", task.name, self.reference.name),
            header: header(metrics),
            rows: task.models.iter().skip(1).filter_map(row).collect(),
        }
    }
}

fn scores(task: &TaskReport, metrics: &[Metric]) -> Block {
    let row = |model: &super::TaskModel| {
        let cells = metrics.iter().map(|metric| {
            let measured = model.metrics.get(metric.name)?;
            Some(cell(metric.unit, false, &measured.estimate))
        });
        std::iter::once(Some(model.name.clone()))
            .chain(cells)
            .collect()
    };
    Block {
        title: format!("{}: {} items", task.name, thousands(task.items as u64)),
        header: header(metrics),
        rows: task.models.iter().filter_map(row).collect(),
    }
}

fn header(metrics: &[Metric]) -> Vec<String> {
    let arrow = |metric: &Metric| {
        if metric.higher_is_better {
            "↑"
        } else {
            "↓"
        }
    };
    let names = metrics
        .iter()
        .map(|metric| format!("{} {}", metric.title, arrow(metric)));
    std::iter::once(String::new()).chain(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::format::length;
    use crate::report::task::tests::{asked, with_questions};
    use crate::report::Subject;

    #[test]
    fn every_task_has_two_tables() {
        let text = with_questions().to_text(200);
        let blocks: Vec<&str> = text.split("\n\n").collect();
        let of = |title: &str| {
            let found = blocks.iter().find(|block| block.starts_with(title));
            found.unwrap_or_else(|| panic!("no `{title}` in\n{text}"))
        };
        let easy = of("easy: 100 items");
        assert_eq!(easy.lines().count(), 5);
        assert!(
            easy.contains("accuracy ↑") && easy.contains("90.0% ["),
            "{easy}"
        );
        assert!(
            easy.contains("bits per byte of the gold choice ↓"),
            "{easy}"
        );
        let change = of("easy: change against original");
        assert_eq!(change.lines().count(), 4);
        assert!(
            change.contains("-10.0% [") && change.contains("p 0.002"),
            "{change}"
        );
        let hard = of("hard: change against original");
        let half = hard.lines().find(|line| line.starts_with("half")).unwrap();
        assert!(half.contains("+0.0% [+0.0, +0.0] p 1.000 ≈"), "{half}");
        assert!(text.contains("tasks: easy 100 multiple_choice ("));
    }

    #[test]
    fn tables_keep_to_the_width_and_markdown_has_their_cells() {
        let report = with_questions();
        for width in [60, 80] {
            let longest = report.to_text(width).lines().map(length).max().unwrap();
            assert!(longest <= width, "{longest} columns at width {width}");
        }
        let text = report.to_markdown();
        assert!(text.contains("**hard: change against original**"), "{text}");
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let mut cells = table.lines().map(|line| line.matches('|').count());
            let first = cells.next().unwrap();
            assert!(cells.all(|count| count == first), "{table}");
        }
    }

    #[test]
    fn a_report_without_text_speaks_of_tasks_alone() {
        let subject = |name: &str| Subject {
            name: name.to_owned(),
            fingerprint: "f00d".to_owned(),
            masked: false,
            quantization: None,
            bytes: None,
        };
        let (set, outcomes) = asked("easy", 20, &[9, 3, 9]);
        let outcomes: Vec<_> = outcomes.into_iter().map(|own| vec![own]).collect();
        let variants = vec![subject("a"), subject("b")];
        let bootstrap = with_questions().provenance.bootstrap;
        let text = Report::of_tasks(subject("served"), variants, bootstrap)
            .with_tasks(&[set], &outcomes)
            .unwrap()
            .to_text(120);
        assert!(text.contains("reference served (f00d)"), "{text}");
        assert!(text.contains("easy: 20 items"), "{text}");
        for absent in ["perplexity", "tokens", "documents", "NaN"] {
            assert!(!text.contains(absent), "{text}");
        }
    }
}
