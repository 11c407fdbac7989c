//! Columns of text that line up.

/// Rows of cells. Columns are aligned right, as numbers are, but the first and
/// those of words.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    words: Vec<usize>,
}

impl Table {
    /// A table that begins with a heading.
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(ToString::to_string).collect()],
            words: vec![0],
        }
    }

    /// A table of names and what they stand for, without a heading.
    pub(super) fn facts() -> Self {
        Self {
            rows: Vec::new(),
            words: vec![0, 1],
        }
    }

    /// Rows of words.
    pub(super) fn of(rows: &[Vec<String>]) -> Self {
        Self {
            rows: rows.to_vec(),
            words: (0..rows.iter().map(Vec::len).max().unwrap_or(0)).collect(),
        }
    }

    /// Aligns `column` left.
    pub(super) fn words(mut self, column: usize) -> Self {
        self.words.push(column);
        self
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.chars().count());
                if self.words.contains(&column) {
                    line.extend(["  ", cell, &gap]);
                } else {
                    line.extend(["  ", &gap, cell]);
                }
            }
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_in_characters() {
        let mut table = Table::new(&["", "before", "after"]);
        table.row(["perplexity", "8.71", "9.94"]).row(["µ", "1"]);
        assert_eq!(
            table.to_string(),
            "              before  after\n  perplexity    8.71   9.94\n  µ                1"
        );
        let mut facts = Table::facts();
        facts.row(["name", "demo"]).row(["by", "reap, uniform"]);
        assert_eq!(facts.to_string(), "  name  demo\n  by    reap, uniform");
    }
}
