//! How fast the copying threads may go: a limit that was asked for, and a pace that may change while they run.
//!
//! ```text
//!   --throttle ── limit ─┐
//!                        ├─ the lower counts ──► take(bytes): waits until they are due
//!   polite copy ─ pace ──┤
//!                 held ──┘  nothing at all, for the moment in which the disk is listened to
//!   lift() ────────────────► none of it counts any more
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The longest sleep at a time, so that a cancel is noticed.
const NAP: Duration = Duration::from_millis(50);
/// The same for who only waits for the end of a moment's silence.
const SHORT_NAP: Duration = Duration::from_millis(2);

/// A leaky bucket: whoever takes bytes waits until they are due. Unlimited when made without a limit.
#[derive(Debug)]
pub struct Throttle {
    limit: Option<u64>,
    /// Bytes a second; zero for none.
    pace: AtomicU64,
    held: AtomicBool,
    taken: AtomicU64,
    /// When the bytes handed out so far are paid for.
    due: Mutex<Instant>,
    lifted: AtomicBool,
}

impl Throttle {
    /// A limit in bytes a second, or none.
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit: limit.filter(|limit| *limit > 0),
            pace: AtomicU64::new(0),
            held: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            due: Mutex::new(Instant::now()),
            lifted: AtomicBool::new(false),
        }
    }

    /// Takes `bytes`, and waits until the limit allows them. Returns at once when cancelled.
    pub fn take(&self, bytes: u64, cancel: &CancellationToken) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.wait_until(|| if self.held.load(Ordering::Relaxed) { Some(SHORT_NAP) } else { None }, cancel);
        let Some(rate) = self.rate() else { return };
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*due).max(Instant::now());
            *due = start + cost;
            start
        };
        let left = || {
            let left = until.saturating_duration_since(Instant::now());
            // Where no rate is left, nothing is owed.
            (!left.is_zero() && self.rate().is_some()).then_some(left.min(NAP))
        };
        self.wait_until(left, cancel);
    }

    fn wait_until(&self, left: impl Fn() -> Option<Duration>, cancel: &CancellationToken) {
        while !self.lifted.load(Ordering::Relaxed) && !cancel.is_cancelled() {
            let Some(nap) = left() else { return };
            std::thread::sleep(nap);
        }
    }

    /// Bytes a second that count now.
    fn rate(&self) -> Option<u64> {
        match (self.limit, self.pace()) {
            (Some(limit), Some(pace)) => Some(limit.min(pace)),
            (limit, pace) => limit.or(pace),
        }
    }

    /// The limit that was asked for.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// The pace, if there is one.
    pub fn pace(&self) -> Option<u64> {
        Some(self.pace.load(Ordering::Relaxed)).filter(|pace| *pace > 0)
    }

    /// Sets the pace in bytes a second, or takes it away.
    pub fn set_pace(&self, pace: Option<u64>) {
        self.pace.store(pace.unwrap_or(0), Ordering::Relaxed);
    }

    /// Lets nobody take anything for a moment, or ends that.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Lifts the limit for good: finishing the copy matters more than sparing the disk, for instance when the
    /// server is about to overwrite redo.
    pub fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    /// Whether it was lifted.
    pub fn is_lifted(&self) -> bool {
        self.lifted.load(Ordering::Relaxed)
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

    #[test]
    fn the_lower_of_limit_and_pace_counts() {
        let throttle = Throttle::new(Some(100));
        assert_eq!(throttle.rate(), Some(100));
        throttle.set_pace(Some(70));
        assert_eq!(throttle.rate(), Some(70));
        throttle.set_pace(Some(200));
        assert_eq!(throttle.rate(), Some(100));
        let free = Throttle::new(None);
        free.set_pace(Some(5));
        assert_eq!(free.rate(), Some(5));
        free.set_pace(None);
        assert_eq!(free.rate(), None);
    }

    #[test]
    fn nobody_takes_anything_while_it_is_held() {
        let throttle = Throttle::new(None);
        throttle.hold(true);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| throttle.take(1, &CancellationToken::new()));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!taker.is_finished());
            throttle.hold(false);
            taker.join().unwrap();
        });
    }
}
