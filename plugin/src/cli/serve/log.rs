//! The line that is printed for a request.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::server::Entry;

/// `2026-11-24T14:35:30Z 200 POST /v1/completions 153 ms 12+8 tokens req-1`.
pub(super) fn text(entry: &Entry) -> String {
    let Entry {
        id,
        method,
        route,
        status,
        ms,
        prompt_tokens,
        completion_tokens,
        ..
    } = entry;
    let tokens = match prompt_tokens + completion_tokens {
        0 => String::new(),
        _ => format!(" {prompt_tokens}+{completion_tokens} tokens"),
    };
    let cut = if entry.cut { " client left" } else { "" };
    let time = utc(SystemTime::now());
    format!("{time} {status} {method} {route} {ms} ms{tokens}{cut} {id}")
}

/// The same as an object.
pub(super) fn json(entry: &Entry) -> String {
    let mut line = json!(entry);
    line["time"] = utc(SystemTime::now()).into();
    line.to_string()
}

/// A time in RFC 3339, to the second.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        second % 60
    )
}

/// The Gregorian date `days` after 1970-01-01: years are counted from March,
/// so that the leap day is the last of a year.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(utc(time), expected);
        }
    }

    #[test]
    fn a_line_has_no_words_of_the_request() {
        let entry = Entry {
            id: "req-1".to_owned(),
            method: "POST".to_owned(),
            route: "/v1/completions",
            status: 200,
            ms: 153,
            first_token_ms: Some(20),
            prompt_tokens: 12,
            completion_tokens: 8,
            cut: true,
        };
        let line = text(&entry);
        let end = "Z 200 POST /v1/completions 153 ms 12+8 tokens client left req-1";
        assert!(line.ends_with(end), "{line}");
        let line: serde_json::Value = serde_json::from_str(&json(&entry)).unwrap();
        assert_eq!(line["first_token_ms"], 20);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
}
