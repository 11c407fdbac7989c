//! One table as aligned text, or as Markdown.

use std::fmt::Write;

use crate::figure::Table;
use crate::report::format::{length, padded, shortened, wrap};

/// Between columns.
const GAP: &str = "  ";

/// One table: a title, a header and rows of as many cells, the first of each
/// being the name of a model.
pub(crate) struct Block {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl From<Block> for Table {
    fn from(block: Block) -> Self {
        Self {
            caption: block.title,
            columns: block.header,
            rows: block.rows,
        }
    }
}

impl Block {
    /// Appends the block; names left, numbers right.
    pub(crate) fn text(&self, width: usize, text: &mut String) {
        let longest = (width / 3).max(8);
        let names: Vec<String> = self
            .rows
            .iter()
            .map(|row| shortened(&row[0], longest))
            .collect();
        let name_width = names.iter().map(|name| length(name)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                self.rows
                    .iter()
                    .chain([&self.header])
                    .map(|row| length(&row[column]))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for line in wrap(&self.title, width) {
            text.push_str(&line);
            text.push('\n');
        }
        let mut first = 1;
        while first < self.header.len() {
            let (mut end, mut used) = (first, name_width);
            while end < self.header.len()
                && (end == first || used + GAP.len() + widths[end] <= width)
            {
                used += GAP.len() + widths[end];
                end += 1;
            }
            let heading = String::new();
            for (name, row) in std::iter::once(&heading)
                .chain(&names)
                .zip(std::iter::once(&self.header).chain(&self.rows))
            {
                text.push_str(&padded(name, name_width));
                for column in first..end {
                    text.push_str(GAP);
                    text.push_str(&" ".repeat(widths[column] - length(&row[column])));
                    text.push_str(&row[column]);
                }
                text.push('\n');
            }
            first = end;
        }
    }

    /// Appends the block as GitHub-flavoured Markdown.
    pub(crate) fn markdown(&self, text: &mut String) {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        // A list of one kind of alignment per column: name left, numbers right.
        let rule: Vec<String> = (0..self.header.len())
            .map(|c| if c == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        let _ = write!(
            text,
            "**{}**\n\n{}{}",
            self.title,
            line(&self.header),
            line(&rule)
        );
        for row in &self.rows {
            text.push_str(&line(row));
        }
    }
}
