//! A value of the configuration file, as a flag takes it.

use clap::{Arg, ArgAction};
use toml::Value;

/// What the file says of one flag.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Setting {
    /// Of a flag that has no value: whether it is given.
    Given(bool),
    /// Of a flag that is repeated for more.
    Times(u8),
    /// Of a flag that has values.
    Values(Vec<String>),
}

impl Setting {
    /// Reads a value.
    ///
    /// # Errors
    /// The kinds of value that the flag takes, and the kind that was found.
    pub(super) fn new(flag: &Arg, value: &Value) -> Result<Self, (&'static str, &'static str)> {
        match (flag.get_action(), value) {
            (ArgAction::SetTrue, Value::Boolean(given)) => return Ok(Self::Given(*given)),
            (ArgAction::SetTrue, _) => return Err(("true or false", kind(value))),
            (ArgAction::Count, value) => {
                let times = value
                    .as_integer()
                    .and_then(|times| u8::try_from(times).ok());
                return times
                    .map(Self::Times)
                    .ok_or(("a number of times", kind(value)));
            }
            _ => {}
        }
        let several =
            matches!(flag.get_action(), ArgAction::Append) || flag.get_value_delimiter().is_some();
        let expected = match several {
            true => "a string, a number or an array of them",
            false => "a string or a number",
        };
        let values = match value {
            Value::Array(values) if several => values.iter().map(scalar).collect(),
            value => scalar(value).map(|value| vec![value]),
        };
        values.map(Self::Values).ok_or((expected, kind(value)))
    }
}

/// A value as it would be typed.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}
