//! Tokens per second over the last few seconds.

use std::sync::{Mutex, PoisonError};

/// Seconds looked back on.
const SECONDS: usize = 10;

/// Counts of the last seconds, the one that is running included.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<[(u64, u64); SECONDS + 1]>);

impl Rate {
    /// Counts `amount` in second `now`.
    pub(super) fn add(&self, now: u64, amount: u64) {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut seconds[now as usize % (SECONDS + 1)];
        if slot.0 != now {
            *slot = (now, 0);
        }
        slot.1 += amount;
    }

    /// Mean of the whole seconds before second `now`.
    pub(super) fn per_second(&self, now: u64) -> f64 {
        let seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = now.min(SECONDS as u64);
        if looked == 0 {
            return 0.0;
        }
        let sum: u64 = seconds
            .iter()
            .filter(|(second, _)| (now - looked..now).contains(second))
            .map(|(_, amount)| amount)
            .sum();
        sum as f64 / looked as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let rate = Rate::default();
        assert_eq!(rate.per_second(0), 0.0);
        rate.add(0, 30);
        assert_eq!(rate.per_second(1), 30.0);
        assert_eq!(rate.per_second(3), 10.0);
        rate.add(20, 50);
        assert_eq!(rate.per_second(20), 0.0);
        assert_eq!(rate.per_second(21), 5.0);
        rate.add(100, 1);
        assert_eq!(rate.per_second(101), 0.1);
    }
}
