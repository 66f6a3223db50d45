//! A limit in bytes a second, shared by all copying threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The longest sleep at a time, so that a cancel is noticed.
const NAP: Duration = Duration::from_millis(50);

/// A leaky bucket: whoever takes bytes waits until they are due. Unlimited when made without a rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
    /// When the bytes handed out so far are paid for.
    due: Mutex<Instant>,
    lifted: AtomicBool,
}

impl Throttle {
    /// A limit of `bytes_per_second`, or none.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Instant::now()), lifted: AtomicBool::new(false) }
    }

    /// Takes `bytes`, and waits until the limit allows them. Returns at once when cancelled.
    pub fn take(&self, bytes: u64, cancel: &CancellationToken) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else { return };
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*due).max(Instant::now());
            *due = start + cost;
            start
        };
        while !self.lifted.load(Ordering::Relaxed) && !cancel.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Lifts the limit for good: finishing the copy matters more than sparing the disk, for instance when the
    /// server is about to overwrite redo.
    pub fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_costs_time_and_can_be_lifted() {
        let cancel = CancellationToken::new();
        let throttle = Throttle::new(Some(10_000_000));
        let start = Instant::now();
        for _ in 0..5 {
            throttle.take(500_000, &cancel);
        }
        assert!(start.elapsed() >= Duration::from_millis(190), "four of five waits of 50 ms");
        throttle.take(1 << 40, &cancel);
        throttle.lift();
        throttle.take(1, &cancel);
        Throttle::new(None).take(u64::MAX, &cancel);
    }

    #[test]
    fn a_cancelled_wait_ends() {
        let cancel = CancellationToken::new();
        let throttle = Throttle::new(Some(1));
        throttle.take(1 << 40, &cancel);
        cancel.cancel();
        throttle.take(1, &cancel);
    }
}
