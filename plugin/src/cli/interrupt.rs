//! What Ctrl-C does.
//!
//! The first asks the work at hand to stop where it can be continued, or the
//! server to finish its answers; the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::output;

/// Exit status after an interruption, as shells expect it.
pub(super) const EXIT: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
static WAKE: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// Starts listening for Ctrl-C and termination.
///
/// # Errors
/// If the system refuses the handler.
pub(super) fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT));
        }
        output::plain("\nStopping; press Ctrl-C again to stop at once");
        WAKE.notify_one();
    })
}

/// Whether the user has asked to stop.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Returns once the user has asked to stop.
pub(super) async fn wait() {
    if !asked() {
        WAKE.notified().await;
    }
}
