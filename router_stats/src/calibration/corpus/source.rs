//! Where a domain's text is: `name=path:weight` on the command line.

use std::path::{Path, PathBuf};

use super::file;
use crate::{Error, Result};

/// One file of one domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Domain its documents belong to.
    pub domain: String,
    /// A `.txt` or `.jsonl` file.
    pub path: PathBuf,
    /// Share of the domain in the mixture, relative to the others.
    pub weight: f64,
}

impl Source {
    /// Parses `name=path:weight`, `name=path`, `path:weight` or `path`. The
    /// domain defaults to the file's name without its suffix, the weight to 1.
    /// What follows the last colon is a weight only if it is a number, and what
    /// precedes the first `=` is a name only if it holds no path separator.
    ///
    /// # Errors
    /// [`Error::Corpus`] for an empty name or path, or a weight that is not a
    /// positive finite number.
    pub fn parse(argument: &str) -> Result<Self> {
        let error = |reason: &str| Error::Corpus {
            path: PathBuf::from(argument),
            line: None,
            reason: reason.to_owned(),
        };
        let (name, rest) = match argument.split_once('=') {
            Some((name, rest)) if !name.contains(['/', '\\']) => (Some(name), rest),
            _ => (None, argument),
        };
        let weighted = rest.rsplit_once(':').and_then(|(path, tail)| {
            let weight: f64 = tail.trim().parse().ok()?;
            Some((path, weight))
        });
        let (path, weight) = weighted.unwrap_or((rest, 1.0));
        if !(weight.is_finite() && weight > 0.0) {
            return Err(error(
                "expected a positive finite weight after the last colon",
            ));
        }
        if path.is_empty() {
            return Err(error("expected a path, as in code=code.jsonl:0.5"));
        }
        let path = PathBuf::from(path);
        let domain = match name {
            Some(name) => name.trim().to_owned(),
            None => stem(&path),
        };
        if domain.is_empty() {
            return Err(error(
                "expected a domain name before `=`, as in code=code.jsonl:0.5",
            ));
        }
        Ok(Self {
            domain,
            path,
            weight,
        })
    }

    /// Every `.txt` and `.jsonl` file directly in `dir`, sorted by name, each a
    /// domain of weight 1 named after it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Corpus`] if there is no such file.
    pub fn in_directory(dir: &Path) -> Result<Vec<Self>> {
        let mut paths = std::fs::read_dir(dir)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<std::io::Result<Vec<_>>>()
            })
            .map_err(Error::io(dir))?;
        paths.retain(|path| path.is_file() && file::is_text(path));
        if paths.is_empty() {
            return Err(Error::Corpus {
                path: dir.to_path_buf(),
                line: None,
                reason: "expected .txt or .jsonl files, found none".to_owned(),
            });
        }
        paths.sort();
        Ok(paths
            .into_iter()
            .map(|path| Self {
                domain: stem(&path),
                path,
                weight: 1.0,
            })
            .collect())
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(argument: &str) -> (String, String, f64) {
        let source = Source::parse(argument).unwrap();
        (
            source.domain,
            source.path.to_string_lossy().into_owned(),
            source.weight,
        )
    }

    fn expect(argument: &str, domain: &str, path: &str, weight: f64) {
        assert_eq!(
            parsed(argument),
            (domain.to_owned(), path.to_owned(), weight),
            "{argument}"
        );
    }

    #[test]
    fn name_and_weight_are_optional() {
        expect("code=dir/a.jsonl:0.5", "code", "dir/a.jsonl", 0.5);
        expect("dir/a.jsonl:2", "a", "dir/a.jsonl", 2.0);
        expect("code=a.txt", "code", "a.txt", 1.0);
        expect("dir/a.txt", "a", "dir/a.txt", 1.0);
    }

    #[test]
    fn colons_and_equals_signs_of_paths_stay_in_them() {
        expect(r"C:\text\a.txt", r"C:\text\a", r"C:\text\a.txt", 1.0);
        expect(r"code=C:\a.txt:3", "code", r"C:\a.txt", 3.0);
        expect("a:b.txt", "a:b", "a:b.txt", 1.0);
        expect("runs/lr=1/a.txt", "a", "runs/lr=1/a.txt", 1.0);
        expect("code=runs/lr=1/a.txt", "code", "runs/lr=1/a.txt", 1.0);
    }

    #[test]
    fn bad_weights_names_and_paths_are_refused() {
        for argument in [
            "a.txt:0",
            "a.txt:-1",
            "a.txt:inf",
            "a.txt:NaN",
            "=a.txt",
            "code=",
            ":2",
            "",
        ] {
            let error = Source::parse(argument).unwrap_err();
            assert!(
                matches!(error, Error::Corpus { line: None, .. }),
                "{argument}: {error}"
            );
        }
    }

    #[test]
    fn a_directory_gives_a_domain_per_text_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Source::in_directory(dir.path()),
            Err(Error::Corpus { .. })
        ));
        for name in ["b.txt", "a.jsonl", "README.md"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let names: Vec<_> = Source::in_directory(dir.path())
            .unwrap()
            .into_iter()
            .map(|s| s.domain)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(matches!(
            Source::in_directory(&dir.path().join("none")),
            Err(Error::Io { .. })
        ));
    }
}
