//! Fields of a body by name: taken out, and checked.

use serde_json::{Map, Value};

use crate::server::problem::Problem;

/// The fields of a body.
pub(super) type Fields = Map<String, Value>;

/// The value of a field, unless it is absent or null.
pub(super) fn given<'a>(fields: &'a Fields, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// A whole number within bounds, which are included.
pub(super) fn count(
    fields: &Fields,
    field: &str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, Problem> {
    let Some(value) = given(fields, field) else {
        return Ok(None);
    };
    let number = value.as_u64().filter(|it| (least..=most).contains(it));
    number.map(Some).ok_or_else(|| {
        let expected = match most {
            u64::MAX => format!("a whole number, at least {least}"),
            _ => format!("a whole number from {least} to {most}"),
        };
        Problem::field(field, &expected, value)
    })
}

/// A number within bounds, which are included.
pub(super) fn real(
    fields: &Fields,
    field: &str,
    least: f64,
    most: f64,
) -> Result<Option<f64>, Problem> {
    let Some(value) = given(fields, field) else {
        return Ok(None);
    };
    let number = value.as_f64().filter(|it| (least..=most).contains(it));
    number
        .map(Some)
        .ok_or_else(|| Problem::field(field, &format!("a number from {least} to {most}"), value))
}

/// True or false.
pub(super) fn truth(fields: &Fields, field: &str) -> Result<Option<bool>, Problem> {
    given(fields, field)
        .map(|value| {
            let truth = value.as_bool();
            truth.ok_or_else(|| Problem::field(field, "true or false", value))
        })
        .transpose()
}

/// Refuses a field that would change the answer, unless it says what holds
/// anyway.
pub(super) fn refuse(fields: &mut Fields, field: &str, accepted: &[Value]) -> Result<(), Problem> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if accepted.contains(&value) => Ok(()),
        Some(value) => {
            let expected = match accepted {
                [] => "none: it is not supported".to_owned(),
                [first, ..] => first.to_string(),
            };
            Err(Problem::field(field, &expected, &value))
        }
    }
}
