//! How large the pruned model may be: `12GiB`, or `15B` parameters.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Size;
use crate::error::{Error, Result};
use crate::format;

/// Units of bytes, the larger before the smaller of each kind.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of parameters, in the field's spelling.
const PARAMETER_UNITS: &[(&str, u64)] = &[
    ("T", 1_000_000_000_000),
    ("B", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
    ("", 1),
];

/// What the pruned model may have at most. Displays as the flag that asks for
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeTarget {
    /// Bytes of all tensors in the dtypes of the checkpoint, as
    /// [`Size::bytes`].
    Bytes(u64),
    /// Weights, as [`Size::parameters`].
    Parameters(u64),
}

impl SizeTarget {
    const SIZE: &'static str = "--target-size";
    const PARAMS: &'static str = "--target-params";

    /// Reads `12GiB`, `9.5GB` or `800MB`; a number alone is bytes.
    ///
    /// # Errors
    /// [`Error::Option`]
    pub fn parse_bytes(text: &str) -> Result<Self> {
        let number = parse(text, BYTE_UNITS);
        number
            .map(Self::Bytes)
            .ok_or_else(|| refused(Self::SIZE, "a size such as 12GiB, 9GB or 800MB", text))
    }

    /// Reads `15B`, `1.5B` or `700M`; a number alone is parameters.
    ///
    /// # Errors
    /// [`Error::Option`]
    pub fn parse_parameters(text: &str) -> Result<Self> {
        let number = parse(text, PARAMETER_UNITS);
        number.map(Self::Parameters).ok_or_else(|| {
            refused(
                Self::PARAMS,
                "a number of parameters such as 15B or 700M",
                text,
            )
        })
    }

    /// Whether a model of `size` is small enough.
    pub fn holds(self, size: &Size) -> bool {
        match self {
            Self::Bytes(most) => size.bytes <= most,
            Self::Parameters(most) => size.parameters <= most,
        }
    }

    /// What it limits, of a model of `size`: `3.20 GB`, or `1.50 B parameters`.
    pub fn measure(self, size: &Size) -> String {
        match self {
            Self::Bytes(_) => format::bytes(size.bytes),
            Self::Parameters(_) => format!("{} parameters", format::parameters(size.parameters)),
        }
    }

    /// The value without its flag, exact and in the largest unit: `12GiB`.
    pub fn value(self) -> String {
        match self {
            Self::Bytes(number) => spell(number, BYTE_UNITS),
            Self::Parameters(number) => spell(number, PARAMETER_UNITS),
        }
    }
}

impl fmt::Display for SizeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = match self {
            Self::Bytes(_) => Self::SIZE,
            Self::Parameters(_) => Self::PARAMS,
        };
        write!(f, "{flag} {}", self.value())
    }
}

/// A number above 0 with one of `units`, in any case, rounded down.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let scale = if unit.is_empty() {
        1
    } else {
        let named = |&&(name, _): &&(&str, u64)| name.eq_ignore_ascii_case(unit);
        units.iter().find(named)?.1
    };
    let whole = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale));
    let parsed = whole.or_else(|| {
        let scaled = number.parse::<f64>().ok()? * scale as f64;
        (scaled < u64::MAX as f64).then_some(scaled as u64)
    });
    parsed.filter(|&n| n > 0)
}

/// `number` in the unit that divides it with the fewest digits left.
fn spell(number: u64, units: &[(&str, u64)]) -> String {
    let exact = units
        .iter()
        .filter(|&&(_, scale)| number.is_multiple_of(scale));
    exact
        .map(|(name, scale)| format!("{}{name}", number / scale))
        .min_by_key(String::len)
        .unwrap_or_else(|| number.to_string())
}

fn refused(option: &'static str, expected: &str, found: &str) -> Error {
    Error::Option {
        option,
        expected: expected.to_owned(),
        found: format!("`{found}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_are_spelled_back() {
        for (text, bytes, spelled) in [
            ("12GiB", 12 << 30, "12GiB"),
            ("1.5 gib", 3 << 29, "1536MiB"),
            ("9GB", 9_000_000_000, "9GB"),
            ("9.5GB", 9_500_000_000, "9500MB"),
            ("800MB", 800_000_000, "800MB"),
            ("64kb", 64_000, "64kB"),
            ("123", 123, "123B"),
            ("1.7B", 1, "1B"),
        ] {
            let target = SizeTarget::parse_bytes(text).unwrap();
            assert_eq!(target, SizeTarget::Bytes(bytes), "{text}");
            assert_eq!(target.to_string(), format!("--target-size {spelled}"));
            assert_eq!(SizeTarget::parse_bytes(spelled).unwrap(), target);
        }
    }

    #[test]
    fn parameters_parse_and_are_spelled_back() {
        for (text, number, spelled) in [
            ("15B", 15_000_000_000, "15B"),
            ("1.5B", 1_500_000_000, "1500M"),
            ("700M", 700_000_000, "700M"),
            ("12345", 12_345, "12345"),
        ] {
            let target = SizeTarget::parse_parameters(text).unwrap();
            assert_eq!(target, SizeTarget::Parameters(number), "{text}");
            assert_eq!(target.to_string(), format!("--target-params {spelled}"));
            assert_eq!(SizeTarget::parse_parameters(spelled).unwrap(), target);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1GB", "0", "0.1B", "12 giraffes", "1.2.3GB"] {
            let error = SizeTarget::parse_bytes(text).unwrap_err();
            assert!(error.is_usage(), "{text}");
            assert!(error
                .to_string()
                .starts_with("--target-size: expected a size"));
        }
        for text in ["15GiB", "many", "1e99B", "99999999999T"] {
            assert!(SizeTarget::parse_parameters(text).is_err(), "{text}");
        }
    }
}
