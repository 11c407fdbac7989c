//! Files that are read and files that are refused.

use super::*;

const CHOICE: &str = r#"{"query": "Q", "choices": ["a", "b"], "gold": 0}"#;

/// Reads a file of these bytes.
fn read(bytes: &[u8], limit: Option<usize>) -> Result<TaskSet> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quiz.jsonl");
    std::fs::write(&path, bytes).unwrap();
    TaskSet::read(path.to_str().unwrap(), limit)
}

#[test]
fn a_file_is_read_by_its_fields() {
    let text = format!("\u{feff}{CHOICE}\n\n  \r\n{CHOICE}\r\n");
    let set = read(text.as_bytes(), None).unwrap();
    assert_eq!((set.name.as_str(), set.records.len()), ("quiz", 2));
    assert_eq!(set.kind.name(), "multiple_choice");
    for (record, kind) in [
        (
            r#"{"contexts": ["a", "b"], "continuation": " c", "gold": 1}"#,
            "partial",
        ),
        (r#"{"context": "a", "continuation": "b"}"#, "last_word"),
        (r#"{"question": "a", "answer": "1"}"#, "worked_answer"),
        (r#"{"prompt": "a", "answer": "b"}"#, "exact_match"),
    ] {
        assert_eq!(read(record.as_bytes(), None).unwrap().kind.name(), kind);
    }
}

#[test]
fn a_name_may_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a=b.jsonl");
    std::fs::write(&path, CHOICE).unwrap();
    let path = path.to_str().unwrap();
    let name = |argument: &str| TaskSet::read(argument, None).unwrap().name;
    assert_eq!(name(&format!("mine={path}")), "mine");
    assert_eq!(name(path), "a=b");
    for argument in ["", "=x.jsonl", "x="] {
        let error = TaskSet::read(argument, None).unwrap_err().to_string();
        assert!(error.contains("NAME=FILE.jsonl"), "{error}");
    }
    assert!(matches!(
        TaskSet::read("/no/such.jsonl", None),
        Err(Error::Io { .. })
    ));
}

#[test]
fn the_limit_takes_the_first_and_the_hash_sees_what_is_used() {
    let other = CHOICE.replace("Q", "R");
    let text = format!("{CHOICE}\n{other}\nnot read\n");
    let two = read(text.as_bytes(), Some(2)).unwrap();
    let one = read(text.as_bytes(), Some(1)).unwrap();
    assert_eq!((one.records.len(), two.records.len()), (1, 2));
    assert_ne!(one.hash, two.hash);
    assert_eq!(one.hash, read(CHOICE.as_bytes(), None).unwrap().hash);
    let spaced = CHOICE.replace(", ", " ,  ");
    assert_eq!(one.hash, read(spaced.as_bytes(), None).unwrap().hash);
    assert_eq!(one.hash.len(), 64);
    assert!(read(text.as_bytes(), Some(0)).is_err());
}

#[test]
fn bad_files_are_refused_by_line_and_field() {
    let on_line_2 = |line: &str| format!("{CHOICE}\n{line}\n").into_bytes();
    for (bytes, message) in [
        (b"".to_vec(), "quiz.jsonl: expected at least one record"),
        (b"\n \n".to_vec(), "expected at least one record"),
        (on_line_2("{"), "quiz.jsonl:2: not JSON"),
        (
            on_line_2("[1]"),
            "quiz.jsonl:2: expected the fields of multiple_choice as on the lines before, \
             found a list",
        ),
        (
            on_line_2(r#"{"prompt": "a", "answer": "b"}"#),
            "found `prompt`, `answer`",
        ),
        (
            on_line_2(&CHOICE.replace("\"gold\": 0", "\"gold\": -1")),
            "quiz.jsonl:2: `gold`: expected an integer from 0 to 1, found -1",
        ),
        (
            on_line_2(&CHOICE.replace("\"b\"", "7")),
            "`choices`: expected a list of at least 2 strings that are not empty, found 7",
        ),
        (
            b"{}".to_vec(),
            "quiz.jsonl:1: expected the fields of one of multiple_choice, partial, \
             last_word, worked_answer, exact_match, found an object without fields",
        ),
        (b"null".to_vec(), "found null"),
        (
            b"{\"task_id\": 1, \"prompt\": \"def f\"}".to_vec(),
            "found `task_id`, `prompt`",
        ),
        (
            [CHOICE.as_bytes(), b"\n\xff\n"].concat(),
            "quiz.jsonl:2: expected UTF-8",
        ),
    ] {
        let error = read(&bytes, None).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some());
    }
    let long = format!(r#"{{"query": {}, "choices": 1}}"#, "[".repeat(100_000));
    assert!(read(long.as_bytes(), None).is_err(), "nested too deep");
}

#[test]
fn synthetic_sets_are_named_alone() {
    let set = TaskSet::open("arithmetic", None, 5).unwrap();
    assert_eq!((set.records.len(), set.kind.name()), (ITEMS, "exact_match"));
    assert_eq!(
        set.hash,
        TaskSet::make("arithmetic", ITEMS, 5).unwrap().hash
    );
    assert_ne!(
        set.hash,
        TaskSet::make("arithmetic", ITEMS, 6).unwrap().hash
    );
    for set in ["brackets", "copy"] {
        let set = TaskSet::open(set, Some(3), 0).unwrap();
        assert_eq!(set.records.len(), 3);
    }
    let error = TaskSet::make("poetry", 1, 0).unwrap_err().to_string();
    assert!(error.contains("found `poetry`"), "{error}");
    assert!(TaskSet::make("copy", 0, 0).is_err());
}
