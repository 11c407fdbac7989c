//! Finding the texts that end an answer, while it comes in pieces.

/// Holds back what may be the start of a stop text.
#[derive(Debug, Default)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Ends an answer at the first of `stops`.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// What can be said once `text` has come, and whether a stop text has:
    /// then nothing more follows.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        if let Some(at) = found.min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(self.sayable());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when nothing more comes.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes that no stop text can begin in.
    fn sayable(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| at);
        let begins = |&at: &usize| {
            let end = &self.held[at..];
            self.stops.iter().any(|stop| stop.starts_with(end))
        };
        starts.into_iter().find(begins).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of pieces, and whether they were stopped.
    fn said(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut finder = Stops::new(stops.iter().map(|&it| it.to_owned()).collect());
        let mut said = String::new();
        for piece in pieces {
            let (more, stopped) = finder.push(piece);
            said += &more;
            if stopped {
                return (said, true);
            }
        }
        (said + &finder.rest(), false)
    }

    #[test]
    fn a_stop_text_in_pieces_is_found_and_not_said() {
        for (stops, pieces, expected, stopped) in [
            (&["END"][..], &["a E", "N", "D b"][..], "a ", true),
            (&["END"], &["a E", "N", "d"], "a ENd", false),
            (&["END"], &["a EN"], "a EN", false),
            (&["xx", "b"], &["abxx"], "a", true),
            (&["aab"], &["aa", "ab"], "a", true),
            (&["ß\n"], &["süß", "\n"], "sü", true),
            (&[], &["a", "b"], "ab", false),
        ] {
            let found = said(stops, pieces);
            assert_eq!(found, (expected.to_owned(), stopped), "{pieces:?}");
        }
    }

    #[test]
    fn what_cannot_begin_a_stop_text_is_said_at_once() {
        let mut finder = Stops::new(vec!["\n\n".to_owned()]);
        assert_eq!(finder.push("one\n"), ("one".to_owned(), false));
        assert_eq!(finder.push("two"), ("\ntwo".to_owned(), false));
    }
}
