//! A page that holds everything: facts, figures, tables, provenance.
//!
//! Owns HTML. One file, which loads nothing: styles and script are in it, and
//! a content security policy names their hashes, so that nothing else can run
//! whatever models and domains are called. Without the script everything can
//! still be read; it adds files of figures and values under the pointer. What
//! is said is the caller's.

mod policy;

use router_stats::atomic;
use std::io::Write;
use std::path::Path;

use crate::figure::svg::escape;
use crate::figure::{Figure, Table, Theme};
use crate::Result;

/// Rows of a table beyond which it is shown only when asked for.
const FOLDED: usize = 8;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Heading: the model, and what was done to it.
    pub title: String,
    /// What it comes down to, a paragraph each.
    pub summary: Vec<String>,
    /// The numbers to remember.
    pub facts: Vec<Fact>,
    /// Parts of the page, in order.
    pub sections: Vec<Section>,
    /// Program and version that made it.
    pub created_by: String,
}

/// A number to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is: `bytes of weights`.
    pub name: String,
    /// The number: `−38.2%`.
    pub value: String,
    /// What it came from: `17.4 MB → 10.7 MB`.
    pub detail: String,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// What it says, a paragraph each.
    pub text: Vec<String>,
    /// What it shows, in order.
    pub parts: Vec<Part>,
}

/// Something that a section shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A figure, with its table behind it.
    Figure(Box<Figure>),
    /// A table.
    Table(Table),
    /// Names and what they stand for, such as settings.
    Pairs(Vec<(String, String)>),
    /// Lines to be copied, such as commands.
    Lines(Vec<String>),
}

impl Page {
    /// The page as HTML.
    pub fn to_html(&self) -> String {
        let style = self.style();
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
             <title>{}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n",
            policy::of(&style, SCRIPT),
            escape(&self.title)
        );
        html.push_str(&format!("<header><h1>{}</h1>\n", escape(&self.title)));
        paragraphs(&mut html, &self.summary, "lead");
        self.facts(&mut html);
        html.push_str("</header>\n");
        for section in &self.sections {
            html.push_str(&format!("<section><h2>{}</h2>\n", escape(&section.title)));
            paragraphs(&mut html, &section.text, "note");
            for part in &section.parts {
                part.write(&mut html);
            }
            html.push_str("</section>\n");
        }
        html.push_str(&format!(
            "<footer><p>Made by {}. This file loads nothing from elsewhere.</p></footer>\n</main>\n<div id=\"value\" role=\"status\" hidden></div>\n",
            escape(&self.created_by)
        ));
        html.push_str(&format!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
        html
    }

    /// Writes the page, so that `path` never holds half of it.
    ///
    /// # Errors
    /// [`Io`](router_stats::Error::Io)
    pub fn write(&self, path: &Path) -> Result<()> {
        let html = self.to_html();
        Ok(atomic::write(path, |file| file.write_all(html.as_bytes()))?)
    }

    /// The figures, in order.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        let parts = self.sections.iter().flat_map(|section| &section.parts);
        parts.filter_map(|part| match part {
            Part::Figure(figure) => Some(figure.as_ref()),
            Part::Table(_) | Part::Pairs(_) | Part::Lines(_) => None,
        })
    }

    fn style(&self) -> String {
        format!(
            "{STYLE}{}\n@media screen and (prefers-color-scheme:dark){{{}}}\n",
            Theme::Light.sheet(),
            Theme::Dark.sheet()
        )
    }

    fn facts(&self, html: &mut String) {
        if self.facts.is_empty() {
            return;
        }
        html.push_str("<dl class=\"facts\">");
        for fact in &self.facts {
            html.push_str(&format!(
                "<div><dt>{}</dt><dd><b>{}</b><span>{}</span></dd></div>",
                escape(&fact.name),
                escape(&fact.value),
                escape(&fact.detail)
            ));
        }
        html.push_str("</dl>\n");
    }
}

