//! Looking things up by name in the `const` slices that list them.

use crate::{Error, Result};

/// Finds the entry of `registry` whose `name_of` is `name`.
///
/// # Errors
/// [`Error::Unknown`] with the known names; `what` says what they name.
pub(crate) fn find<T: ?Sized>(
    what: &'static str,
    registry: &'static [&'static T],
    name_of: impl Fn(&'static T) -> &'static str,
    name: &str,
) -> Result<&'static T> {
    let found = registry
        .iter()
        .copied()
        .find(|&entry| name_of(entry) == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = registry.iter().map(|&entry| name_of(entry)).collect();
        Error::Unknown {
            what,
            found: name.to_owned(),
            known: known.join(", "),
        }
    })
}
