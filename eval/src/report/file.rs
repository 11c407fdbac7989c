//! Reports as JSON files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use router_stats::atomic;
use serde_json::Value;

use super::{Model, Report, VERSION};
use crate::evaluator::EVALUATORS;
use crate::{Error, Result};

impl Report {
    /// Reads a report and checks that it is consistent.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ReportVersion`] or [`Error::ReportFile`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let unusable = |reason: String| Error::ReportFile {
            path: path.to_path_buf(),
            reason,
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        Self::from_value(path, value)
    }

    /// Reads and checks a report that is part of the file at `path`.
    ///
    /// # Errors
    /// [`Error::ReportVersion`] or [`Error::ReportFile`].
    pub(crate) fn from_value(path: &Path, value: Value) -> Result<Self> {
        let unusable = |reason: String| Error::ReportFile {
            path: path.to_path_buf(),
            reason,
        };
        match value.get("version").and_then(Value::as_u64) {
            Some(found) if found == u64::from(VERSION) => {}
            Some(found) => {
                return Err(Error::ReportVersion {
                    path: path.to_path_buf(),
                    found,
                    supported: VERSION,
                });
            }
            None => return Err(unusable("expected `version`, found none".to_owned())),
        }
        let report: Self =
            serde_json::from_value(value).map_err(|error| unusable(error.to_string()))?;
        report.check().map_err(unusable)?;
        Ok(report)
    }

    /// Writes the report, so that `path` never holds half of it.
    ///
    /// # Errors
    /// [`Io`](router_stats::Error::Io)
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.to_json() + "\n";
        Ok(atomic::write(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// The report on one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What would make a later lookup fail, or lie.
    fn check(&self) -> Result<(), String> {
        let sequences = self.predictions.tokens.len();
        for (field, found) in [
            ("domains", self.predictions.domains.len()),
            ("documents", self.predictions.documents.len()),
        ] {
            if found != sequences {
                return Err(format!(
                    "`predictions.{field}`: expected {sequences} entries, found {found}"
                ));
            }
        }
        if let Some(domain) = self
            .predictions
            .domains
            .iter()
            .find(|&&d| usize::from(d) >= self.provenance.domains.len())
        {
            return Err(format!(
                "`predictions.domains`: expected indices below {}, found {domain}",
                self.provenance.domains.len()
            ));
        }
        if self.predictions.tokens.contains(&0) {
            return Err("`predictions.tokens`: expected positive counts, found 0".to_owned());
        }
        let bootstrap = &self.provenance.bootstrap;
        if bootstrap.resamples < 2 || !(bootstrap.confidence > 0.0 && bootstrap.confidence < 1.0) {
            return Err(format!("`provenance.bootstrap`: expected at least 2 resamples and a confidence between 0 and 1, found {bootstrap:?}"));
        }
        unique(
            self.provenance
                .domains
                .iter()
                .map(|domain| domain.name.as_str()),
        )?;
        unique(
            std::iter::once(&self.reference)
                .chain(&self.variants)
                .map(|model| model.name.as_str()),
        )?;
        for (index, domain) in self.provenance.domains.iter().enumerate() {
            let own = self
                .predictions
                .domains
                .iter()
                .zip(&self.predictions.documents);
            let documents: Vec<u32> = own
                .filter(|(&own, _)| usize::from(own) == index)
                .map(|(_, &document)| document)
                .collect();
            let different = documents.iter().collect::<BTreeSet<_>>().len();
            for (what, expected, found) in [
                ("sequences", domain.sequences, documents.len()),
                ("documents", domain.documents, different),
            ] {
                if found as u64 != expected {
                    return Err(format!(
                        "domain `{}`: expected {expected} {what}, found {found}",
                        domain.name
                    ));
                }
            }
            if domain.weight < 0.0 {
                return Err(format!(
                    "domain `{}`: expected a weight of at least 0, found {}",
                    domain.name, domain.weight
                ));
            }
        }
        let no_text = self.provenance.domains.is_empty() && !self.tasks.is_empty();
        if !no_text && self.domains().all(|domain| domain.weight == 0.0) {
            return Err("`provenance.domains`: expected a positive weight, found none".to_owned());
        }
        check_sums(&self.reference, sequences, false)?;
        self.variants
            .iter()
            .try_for_each(|variant| check_sums(variant, sequences, true))?;
        self.check_comparisons()?;
        self.check_tasks()
    }
}

pub(crate) fn check_sums(model: &Model, sequences: usize, compared: bool) -> Result<(), String> {
    for evaluator in EVALUATORS
        .iter()
        .filter(|evaluator| compared || !evaluator.against_reference())
    {
        let found = model.sums.get(evaluator.name()).map_or(0, Vec::len);
        if found != sequences {
            return Err(format!(
                "`{}`: sums of `{}`: expected {sequences}, found {found}",
                model.name,
                evaluator.name()
            ));
        }
    }
    Ok(())
}

fn unique<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(format!("expected unique names, found `{name}` twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn read_text(text: &str) -> Result<Report> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, text).unwrap();
        Report::read(&path)
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = sample(&[("half", 0.4), ("random", 0.9)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        report.write(&path).unwrap();
        report.write(&path).unwrap();
        let again = Report::read(&path).unwrap();
        assert_eq!(again, report);
        let difference = |report: &Report| report.difference(0, 1, "nll", Some("math")).unwrap();
        assert_eq!(difference(&again), difference(&report));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_report_that_cannot_be_written_names_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("report.json");
        let error = sample(&[]).write(&path).unwrap_err();
        assert!(matches!(error, Error::RouterStats(_)));
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[test]
    fn malformed_reports_are_refused_by_name() {
        let good: Value = serde_json::from_str(&sample(&[("half", 0.4)]).to_json()).unwrap();
        let broken = |edit: &dyn Fn(&mut Value)| {
            let mut value = good.clone();
            edit(&mut value);
            read_text(&value.to_string()).unwrap_err().to_string()
        };
        assert!(read_text(&good.to_string()).is_ok());
        assert!(read_text("{").unwrap_err().hint().is_some());
        for (edit, reason) in [
            (
                &(|v: &mut Value| v["version"] = 9.into()) as &dyn Fn(&mut Value),
                "version 9; this build reads 2",
            ),
            (&|v| v["surprise"] = 1.into(), "unknown field `surprise`"),
            (
                &|v| v["predictions"]["domains"][0] = 3.into(),
                "expected indices below 3, found 3",
            ),
            (
                &|v| v["predictions"]["domains"][0] = 2.into(),
                "domain `math`: expected 8 sequences, found 7",
            ),
            (
                &|v| v["predictions"]["documents"][0] = 1.into(),
                "domain `math`: expected 8 documents, found 7",
            ),
            (
                &|v| v["predictions"]["documents"] = Value::Array(vec![]),
                "`predictions.documents`: expected 24 entries, found 0",
            ),
            (
                &|v| v["comparisons"][0]["model"] = "original".into(),
                "expected the name of a variant, found `original`",
            ),
            (
                &|v| v["comparisons"][0]["against"] = "half".into(),
                "expected another model, found `half`",
            ),
            (
                &|v| v["comparisons"][0]["sign"]["p"] = 1.5.into(),
                "expected p-values from 0 to 1, found 1.5",
            ),
            (
                &|v| v["predictions"]["tokens"][0] = 0.into(),
                "expected positive counts",
            ),
            (
                &|v| v["predictions"]["tokens"] = Value::Array(vec![]),
                "expected 0 entries",
            ),
            (
                &|v| v["variants"][0]["name"] = "original".into(),
                "`original` twice",
            ),
            (
                &|v| v["variants"][0]["sums"]["top1"] = Value::Array(vec![]),
                "sums of `top1`",
            ),
            (
                &|v| v["provenance"]["bootstrap"]["confidence"] = 1.into(),
                "a confidence between 0 and 1",
            ),
            (
                &|v| v["provenance"]["domains"][0]["weight"] = (-1).into(),
                "a weight of at least 0",
            ),
            (
                &|v| {
                    for domain in [0, 1] {
                        v["provenance"]["domains"][domain]["weight"] = 0.into();
                    }
                },
                "expected a positive weight",
            ),
        ] {
            let error = broken(edit);
            assert!(error.contains(reason), "expected `{reason}` in: {error}");
        }
    }
}
