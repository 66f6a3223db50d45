//! Waiting longer after each failure, and never in step with others who failed at the same moment.
//!
//! Full jitter: the wait is any time from zero to a ceiling that doubles up to a cap, so that many clients which
//! were all refused at once do not all come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The waits between attempts at one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
    random: RandomState,
}

impl Backoff {
    /// Waits of at most `first`, then twice that, and so on, but never more than `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempts: 0, random: RandomState::new() }
    }

    /// The time to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling();
        let delay = jittered(ceiling, self.random.hash_one(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
        delay
    }

    /// The longest that the next wait can be.
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.cap)
    }

    /// How many waits were handed out since the start or the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
        // The same waits again would be the step that jitter is to break.
        self.random = RandomState::new();
    }
}

/// `random` (any 64-bit number) as a share of `ceiling`.
fn jittered(ceiling: Duration, random: u64) -> Duration {
    let nanoseconds = (ceiling.as_nanos() * u128::from(random)) >> 64;
    u64::try_from(nanoseconds).map_or(ceiling, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            ceilings.push(backoff.ceiling().as_millis());
            backoff.next_delay();
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.ceiling().as_millis(), 100);
    }

    #[test]
    fn a_delay_never_exceeds_its_ceiling_however_often() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        for _ in 0..100 {
            let ceiling = backoff.ceiling();
            assert!(backoff.next_delay() <= ceiling);
        }
        assert_eq!(backoff.attempts(), 100);
    }

    #[test]
    fn jitter_spans_the_whole_range() {
        let ceiling = Duration::from_secs(8);
        assert_eq!(jittered(ceiling, 0), Duration::ZERO);
        assert_eq!(jittered(ceiling, 1 << 63), Duration::from_secs(4));
        assert!(jittered(ceiling, u64::MAX) > Duration::from_millis(7999));
    }
}
