use minijinja::{context, Environment};

use super::super::ordered;
use super::*;

fn try_render(filter: &str) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.add_filter("tojson", to_json);
    let value = serde_json::json!([{"content": "<é> 'a'", "b": [1, 2]}, {}, []]);
    let value = ordered::value(&value);
    environment.render_str(&format!("{{{{ value | {filter} }}}}"), context! { value })
}

fn render(filter: &str) -> String {
    try_render(filter).unwrap()
}

const PLAIN: &str = r#"[{"content": "<é> 'a'", "b": [1, 2]}, {}, []]"#;

#[test]
fn one_line_is_spaced_as_in_python_and_not_escaped() {
    assert_eq!(render("tojson"), PLAIN);
    let defaults = "tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)";
    assert_eq!(render(defaults), PLAIN);
}

#[test]
fn indented_json_has_one_value_a_line() {
    let indented = |tab: &str| {
        [
            "[",
            "\t{",
            "\t\t\"content\": \"<é> 'a'\",",
            "\t\t\"b\": [",
            "\t\t\t1,",
            "\t\t\t2",
            "\t\t]",
            "\t},",
            "\t{},",
            "\t[]",
            "]",
        ]
        .join("\n")
        .replace('\t', tab)
    };
    assert_eq!(render("tojson(indent=1)"), indented(" "));
    assert_eq!(render("tojson(indent='\t')"), indented("\t"));
    for none in ["0", "-3"] {
        assert_eq!(render(&format!("tojson(indent={none})")), indented(""));
    }
}

#[test]
fn a_hostile_indentation_is_refused() {
    for indent in ["10**15", "65", "9.5", "[1]", "'ab' * 40", "1e300"] {
        let error = try_render(&format!("tojson(indent={indent})")).unwrap_err();
        assert!(error.to_string().contains("`indent`"), "{error}");
    }
    assert!(try_render("tojson(indent=64)").is_ok());
}

#[test]
fn keywords_do_as_in_python() {
    assert_eq!(
        render("tojson(sort_keys=true)"),
        r#"[{"b": [1, 2], "content": "<é> 'a'"}, {}, []]"#
    );
    assert_eq!(
        render("tojson(ensure_ascii=true)"),
        PLAIN.replace('é', "\\u00e9")
    );
    assert_eq!(
        render("tojson(separators=(',', ':'))"),
        r#"[{"content":"<é> 'a'","b":[1,2]},{},[]]"#
    );
    for bad in ["separators=','", "separators=(1, 2)", "html=true"] {
        assert!(try_render(&format!("tojson({bad})")).is_err(), "{bad}");
    }
}

#[test]
fn characters_beyond_16_bits_are_pairs_in_ascii() {
    let mut environment = Environment::new();
    environment.add_filter("tojson", to_json);
    let template = "{{ value | tojson(ensure_ascii=true) }}";
    let value = "😀\u{7f}\n\"\u{1}";
    assert_eq!(
        environment
            .render_str(template, context! { value })
            .unwrap(),
        r#""\ud83d\ude00\u007f\n\"\u0001""#
    );
}
