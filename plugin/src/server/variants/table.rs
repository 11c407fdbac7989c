//! Names → loaded variants.
//!
//! A variant has its id and, if it took another's place, the names of that. A
//! request counts as running from the moment it is given a variant, under the
//! lock under which variants are taken out: one that has been taken out is
//! given to nobody.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::problem::{conflict, unknown_model};
use super::variant::{InUse, Variant};
use crate::server::problem::Problem;

/// Stands for the default in requests.
pub(super) const DEFAULT: &str = "default";

/// The variants that requests can name, the default first.
pub(super) struct Table(RwLock<Vec<Listed>>);

/// The place of the variant called `name`.
fn place(listed: &[Listed], name: &str) -> Option<usize> {
    if name == DEFAULT {
        return Some(0);
    }
    listed.iter().position(|listed| listed.is_called(name))
}

/// A variant and its names.
#[derive(Clone)]
pub(super) struct Listed {
    /// The variant.
    pub(super) variant: Arc<Variant>,
    /// Names of variants whose place it took.
    pub(super) aliases: Vec<String>,
}

impl Listed {
    fn is_called(&self, name: &str) -> bool {
        self.variant.id == name || self.aliases.iter().any(|alias| alias == name)
    }
}

impl Table {
    /// A table of one.
    pub(super) fn new(default: Variant) -> Self {
        let table = Self(RwLock::new(Vec::new()));
        table.insert(default);
        table
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Listed>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Listed>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All variants, the default first.
    pub(super) fn list(&self) -> Vec<Listed> {
        self.read().clone()
    }

    /// The variant called `name`, or the default.
    ///
    /// # Errors
    /// If there is no such variant.
    pub(super) fn find(&self, name: Option<&str>) -> Result<InUse, Problem> {
        let listed = self.read();
        let name = name.unwrap_or(DEFAULT);
        match place(&listed, name).and_then(|place| listed.get(place)) {
            Some(found) => Ok(InUse::new(found.variant.clone())),
            None => Err(unknown(name, &listed)),
        }
    }

    /// Fails if `id` is taken, other than by `except`, whose place is to be
    /// taken.
    pub(super) fn expect_free(&self, id: &str, except: Option<&str>) -> Result<(), Problem> {
        let listed = self.read();
        let other = place(&listed, id);
        let own = except.and_then(|except| place(&listed, except));
        if id == DEFAULT || (other.is_some() && other != own) {
            return Err(conflict(format!("`{id}` is the name of another variant")));
        }
        Ok(())
    }

    /// Adds a variant, which nothing else may be called.
    pub(super) fn insert(&self, variant: Variant) {
        self.write().push(Listed {
            variant: Arc::new(variant),
            aliases: Vec::new(),
        });
    }

    /// Puts a variant in the place of the one called `name`, and gives it the
    /// names of that one. The old one ends after its last request.
    ///
    /// # Errors
    /// If there is no variant called `name` any more.
    pub(super) fn replace(&self, name: &str, variant: Variant) -> Result<Arc<Variant>, Problem> {
        let mut listed = self.write();
        let Some(place) = place(&listed, name) else {
            return Err(unknown(name, &listed));
        };
        let place = &mut listed[place];
        let old = std::mem::replace(&mut place.variant, Arc::new(variant));
        if !place.is_called(&old.id) {
            place.aliases.push(old.id.clone());
        }
        let id = &place.variant.id;
        place.aliases.retain(|alias| alias != id);
        Ok(old)
    }

    /// Takes a variant out. It ends after its last request.
    ///
    /// # Errors
    /// If there is no such variant, or it is the default.
    pub(super) fn remove(&self, id: &str) -> Result<Arc<Variant>, Problem> {
        let mut listed = self.write();
        match listed.iter().position(|listed| listed.variant.id == id) {
            None => Err(unknown(id, &listed)),
            Some(0) => Err(conflict(format!(
                "`{id}` is the default; to put another in its place, add that with `\"replace\": \"{id}\"`"
            ))),
            Some(place) => Ok(listed.remove(place).variant),
        }
    }
}

fn unknown(name: &str, listed: &[Listed]) -> Problem {
    let known: Vec<_> = listed
        .iter()
        .map(|listed| listed.variant.id.as_str())
        .collect();
    unknown_model(name, &known.join(", "))
}