impl Part {
    fn write(&self, html: &mut String) {
        match self {
            Self::Figure(figure) => {
                html.push_str(&format!(
                    "<figure data-name=\"{}\"><h3>{}</h3><figcaption>{}</figcaption>\n{}\n\
                     <div class=\"tools\" hidden><button type=\"button\" data-save=\"svg\">SVG</button>\
                     <button type=\"button\" data-save=\"png\">PNG</button></div>\
                     <details><summary>Numbers</summary>{}</details></figure>\n",
                    escape(&figure.name),
                    escape(&figure.title),
                    escape(&figure.description),
                    figure.to_html(),
                    figure.table.to_html()
                ));
            }
            Self::Table(table) if table.rows.len() > FOLDED => {
                html.push_str(&format!(
                    "<details class=\"folded\"><summary>{}</summary>{}</details>\n",
                    escape(&table.caption),
                    table.to_html()
                ));
            }
            Self::Table(table) => html.push_str(&(table.to_html() + "\n")),
            Self::Pairs(pairs) => {
                html.push_str("<dl class=\"pairs\">");
                for (name, value) in pairs {
                    let (name, value) = (escape(name), escape(value));
                    html.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>\n"));
                }
                html.push_str("</dl>\n");
            }
            Self::Lines(lines) => {
                html.push_str(&format!(
                    "<pre tabindex=\"0\">{}</pre>\n",
                    escape(&lines.join("\n"))
                ));
            }
        }
    }
}

fn paragraphs(html: &mut String, text: &[String], class: &str) {
    for paragraph in text {
        html.push_str(&format!("<p class=\"{class}\">{}</p>\n", escape(paragraph)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Bar, Domains, Group, Unit};

    fn page(name: &str) -> Page {
        let figure = Figure::new(&Domains {
            metric: "change".to_owned(),
            unit: Unit::Change,
            confidence: 0.95,
            groups: vec![Group {
                domain: name.to_owned(),
                bars: vec![Bar {
                    name: name.to_owned(),
                    value: 0.1,
                    low: None,
                    high: None,
                }],
            }],
        })
        .unwrap();
        Page {
            title: name.to_owned(),
            summary: vec![name.to_owned()],
            facts: vec![Fact {
                name: name.to_owned(),
                value: name.to_owned(),
                detail: name.to_owned(),
            }],
            sections: vec![Section {
                title: name.to_owned(),
                text: vec![name.to_owned()],
                parts: vec![
                    Part::Figure(Box::new(figure)),
                    Part::Table(Table::new(name, [name])),
                    Part::Pairs(vec![(name.to_owned(), name.to_owned())]),
                    Part::Lines(vec![name.to_owned()]),
                ],
            }],
            created_by: name.to_owned(),
        }
    }

    #[test]
    fn a_page_loads_nothing() {
        let html = page("half").to_html();
        for reference in ["http:", "https:", "src=", "url(", "@import", "<iframe"] {
            let found: Vec<_> = html.match_indices(reference).collect();
            // The name of a language is no address that is loaded.
            let names = html.match_indices("http://www.w3.org/2000/svg").count();
            let expected = if reference == "http:" { names } else { 0 };
            assert_eq!(found.len(), expected, "{reference}");
        }
        assert_eq!(html.matches("href=").count(), 1, "the empty icon");
        assert!(html.contains("default-src 'none'"));
    }

    #[test]
    fn hostile_names_stay_text() {
        let html = page("</title><script>alert(1)</script>\"><img onerror=x>").to_html();
        assert_eq!(html.matches("<script").count(), 1);
        assert!(!html.contains("<img") && !html.contains("\"><i"));
    }

    #[test]
    fn figures_have_their_numbers_behind_them() {
        let page = page("math");
        assert_eq!(page.figures().count(), 1);
        let html = page.to_html();
        assert_eq!(
            html.matches("<svg").count(),
            2,
            "for a page and for a phone"
        );
        assert!(html.contains("<details><summary>Numbers</summary><div class=\"scroll\""));
    }

    #[test]
    fn a_long_table_is_folded() {
        let folded = |rows: usize| {
            let mut table = Table::new("losses", ["model", "loss"]);
            (0..rows).for_each(|row| {
                table.row([row.to_string(), "1".to_owned()]);
            });
            let mut html = String::new();
            Part::Table(table).write(&mut html);
            html.contains("<details class=\"folded\"><summary>losses</summary>")
        };
        assert_eq!([FOLDED, FOLDED + 1].map(folded), [false, true]);
    }

    #[test]
    fn a_page_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        page("a").write(&path).unwrap();
        page("b").write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, page("b").to_html());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
