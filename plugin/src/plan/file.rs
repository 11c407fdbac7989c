//! Plans on disk.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{json, Plan, VERSION};
use crate::error::{Error, Result};

/// Reads a plan. It is not yet checked against a model: see
/// [`ValidPlan`](super::ValidPlan).
///
/// # Errors
/// [`Io`](router_stats::Error::Io); [`Error::PlanVersion`] for a plan of
/// another version; [`Error::PlanFile`] for anything else that is not a plan.
pub fn read(path: impl AsRef<Path>) -> Result<Plan> {
    /// Another version may have other fields, so this is looked at first.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }

    let path = path.as_ref();
    let text = fs::read(path).map_err(router_stats::Error::io(path))?;
    let invalid = |source| Error::PlanFile {
        path: path.to_path_buf(),
        source,
    };
    let Versioned { version } = serde_json::from_slice(&text).map_err(invalid)?;
    check_version(version, &path.display().to_string())?;
    serde_json::from_slice(&text).map_err(invalid)
}

/// Writes a plan as JSON, one layer per line. The file appears whole or not at
/// all: it is written beside `path` and renamed.
///
/// # Errors
/// [`Io`](router_stats::Error::Io)
pub fn write(plan: &Plan, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let text = to_json(plan).map_err(|source| Error::PlanFile {
        path: path.to_path_buf(),
        source,
    })?;
    router_stats::atomic::write(path, |file| file.write_all(&text))?;
    Ok(())
}

/// A plan as text, one layer per line.
fn to_json(plan: &Plan) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    plan.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text,
        json::Lines::default(),
    ))?;
    text.push(b'\n');
    Ok(text)
}

/// Fails unless this build reads `version`.
pub(super) fn check_version(version: u32, label: &str) -> Result<()> {
    if (1..=VERSION).contains(&version) {
        return Ok(());
    }
    Err(Error::PlanVersion {
        plan: label.to_owned(),
        found: version,
        supported: VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    fn refused(text: &str) -> Error {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.plan.json");
        fs::write(&path, text).unwrap();
        read(&path).unwrap_err()
    }

    fn text() -> String {
        String::from_utf8(to_json(fixture::half().plan()).unwrap()).unwrap()
    }

    #[test]
    fn reads_what_it_wrote_bit_for_bit() {
        let mut plan = fixture::half().plan().clone();
        plan.layers[0].scores[1] = 0.1 + 0.2;
        plan.layers[0].scores[2] = f64::MIN_POSITIVE;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("half.plan.json");
        write(&plan, &path).unwrap();
        write(&plan, &path).unwrap();
        assert_eq!(read(&path).unwrap(), plan);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn is_readable_one_layer_per_line() {
        let text = text();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.contains("\"block_influence\""))
            .collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[2].starts_with("    {\"layer\": 2, \"dropped\": false, "),
            "{}",
            lines[2]
        );
        assert!(text.starts_with("{\n  \"version\": 3,\n"), "{text}");
    }

    #[test]
    fn the_first_version_is_still_read() {
        let mut plan = fixture::half().plan().clone();
        plan.version = 1;
        plan.method.constraints = super::super::Constraints::default();
        for domain in &mut plan.stats.domains {
            domain.coverage = None;
        }
        let mut value = serde_json::to_value(&plan).unwrap();
        let method = value["method"].as_object_mut().unwrap();
        assert!(method.remove("constraints").is_some());
        for domain in value["stats"]["domains"].as_array_mut().unwrap() {
            assert!(domain.as_object_mut().unwrap().remove("coverage").is_some());
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.plan.json");
        fs::write(&path, value.to_string()).unwrap();
        assert_eq!(read(&path).unwrap(), plan);
    }

    #[test]
    fn what_is_not_asked_for_is_not_written() {
        let text = text();
        assert!(
            !text.contains("skipped") && !text.contains("top_k"),
            "{text}"
        );
        let mut plan = fixture::half().plan().clone();
        plan.layers[2].skipped.mlp = true;
        let text = String::from_utf8(to_json(&plan).unwrap()).unwrap();
        assert!(text.contains("\"skipped\": {\"mlp\": true}"), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn a_search_is_recorded_and_left_out_where_there_was_none() {
        assert!(!text().contains("\"search\""));
        let mut plan = fixture::half().plan().clone();
        let worth = |overlap| crate::plan::Fitness { overlap, nll: 2.5 };
        plan.method.search = Some(crate::plan::Searched {
            name: "evolution".to_owned(),
            tokens: 8192,
            text: "c0ffee".to_owned(),
            candidates: 40,
            before: worth(0.1 + 0.2),
            after: worth(0.75),
        });
        assert_eq!(plan.method.allocation(), "evolution");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.plan.json");
        write(&plan, &path).unwrap();
        assert_eq!(read(&path).unwrap(), plan);
        // A plan of version 2 says nothing of searches.
        let mut plan = fixture::half().plan().clone();
        plan.version = 2;
        write(&plan, &path).unwrap();
        assert_eq!(read(&path).unwrap(), plan);
    }

    #[test]
    fn another_version_is_refused_before_its_fields_are_read() {
        let error = refused("{\"version\": 4, \"something\": []}");
        assert!(
            error
                .to_string()
                .ends_with("x.plan.json: plan version 4; this build reads 1 to 3"),
            "{error}"
        );
        assert_eq!(error.hint().unwrap(), "run `plan` again with this version");
    }

    #[test]
    fn what_is_not_a_plan_is_refused_with_its_position() {
        let unknown = text().replacen("\"model\"", "\"modle\": 1, \"model\"", 1);
        for (text, reason) in [
            ("", "EOF while parsing"),
            ("[]", "line 1"),
            ("{\"layers\": []}", "missing field `version`"),
            ("{\"version\": 1}", "missing field `created_by`"),
            (&unknown, "unknown field `modle`"),
        ] {
            let error = refused(text).to_string();
            assert!(
                error.contains("x.plan.json: not a plan: ") && error.contains(reason),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read("/nowhere/x.plan.json").unwrap_err();
        assert!(
            error.to_string().starts_with("/nowhere/x.plan.json: "),
            "{error}"
        );
    }
}
