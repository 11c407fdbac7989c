//! What a request keeps from others until the engine has let go of it.

use std::sync::Arc;
use std::time::Duration;

use mistralrs_core::Response;
use tokio::sync::mpsc::WeakSender;
use tokio::sync::OwnedRwLockReadGuard;

use crate::server::limits::Slot;

/// A turn and a slot.
pub(super) struct Held {
    _turn: OwnedRwLockReadGuard<()>,
    _slot: Slot,
}

impl Held {
    /// Both, to be kept.
    pub(super) fn new(turn: OwnedRwLockReadGuard<()>, slot: Slot) -> Self {
        Self {
            _turn: turn,
            _slot: slot,
        }
    }
}

/// Holds on until the engine has dropped its sender: a request that nobody
/// reads any more stays in a batch until its next token.
pub(super) struct Release {
    sender: WeakSender<Response>,
    held: Option<Arc<Held>>,
}

impl Release {
    /// Of what the engine answers into the channel of `sender`.
    pub(super) fn new(sender: WeakSender<Response>, held: Arc<Held>) -> Self {
        Self {
            sender,
            held: Some(held),
        }
    }

    /// Waits until the engine has let go.
    pub(super) async fn wait(&self) {
        released(&self.sender).await;
    }
}

/// Waits until no sender is left. The engine takes at most a token's time.
async fn released(sender: &WeakSender<Response>) {
    const PAUSE: Duration = Duration::from_millis(1);
    while sender.strong_count() > 0 {
        tokio::time::sleep(PAUSE).await;
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let (sender, held) = (self.sender.clone(), self.held.take());
        if sender.strong_count() == 0 {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                released(&sender).await;
                drop(held);
            });
        }
    }
}
