//! Whose turn it is: a prompt that is scored runs alone.
//!
//! The engine (0.8.1) fails if a batch holds two requests for raw logits, and
//! its thread panics if it holds one beside another request.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Many requests at a time, or one that is alone. They are let in in the order
/// in which they come.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<RwLock<()>>);

impl Turns {
    /// Waits until nothing else runs; nothing else does until it is dropped.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.clone().write_owned().await
    }

    /// Waits until nothing runs that is to be alone; nothing of that kind does
    /// until this is dropped.
    pub(super) async fn share(&self) -> OwnedRwLockReadGuard<()> {
        self.0.clone().read_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_alone_waits_for_the_others_and_they_for_it() {
        let turns = Turns::default();
        let (first, second) = (turns.share().await, turns.share().await);
        let alone = tokio::spawn({
            let turns = turns.clone();
            async move { turns.alone().await }
        });
        tokio::task::yield_now().await;
        assert!(!alone.is_finished());
        drop((first, second));
        let alone = alone.await.unwrap();
        let third = tokio::spawn(async move { turns.share().await });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(alone);
        third.await.unwrap();
    }
}
