//! Numbers as people read them.

use std::time::Duration;

/// `65,536`.
pub(crate) use prune_eval::report::thousands as count;

/// `9.1k`, three significant digits at most, no unit.
pub(crate) fn short(x: f64) -> String {
    scaled(x, "")
}

/// `61.1 GB`, decimal units.
pub(crate) fn bytes(n: u64) -> String {
    unit(n, "B")
}

/// `30.5 B` parameters, in the field's spelling: K, M, B, T.
pub(crate) fn parameters(n: u64) -> String {
    let (value, suffix) = scale(n as f64);
    let suffix = match suffix {
        "k" => "K",
        "G" => "B",
        other => other,
    };
    format!("{} {suffix}", digits(value)).trim_end().to_owned()
}

/// Five digits, with an exponent only where they would not do.
pub(crate) fn score(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e6 => {
            let whole = x.abs().log10().floor().max(0.0) as usize;
            format!("{x:.*}", 4usize.saturating_sub(whole))
        }
        _ => format!("{x:.3e}"),
    }
}

/// `−38.2%` of a fraction that was gained or lost.
pub(crate) fn change(fraction: f64) -> String {
    format!("{:+.1}%", fraction * 100.0).replace('-', "−")
}

/// `8`, or `8–16` of numbers that differ. Zeros do not count.
pub(crate) fn range(numbers: impl Iterator<Item = usize> + Clone) -> String {
    let numbers = numbers.filter(|&n| n > 0);
    match (numbers.clone().min(), numbers.max()) {
        (Some(least), Some(most)) if least < most => format!("{least}–{most}"),
        (least, _) => least.unwrap_or(0).to_string(),
    }
}

/// `1m52s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 if time < Duration::from_secs(10) => format!("{:.1}s", time.as_secs_f64()),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `9.1k tok`, or `1.2 GB` for bytes.
pub(crate) fn amount(n: u64, of: &str) -> String {
    if of == "B" {
        bytes(n)
    } else {
        format!("{} {of}", short(n as f64))
    }
}

fn unit(n: u64, of: &str) -> String {
    let (value, suffix) = scale(n as f64);
    format!(
        "{} {suffix}{of}",
        if suffix.is_empty() {
            value.to_string()
        } else {
            digits(value)
        }
    )
}

fn scaled(x: f64, gap: &str) -> String {
    let (value, suffix) = scale(x);
    if suffix.is_empty() && value.fract() == 0.0 {
        return format!("{value}{gap}");
    }
    format!("{}{gap}{suffix}", digits(value))
}

fn scale(mut x: f64) -> (f64, &'static str) {
    let mut suffix = "";
    for next in ["k", "M", "G", "T"] {
        // Below this, three significant digits still fit the smaller unit.
        if x < 999.5 {
            break;
        }
        x /= 1000.0;
        suffix = next;
    }
    (x, suffix)
}

fn digits(x: f64) -> String {
    if x < 9.995 {
        format!("{x:.2}")
    } else if x < 99.95 {
        format!("{x:.1}")
    } else {
        format!("{x:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_prose() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(65_536), "65,536");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(short(9_100.0), "9.10k");
        assert_eq!(short(42.0), "42");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(61_066_575_872), "61.1 GB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(parameters(30_532_122_624), "30.5 B");
        assert_eq!(parameters(8_700_000), "8.70 M");
        assert_eq!(parameters(12), "12.0");
        assert_eq!(score(3.91534), "3.9153");
        assert_eq!(score(65.94701), "65.947");
        assert_eq!(score(4095.0), "4095.0");
        assert_eq!(score(123_456.7), "123457");
        assert_eq!(score(-0.25), "-0.2500");
        assert_eq!(score(1.5e-7), "1.500e-7");
        assert_eq!(score(0.0), "0");
        assert_eq!(amount(1_200_000_000, "B"), "1.20 GB");
        assert_eq!(amount(65_536, "tok"), "65.5k tok");
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(change(-0.382), "−38.2%");
        assert_eq!(change(0.0475), "+4.8%");
        assert_eq!(change(0.0), "+0.0%");
    }

    #[test]
    fn durations_keep_two_units() {
        assert_eq!(duration(Duration::from_millis(1234)), "1.2s");
        assert_eq!(duration(Duration::from_secs(59)), "59s");
        assert_eq!(duration(Duration::from_secs(112)), "1m52s");
        assert_eq!(duration(Duration::from_secs(3661)), "1h01m");
    }

    #[test]
    fn ranges_leave_zeros_out() {
        assert_eq!(range([16, 0, 8, 9].into_iter()), "8–16");
        assert_eq!(range([8, 8, 0].into_iter()), "8");
        assert_eq!(range([0].into_iter()), "0");
    }
}
