//! Where a continuation ends.

/// The part of `text` before the earliest of the stop strings; `None` if none
/// occurs. An empty stop string never does.
pub fn before_stop<'a>(text: &'a str, stop: &[String]) -> Option<&'a str> {
    stop.iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop.as_str()))
        .min()
        .map(|end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_stop_string_counts() {
        let stop = ["\n\n", "Q:"].map(str::to_owned);
        assert_eq!(before_stop("one\nQ: two\n\n", &stop), Some("one\n"));
        assert_eq!(before_stop("Q:", &stop), Some(""));
        assert_eq!(before_stop("one\ntwo", &stop), None);
        assert_eq!(before_stop("one", &[String::new()]), None);
    }
}
