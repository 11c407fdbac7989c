//! Typed reads from `config.json`, which stays a JSON value so that unknown
//! keys survive.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

const MAX_LAYERS: usize = 65_536;

/// A model's `config.json` and where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    value: Value,
    /// What the names of fields in errors begin with: `text_config.`.
    prefix: String,
}

impl Config {
    /// Wraps a parsed configuration; `path` is only used in errors.
    ///
    /// # Errors
    /// [`Error::Config`] if `value` is not an object.
    pub fn new(path: impl Into<PathBuf>, value: Value) -> Result<Self> {
        let config = Self {
            path: path.into(),
            value,
            prefix: String::new(),
        };
        match config.value {
            Value::Object(_) => Ok(config),
            _ => Err(config.error("(root)", "an object")),
        }
    }

    /// The object in `field`, as a configuration of its own whose errors say
    /// where it is.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub fn section(&self, field: &str) -> Result<Self> {
        match self.value.get(field) {
            Some(value @ Value::Object(_)) => Ok(Self {
                path: self.path.clone(),
                value: value.clone(),
                prefix: format!("{}{field}.", self.prefix),
            }),
            _ => Err(self.error(field, "an object")),
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole configuration.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// First entry of `architectures`.
    pub fn architecture(&self) -> Option<&str> {
        self.value.get("architectures")?.get(0)?.as_str()
    }

    /// `model_type`.
    pub fn model_type(&self) -> Option<&str> {
        self.value.get("model_type")?.as_str()
    }

    /// True if `field` is present and not null.
    pub fn has(&self, field: &str) -> bool {
        self.value.get(field).is_some_and(|v| !v.is_null())
    }

    /// A positive count that must be present. Counts above 2³¹ are refused, so
    /// that products of a few of them cannot overflow.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn count(&self, field: &str) -> Result<usize> {
        self.value
            .get(field)
            .and_then(Value::as_u64)
            .filter(|n| (1..1 << 31).contains(n))
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.error(field, "a positive integer below 2147483648"))
    }

    /// A positive count with a default for when it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not a positive integer.
    pub fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        if self.has(field) {
            self.count(field)
        } else {
            Ok(default)
        }
    }

    /// A positive count, or `None` if it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not a positive integer.
    pub fn optional_count(&self, field: &str) -> Result<Option<usize>> {
        self.has(field).then(|| self.count(field)).transpose()
    }

    /// The positive count that two spellings of one field agree on.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none or they do not.
    pub fn spelled_count(&self, [usual, other]: [&str; 2]) -> Result<usize> {
        if !self.has(other) {
            return self.count(usual);
        }
        let count = self.count(other)?;
        if self.count_or(usual, count)? != count {
            return Err(self.error(usual, &format!("{count}, as {other} says")));
        }
        Ok(count)
    }

    /// A count that may be 0, with a default for when it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not an integer below 2³¹.
    pub fn natural_or(&self, field: &str, default: usize) -> Result<usize> {
        match self.value.get(field).and_then(Value::as_u64) {
            Some(0) => Ok(0),
            _ => self.count_or(field, default),
        }
    }

    /// A positive finite number with a default for when it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not such a number.
    pub fn positive_or(&self, field: &str, default: f64) -> Result<f64> {
        if self.has(field) {
            self.positive(field)
        } else {
            Ok(default)
        }
    }

    /// A finite number that must be present.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn number(&self, field: &str) -> Result<f64> {
        self.value
            .get(field)
            .and_then(Value::as_f64)
            .filter(|x| x.is_finite())
            .ok_or_else(|| self.error(field, "a number"))
    }

    /// A finite number with a default for when it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not such a number.
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        if self.has(field) {
            self.number(field)
        } else {
            Ok(default)
        }
    }

    /// A positive finite number that must be present.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn positive(&self, field: &str) -> Result<f64> {
        self.number(field)
            .ok()
            .filter(|&x| x > 0.0)
            .ok_or_else(|| self.error(field, "a positive number"))
    }

    /// A list of `len` positive finite numbers.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn positives(&self, field: &str, len: usize) -> Result<Vec<f64>> {
        self.value
            .get(field)
            .and_then(Value::as_array)
            .filter(|list| list.len() == len)
            .and_then(|list| list.iter().map(positive).collect())
            .ok_or_else(|| self.error(field, &format!("a list of {len} positive numbers")))
    }

    /// Number of blocks, from `num_hidden_layers`. Structures of one entry per
    /// layer are allocated before any weight is seen, so it is bounded.
    ///
    /// # Errors
    /// [`Error::Config`] if it is absent or not between 1 and 65536.
    pub fn layers(&self) -> Result<usize> {
        let field = "num_hidden_layers";
        self.count(field)
            .ok()
            .filter(|&layers| layers <= MAX_LAYERS)
            .ok_or_else(|| self.error(field, "a positive integer up to 65536"))
    }

    /// A flag with a default for when it is absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not a boolean.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        if !self.has(field) {
            return Ok(default);
        }
        self.value
            .get(field)
            .and_then(Value::as_bool)
            .ok_or_else(|| self.error(field, "true or false"))
    }

    /// A list of layer indices; empty if absent or null.
    ///
    /// # Errors
    /// [`Error::Config`] if it is present and not a list of integers.
    pub fn indices(&self, field: &str) -> Result<Vec<usize>> {
        if !self.has(field) {
            return Ok(Vec::new());
        }
        self.value
            .get(field)
            .and_then(Value::as_array)
            .and_then(|list| {
                list.iter()
                    .map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
                    .collect()
            })
            .ok_or_else(|| self.error(field, "a list of layer indices"))
    }

    /// Fails unless `field` is absent, null or one of `accepted`.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn require_one_of(&self, field: &str, accepted: &[&str]) -> Result<()> {
        match self.value.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(s)) if accepted.contains(&s.as_str()) => Ok(()),
            Some(_) => Err(self.error(field, &accepted.join(" or "))),
        }
    }

    /// An [`Error::Config`] about `field`, quoting what it holds.
    pub fn error(&self, field: &str, expected: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            expected: expected.to_owned(),
            found: match self.value.get(field) {
                None => "nothing".to_owned(),
                Some(value) => {
                    let mut text = value.to_string();
                    if text.len() > 80 {
                        text.truncate(
                            (0..=80)
                                .rev()
                                .find(|&i| text.is_char_boundary(i))
                                .unwrap_or(0),
                        );
                        text.push('…');
                    }
                    text
                }
            },
        }
    }
}

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|x| x.is_finite() && *x > 0.0)
}

#[cfg(test)]
mod tests;
