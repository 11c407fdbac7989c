//! One text file to documents.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::ChatTemplate;
use crate::{Error, Result};

/// Line between documents of a `.txt` file.
const SEPARATOR: &str = "<|endoftext|>";

/// How a file is cut into documents.
enum Format {
    Txt,
    Jsonl,
}

fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" => Some(Format::Txt),
        "jsonl" => Some(Format::Jsonl),
        _ => None,
    }
}

/// Whether [`read`] knows the file's suffix.
pub(super) fn is_text(path: &Path) -> bool {
    format(path).is_some()
}

/// Reads the documents of a file, at least one.
pub(super) fn read(path: &Path, template: Option<&ChatTemplate>) -> Result<Vec<String>> {
    let format = format(path).ok_or_else(|| error(path, None, "expected a .txt or .jsonl file"))?;
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes).map_err(|invalid| {
        let valid = &invalid.as_bytes()[..invalid.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        error(path, Some(line), "expected UTF-8, found other bytes")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let documents = match format {
        Format::Txt => split(text),
        Format::Jsonl => parse_lines(path, text, template)?,
    };
    if documents.is_empty() {
        return Err(error(
            path,
            None,
            "expected at least one document, found none",
        ));
    }
    Ok(documents)
}

fn error(path: &Path, line: Option<usize>, reason: impl Into<String>) -> Error {
    Error::Corpus {
        path: path.to_path_buf(),
        line,
        reason: reason.into(),
    }
}

fn split(text: &str) -> Vec<String> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut position = 0;
    let mut push = |document: &str| {
        let document = document.trim();
        if !document.is_empty() {
            documents.push(document.to_owned());
        }
    };
    for line in text.split_inclusive('\n') {
        if line.trim_end() == SEPARATOR {
            push(&text[start..position]);
            start = position + line.len();
        }
        position += line.len();
    }
    push(&text[start..]);
    documents
}

fn parse_lines(path: &Path, text: &str, template: Option<&ChatTemplate>) -> Result<Vec<String>> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let documents: Vec<Result<String>> = lines
        .into_par_iter()
        .map(|(index, line)| parse_line(path, index + 1, line, template))
        .collect();
    // In order, so that the first bad line is the one that is reported.
    documents.into_iter().collect()
}

fn parse_line(
    path: &Path,
    line: usize,
    text: &str,
    template: Option<&ChatTemplate>,
) -> Result<String> {
    let fail = |reason: String| error(path, Some(line), reason);
    let value: Value =
        serde_json::from_str(text).map_err(|source| fail(format!("not JSON: {source}")))?;
    let document = match (value.get("messages"), value.get("text"), template) {
        (Some(messages), _, Some(template)) => {
            if messages.as_array().is_none_or(Vec::is_empty) {
                return Err(fail(
                    "`messages`: expected a list with at least one message".to_owned(),
                ));
            }
            template
                .render(messages)
                .map_err(|rendering| match rendering {
                    Error::ChatTemplate { path: of, reason } => Error::ChatTemplate {
                        path: of,
                        reason: format!("{reason} (for {}:{line})", path.display()),
                    },
                    other => other,
                })?
        }
        (_, Some(Value::String(text)), _) => text.clone(),
        (_, Some(_), _) => return Err(fail("`text`: expected a string".to_owned())),
        (Some(_), None, None) => {
            return Err(Error::ChatTemplate {
                path: path.to_path_buf(),
                reason: format!(
                    "line {line} has `messages`, and the model has no template to render them"
                ),
            })
        }
        (None, None, _) => {
            return Err(fail(
                "expected an object with `text` or `messages`, found neither".to_owned(),
            ))
        }
    };
    if document.trim().is_empty() {
        return Err(fail("expected text, found an empty document".to_owned()));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(
        name: &str,
        bytes: &[u8],
        template: Option<&ChatTemplate>,
    ) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path, template)
    }

    #[track_caller]
    fn refused(name: &str, bytes: &[u8], line: Option<usize>, reason: &str) {
        let error = read_bytes(name, bytes, None).unwrap_err();
        let Error::Corpus {
            line: found,
            reason: why,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*found, line, "{error}");
        assert!(why.contains(reason), "{error}");
    }

    #[test]
    fn text_is_cut_at_separator_lines_only() {
        let text =
            "\u{feff}one <|endoftext|> still\n\n<|endoftext|>\r\n\n<|endoftext|>\ntwo\nlines\n";
        let documents = read_bytes("a.txt", text.as_bytes(), None).unwrap();
        assert_eq!(documents, ["one <|endoftext|> still", "two\nlines"]);
    }

    #[test]
    fn text_without_a_separator_is_one_document() {
        assert_eq!(read_bytes("a.TXT", b"a\n\nb\n", None).unwrap(), ["a\n\nb"]);
    }

    #[test]
    fn lines_hold_text_or_messages() {
        let lines = concat!(
            "{\"text\": \"a\\nb\", \"id\": 1}\n\n",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"text\": \"fallback\"}\n"
        );
        let plain = ChatTemplate::plain().unwrap();
        let documents = read_bytes("a.jsonl", lines.as_bytes(), Some(&plain)).unwrap();
        assert_eq!(documents, ["a\nb", "User: hi"]);
        let documents = read_bytes("a.jsonl", lines.as_bytes(), None).unwrap();
        assert_eq!(documents, ["a\nb", "fallback"]);
    }

    #[test]
    fn messages_alone_need_a_template() {
        let line = b"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
        let error = read_bytes("a.jsonl", line, None).unwrap_err();
        assert!(
            matches!(&error, Error::ChatTemplate { reason, .. } if reason.contains("line 1")),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn bad_lines_are_named() {
        let good = "{\"text\": \"a\"}\n";
        for (bad, reason) in [
            ("{\"text\": ", "not JSON"),
            ("{\"prompt\": \"a\"}", "found neither"),
            ("[1]", "found neither"),
            ("{\"text\": 3}", "expected a string"),
            ("{\"text\": \"  \"}", "empty document"),
        ] {
            refused(
                "a.jsonl",
                format!("{good}\n{bad}\n{bad}\n").as_bytes(),
                Some(3),
                reason,
            );
        }
        let plain = ChatTemplate::plain().unwrap();
        let error = read_bytes("a.jsonl", b"{\"messages\": []}", Some(&plain)).unwrap_err();
        assert!(
            matches!(error, Error::Corpus { line: Some(1), .. }),
            "{error}"
        );
    }

    #[test]
    fn unusable_files_are_named() {
        refused("a.txt", b"\n<|endoftext|>\n \n", None, "found none");
        refused("a.jsonl", b"\n", None, "found none");
        refused("a.txt", b"ok\nbad \xff\n", Some(2), "UTF-8");
        refused("a.csv", b"text", None, ".txt or .jsonl");
        refused("a", b"text", None, ".txt or .jsonl");
        assert!(matches!(
            read(Path::new("/nonexistent/a.txt"), None),
            Err(Error::Io { .. })
        ));
    }
}
