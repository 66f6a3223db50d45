//! From "so many bytes are done" to what a person wants to know: how fast, how long still.
//!
//! ```text
//!   samples   (time, done) … (time, done)        the last seconds of them
//!   rate      bytes between the first and the last of these, so that it follows a change but does not jump
//! ```
//! Pure: the time comes in as an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::util::units::{format_bytes, format_duration, rate};

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(15);
/// Beyond this an estimate is noise.
const LONGEST_ESTIMATE: Duration = Duration::from_hours(24 * 365);

/// What is known of the running step at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Bytes done.
    pub(super) done: u64,
    /// Bytes to do; 0 when unknown.
    pub(super) total: u64,
    /// How far the captured redo is behind the server's; absent when nobody follows it.
    pub(super) redo_lag: Option<u64>,
}

/// Measures one step.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// Notes how much was done at `at`, counted from any fixed moment.
    pub(super) fn note(&mut self, at: Duration, done: u64) {
        self.samples.push_back((at, done));
        // One sample from before the window stays: lines come less often than the window is long.
        while self.samples.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bytes per second of late.
    pub(super) fn rate(&self) -> u64 {
        match (self.samples.front(), self.samples.back()) {
            (Some(first), Some(last)) => rate(last.1.saturating_sub(first.1), last.0.saturating_sub(first.0)),
            _ => 0,
        }
    }

    /// How long the rest takes at that rate, where that can be said.
    pub(super) fn remaining(&self, now: &Snapshot) -> Option<Duration> {
        let left = now.total.checked_sub(now.done).filter(|&left| left > 0)?;
        let seconds = left.checked_div(self.rate())?;
        Some(Duration::from_secs(seconds)).filter(|time| *time <= LONGEST_ESTIMATE)
    }

    /// `1.2 GiB of 3.0 GiB, 40%, 310.0 MiB/s, ETA 6.0s, redo lag 12.0 KiB`, without what is not known.
    pub(super) fn describe(&self, now: &Snapshot) -> String {
        let mut parts = Vec::new();
        if let Some(percent) = percent(now) {
            parts.push(format!("{} of {}", format_bytes(now.done), format_bytes(now.total)));
            parts.push(format!("{percent}%"));
        } else if now.done > 0 {
            parts.push(format_bytes(now.done));
        }
        if self.rate() > 0 {
            parts.push(format!("{}/s", format_bytes(self.rate())));
        }
        if let Some(left) = self.remaining(now) {
            parts.push(format!("ETA {}", format_duration(left)));
        }
        if let Some(lag) = now.redo_lag {
            parts.push(format!("redo lag {}", format_bytes(lag)));
        }
        parts.join(", ")
    }
}

/// The sizes of a step on one line beside a bar, which shows the percentage: short enough for 80 columns.
pub(super) fn beside_bar(text: &str) -> String {
    let kept = text.split(", ").filter(|part| !part.ends_with('%'));
    kept.collect::<Vec<_>>().join(", ").replace(" of ", "/").replace("redo lag", "lag")
}

/// How much of it is done; never 100 before all is.
fn percent(now: &Snapshot) -> Option<u64> {
    if now.total == 0 {
        return None;
    }
    let percent = u128::from(now.done.min(now.total)) * 100 / u128::from(now.total);
    u64::try_from(percent).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_that_of_late() {
        let mut meter = Meter::default();
        meter.note(at(0), 0);
        assert_eq!(meter.rate(), 0);
        for second in 1..=10 {
            meter.note(at(second), second * 100 * MIB);
        }
        assert_eq!(meter.rate(), 100 * MIB);
        for second in 11..=60 {
            meter.note(at(second), 1000 * MIB + (second - 10) * 10 * MIB);
        }
        assert_eq!(meter.rate(), 10 * MIB, "the fast start is forgotten");
        assert!(meter.samples.len() <= 18, "{} samples", meter.samples.len());
    }

    #[test]
    fn rare_samples_still_give_a_rate() {
        let mut meter = Meter::default();
        meter.note(at(0), 0);
        meter.note(at(60), 60 * MIB);
        assert_eq!(meter.rate(), MIB);
    }

    #[test]
    fn only_what_is_known_is_told() {
        let mut meter = Meter::default();
        meter.note(at(0), 0);
        assert_eq!(meter.describe(&Snapshot::default()), "");
        meter.note(at(2), 100 * MIB);
        let known = Snapshot { done: 100 * MIB, total: 400 * MIB, redo_lag: Some(2048) };
        assert_eq!(meter.describe(&known), "100.0 MiB of 400.0 MiB, 25%, 50.0 MiB/s, ETA 6.0s, redo lag 2.0 KiB");
        let unknown = Snapshot { done: 100 * MIB, total: 0, redo_lag: None };
        assert_eq!(meter.describe(&unknown), "100.0 MiB, 50.0 MiB/s");
    }

    #[test]
    fn beside_a_bar_it_is_short() {
        let long = "100.0 MiB of 400.0 MiB, 25%, 50.0 MiB/s, ETA 6.0s, redo lag 2.0 KiB";
        assert_eq!(beside_bar(long), "100.0 MiB/400.0 MiB, 50.0 MiB/s, ETA 6.0s, lag 2.0 KiB");
        assert_eq!(beside_bar(""), "");
    }

    #[test]
    fn totals_that_were_too_small_do_no_harm() {
        let mut meter = Meter::default();
        meter.note(at(0), 0);
        meter.note(at(1), 10);
        let over = Snapshot { done: 10, total: 4, redo_lag: None };
        assert_eq!(meter.remaining(&over), None);
        assert!(meter.describe(&over).contains("100%"));
        let almost = Snapshot { done: u64::MAX - 1, total: u64::MAX, redo_lag: None };
        assert_eq!(percent(&almost), Some(99));
    }
}
