//! How many experts each layer keeps.
//!
//! An allocator is one file that implements [`Allocator`] and one line in
//! [`ALLOCATORS`]. It owns the split of a budget over layers. It does not own
//! the scores ([`crate::saliency`]) nor whether the result is possible
//! ([`crate::plan`]).

mod uniform;

use crate::registry::find;
use crate::Result;

/// Every allocator, the default first.
pub const ALLOCATORS: &[&dyn Allocator] = &[&uniform::Uniform];

/// Splits a budget of experts over layers.
pub trait Allocator: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `uniform`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// Experts that each MoE layer keeps: `[L]`, with the same sum as `even`.
    ///
    /// `scores` is `[L][E_ℓ]`, the higher the more an expert matters; `even` is
    /// `[L]`, what each layer keeps if the budget applies to it alone.
    fn allocate(&self, scores: &[Vec<f64>], even: &[usize]) -> Vec<usize>;
}

/// Finds an allocator by name.
///
/// # Errors
/// [`Error::Unknown`](crate::Error::Unknown) with the known names.
pub fn allocator(name: &str) -> Result<&'static dyn Allocator> {
    find("allocator", ALLOCATORS, Allocator::name, name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = ALLOCATORS.iter().map(|a| a.name()).collect();
        assert_eq!(names.len(), ALLOCATORS.len());
        for name in names {
            assert_eq!(allocator(name).unwrap().name(), name);
        }
        assert!(allocator("even").is_err());
    }

    #[test]
    fn every_allocator_spends_the_budget() {
        let scores = vec![
            vec![0.5, 2.0, 0.0, 1.0],
            vec![9.0, 9.0, 9.0, 9.0],
            vec![0.0; 4],
        ];
        for allocator in ALLOCATORS {
            let kept = allocator.allocate(&scores, &[2, 2, 2]);
            assert_eq!(kept.len(), 3, "{}", allocator.name());
            assert_eq!(kept.iter().sum::<usize>(), 6, "{}", allocator.name());
            assert!(kept.iter().all(|&n| n <= 4), "{}", allocator.name());
        }
    }
}
