//! The numbers behind a figure, as a table of a page.

use super::svg::escape;

/// A table of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What it holds, and how to read it.
    pub caption: String,
    /// Headings.
    pub columns: Vec<String>,
    /// Cells; the first of a row names it.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<T: Into<String>>(
        caption: impl Into<String>,
        columns: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            caption: caption.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// The table as HTML, which scrolls sideways where it is too wide.
    pub fn to_html(&self) -> String {
        let mut html = String::from("<div class=\"scroll\" tabindex=\"0\"><table>");
        if !self.caption.is_empty() {
            html.push_str(&format!("<caption>{}</caption>", escape(&self.caption)));
        }
        if !self.columns.is_empty() {
            html.push_str("<thead><tr>");
            for column in &self.columns {
                html.push_str(&format!("<th scope=\"col\">{}</th>", escape(column)));
            }
            html.push_str("</tr></thead>");
        }
        html.push_str("<tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                if index == 0 {
                    html.push_str(&format!("<th scope=\"row\">{cell}</th>"));
                } else {
                    html.push_str(&format!("<td>{cell}</td>"));
                }
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_headings_and_cells_are_text() {
        let mut table = Table::new("Cost of <half>", ["domain", "change"]);
        table.row(["math & code", "+1%"]);
        let html = table.to_html();
        for part in [
            "<caption>Cost of &lt;half&gt;</caption>",
            "<th scope=\"col\">change</th>",
            "<tr><th scope=\"row\">math &amp; code</th><td>+1%</td></tr>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
