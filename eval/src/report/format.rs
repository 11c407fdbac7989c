//! Numbers, names and lines as text.

use crate::compare::Estimate;
use crate::evaluator::Unit;

/// How far continued lines are indented.
const INDENT: &str = "  ";

/// `+14.1% [+13.2, +15.1]`; without an interval `+14.1% [?]`.
pub(crate) fn cell(unit: Unit, signed: bool, estimate: &Estimate) -> String {
    let value = number(unit, signed, estimate.value);
    let bare = |x| number(unit, signed, x).trim_end_matches('%').to_owned();
    match estimate.interval() {
        Some((low, high)) => format!("{value} [{}, {}]", bare(low), bare(high)),
        None => format!("{value} [?]"),
    }
}

/// A number as its unit is written, with a sign if it is a change.
pub(crate) fn number(unit: Unit, signed: bool, value: f64) -> String {
    let (value, digits, suffix) = match unit {
        Unit::Nats | Unit::Bits => (value, 4, ""),
        Unit::Perplexity if value.abs() >= 1000.0 => (value, 0, ""),
        Unit::Perplexity => (value, 2, ""),
        Unit::Percent => (100.0 * value, 1, "%"),
    };
    let value = rounded(value, digits);
    let digits = digits as usize;
    if signed {
        format!("{value:+.digits$}{suffix}")
    } else {
        format!("{value:.digits$}{suffix}")
    }
}

/// A p-value to three decimals; smaller ones as a bound.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 {
        "<0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

/// Rounds to decimals, and −0 to 0.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale + 0.0
}

/// A number with its digits in groups of three: `32,704`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The start of a SHA-256 in hex; anything else as it is.
pub(crate) fn short(hash: &str) -> String {
    let longest = if hash.len() == 64 { 12 } else { usize::MAX };
    hash.chars().take(longest).collect()
}

pub(crate) fn length(text: &str) -> usize {
    text.chars().count()
}

pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(length(text))))
}

/// Cuts a name in the middle, where names that share a prefix and a suffix
/// differ least often at the ends.
pub(crate) fn shortened(name: &str, longest: usize) -> String {
    let n = length(name);
    if n <= longest {
        return name.to_owned();
    }
    let (head, tail) = (longest / 2, longest - longest / 2 - 1);
    name.chars()
        .take(head)
        .chain(['…'])
        .chain(name.chars().skip(n - tail))
        .collect()
}

/// Breaks at spaces; continued lines are indented.
pub(crate) fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.len() - 1;
        let current = &mut lines[last];
        if current.trim().is_empty() {
            current.push_str(word);
        } else if length(current) + 1 + length(word) <= width {
            current.push(' ');
            current.push_str(word);
        } else {
            lines.push(format!("{INDENT}{word}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_by_unit() {
        let estimate = |value, low, high| Estimate {
            value,
            low: Some(low),
            high: Some(high),
        };
        assert_eq!(
            cell(Unit::Percent, true, &estimate(0.141, 0.132, 0.151)),
            "+14.1% [+13.2, +15.1]"
        );
        assert_eq!(
            cell(Unit::Perplexity, false, &estimate(9.9412, 9.8, 10.0)),
            "9.94 [9.80, 10.00]"
        );
        assert_eq!(
            cell(
                Unit::Nats,
                false,
                &Estimate {
                    value: 2.0,
                    low: None,
                    high: None
                }
            ),
            "2.0000 [?]"
        );
        assert_eq!(number(Unit::Percent, true, -0.0001), "+0.0%");
        assert_eq!(number(Unit::Perplexity, false, 12345.6), "12346");
        assert_eq!(
            [0, 999, 1000, 1234567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0, 9e-4, 0.001, 0.04951, 1.0].map(p_value),
            ["<0.001", "<0.001", "0.001", "0.050", "1.000"]
        );
        assert_eq!(shortened("frequency-50-percent", 9), "freq…cent");
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 80), ["one two three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "  three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }
}
