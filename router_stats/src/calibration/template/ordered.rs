//! JSON for templates, objects keeping the order of their keys as Python's do.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::Value;

/// An object in the order in which it was written, so that templates that
/// print or loop over tool arguments give what the model was trained on.
#[derive(Debug)]
struct Ordered(Vec<(Value, Value)>);

impl Object for Ordered {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let entry = self.0.iter().find(|(name, _)| name == key)?;
        Some(entry.1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| name.clone()).collect())
    }
}

/// The template value of a JSON value.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Array(items) => items.iter().map(value).collect(),
        serde_json::Value::Object(entries) => Value::from_object(Ordered(
            entries
                .iter()
                .map(|(name, item)| (Value::from(name.as_str()), value(item)))
                .collect(),
        )),
        scalar => Value::from_serialize(scalar),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{context, Environment};
    use minijinja_contrib::pycompat::unknown_method_callback;

    use super::*;

    fn render(template: &str) -> String {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(unknown_method_callback);
        let json = serde_json::json!({"zeta": 1, "alpha": [null, {"b": true, "a": "x"}]});
        environment
            .render_str(template, context! { v => value(&json) })
            .unwrap()
    }

    #[test]
    fn keys_keep_their_order() {
        assert_eq!(
            render("{% for k in v %}{{ k }} {% endfor %}"),
            "zeta alpha "
        );
        assert_eq!(
            render("{% for k, x in v.items() %}{{ k }} {% endfor %}"),
            "zeta alpha "
        );
        assert_eq!(render("{{ v.alpha[1] }}"), r#"{"b": True, "a": "x"}"#);
    }

    #[test]
    fn members_are_found_and_types_kept() {
        let template =
            "{{ v['zeta'] + 1 }} {{ v.alpha[1].a }} {{ v is mapping }} {{ v.alpha[0] is none }} \
             {{ 'zeta' in v }} {{ v.none is defined }} {{ v.get('none', 7) }}";
        assert_eq!(render(template), "2 x True True True False 7");
    }
}
