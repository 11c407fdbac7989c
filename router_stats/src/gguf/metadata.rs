//! Keys and values, in order, unknown ones included.

use std::path::Path;

use super::{Array, Value};
use crate::Error;

/// Keys and values in the order of the file. A rewrite leaves those alone that
/// it does not set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(Vec<(String, Value)>);

/// A key is absent, or holds something that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Unusable {
    /// The key.
    pub key: String,
    /// What it must hold.
    pub expected: String,
    /// What it holds.
    pub found: String,
}

impl Unusable {
    /// The public error about the file at `path`.
    pub fn at(self, path: &Path) -> Error {
        Error::Config {
            path: path.to_path_buf(),
            field: self.key,
            expected: self.expected,
            found: self.found,
        }
    }
}

impl Metadata {
    /// Entries in this order; of a repeated key, the last value.
    pub fn new(entries: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut metadata = Self::default();
        for (key, value) in entries {
            metadata.set(key, value);
        }
        metadata
    }

    /// Entries whose keys are known to differ.
    pub(super) fn distinct(entries: Vec<(String, Value)>) -> Self {
        Self(entries)
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[(String, Value)] {
        &self.0
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let entry = self.0.iter().find(|(known, _)| known == key)?;
        Some(&entry.1)
    }

    /// Whether there is `key`.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, in its place if there is one, else at the end.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    /// A positive count.
    ///
    /// # Errors
    /// [`Unusable`] if it is absent or not between 1 and 2³¹.
    pub fn count(&self, key: &str) -> Result<usize, Unusable> {
        self.get(key)
            .and_then(Value::natural)
            .filter(|count| (1..1 << 31).contains(count))
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| self.unusable(key, "a positive integer below 2147483648"))
    }

    /// A positive count, `None` if it is absent.
    ///
    /// # Errors
    /// [`Unusable`] if it is something else.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>, Unusable> {
        self.has(key).then(|| self.count(key)).transpose()
    }

    /// A finite number, `None` if it is absent.
    ///
    /// # Errors
    /// [`Unusable`] if it is something else.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, Unusable> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.number();
        number
            .map(Some)
            .ok_or_else(|| self.unusable(key, "a number"))
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`Unusable`] if it is absent or something else.
    pub fn number(&self, key: &str) -> Result<f64, Unusable> {
        self.optional_number(key)?
            .ok_or_else(|| self.unusable(key, "a number"))
    }

    /// Text, `None` if it is absent.
    ///
    /// # Errors
    /// [`Unusable`] if it is something else.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, Unusable> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let text = value.text();
        text.map(Some).ok_or_else(|| self.unusable(key, "text"))
    }

    /// Text.
    ///
    /// # Errors
    /// [`Unusable`] if it is absent or something else.
    pub fn text(&self, key: &str) -> Result<&str, Unusable> {
        self.optional_text(key)?
            .ok_or_else(|| self.unusable(key, "text"))
    }

    /// A flag, `None` if it is absent.
    ///
    /// # Errors
    /// [`Unusable`] if it is something else.
    pub fn optional_flag(&self, key: &str) -> Result<Option<bool>, Unusable> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let flag = value.flag();
        flag.map(Some)
            .ok_or_else(|| self.unusable(key, "true or false"))
    }

    /// Texts.
    ///
    /// # Errors
    /// [`Unusable`] if they are absent or something else.
    pub fn texts(&self, key: &str) -> Result<&[String], Unusable> {
        match self.get(key) {
            Some(Value::Array(Array::String(texts))) => Ok(texts),
            _ => Err(self.unusable(key, "an array of texts")),
        }
    }

    /// An [`Unusable`] about `key`, quoting what it holds.
    pub fn unusable(&self, key: &str, expected: &str) -> Unusable {
        Unusable {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: self
                .get(key)
                .map_or_else(|| "nothing".to_owned(), Value::describe),
        }
    }
}
