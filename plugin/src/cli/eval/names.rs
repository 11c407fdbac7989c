//! Names that a report tells models apart by.

use std::collections::BTreeSet;

/// `name`, or if that is taken `name (kind)`, then `name (kind 2)` and so on: a
/// report tells models apart by their names.
pub(super) fn distinct(name: &str, kind: &str, taken: &mut BTreeSet<String>) -> String {
    let mut unique = name.to_owned();
    let mut count = 1;
    while !taken.insert(unique.clone()) {
        unique = if count == 1 {
            format!("{name} ({kind})")
        } else {
            format!("{name} ({kind} {count})")
        };
        count += 1;
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_unique() {
        let mut taken = BTreeSet::from(["half".to_owned()]);
        let names = [
            ("half", "plan"),
            ("half", "plan"),
            ("half", "checkpoint"),
            ("other", "checkpoint"),
        ]
        .map(|(name, kind)| distinct(name, kind, &mut taken));
        assert_eq!(
            names,
            ["half (plan)", "half (plan 2)", "half (checkpoint)", "other"]
        );
    }
}
