//! How far the work is, kept so that any thread can add to it at any time and the reporter can look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::common::Progress as Shown;
use crate::ops::Progress;

/// Counts, and passes everything on to whoever watches the process itself.
pub(super) struct Meter {
    inner: Arc<dyn Progress>,
    step: Mutex<String>,
    total: AtomicU64,
    done: AtomicU64,
    redo_lag: AtomicU64,
}

/// A step's bytes at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) step: String,
    pub(super) done: u64,
}

impl Meter {
    pub(super) fn new(inner: Arc<dyn Progress>) -> Self {
        Self {
            inner,
            step: Mutex::default(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            redo_lag: AtomicU64::new(0),
        }
    }

    /// How far it is, with the rate since `last`. `None` before the first step.
    pub(super) fn look(&self, last: Option<&Sample>, now: Timestamp) -> Option<(Shown, Sample)> {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if step.is_empty() {
            return None;
        }
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let sample = Sample { at: Instant::now(), step: step.clone(), done };
        let rate = last.filter(|last| last.step == step).and_then(|last| rate(last, &sample));
        let total = Some(total).filter(|&total| total > 0);
        let shown = Shown {
            step,
            summary: None,
            bytes_done: Some(to_i64(done)),
            bytes_total: total.map(to_i64),
            bytes_per_second: rate.map(to_i64),
            estimated_completion_time: total
                .zip(rate)
                .and_then(|(total, rate)| end(now, total.saturating_sub(done), rate))
                .map(Time),
            redo_lag_bytes: Some(to_i64(self.redo_lag.load(Ordering::Relaxed))),
        };
        Some((shown, sample))
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn rate(from: &Sample, to: &Sample) -> Option<u64> {
    let milliseconds = u64::try_from(to.at.saturating_duration_since(from.at).as_millis()).ok()?;
    let bytes = to.done.checked_sub(from.done)?;
    bytes.saturating_mul(1000).checked_div(milliseconds)
}

fn end(now: Timestamp, left: u64, rate: u64) -> Option<Timestamp> {
    let seconds = left.checked_div(rate)?;
    let wait = SignedDuration::try_from(Duration::from_secs(seconds)).ok()?;
    now.checked_add(wait).ok()
}

impl Progress for Meter {
    fn step(&self, name: &str) {
        tracing::info!(step = name, "a step begins");
        name.clone_into(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        self.inner.step(name);
    }

    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.inner.total(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.inner.advance(bytes);
    }

    fn redo_lag(&self, bytes: u64) {
        self.redo_lag.store(bytes, Ordering::Relaxed);
        self.inner.redo_lag(bytes);
    }

    /// To the log: what stands between its lines is not for machines.
    fn message(&self, text: &str) {
        tracing::info!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::progress::Silent;

    #[test]
    fn a_step_is_seen_with_its_rate() {
        let meter = Meter::new(Arc::new(Silent));
        assert!(meter.look(None, Timestamp::UNIX_EPOCH).is_none());
        meter.step("copy");
        meter.total(1000);
        meter.advance(250);
        let (shown, _) = meter.look(None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((shown.bytes_done, shown.bytes_total, shown.bytes_per_second), (Some(250), Some(1000), None));
        let before =
            Sample { at: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(), step: "copy".into(), done: 0 };
        let (shown, _) = meter.look(Some(&before), Timestamp::UNIX_EPOCH).unwrap();
        let rate = shown.bytes_per_second.unwrap();
        assert!((20..=25).contains(&rate), "{rate}");
        let end = shown.estimated_completion_time.unwrap().0.as_second();
        assert!((29..=40).contains(&end), "{end}");
        meter.step("upload");
        let (shown, _) = meter.look(Some(&before), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((shown.bytes_done, shown.bytes_per_second), (Some(0), None), "a new step begins from zero");
    }

    #[test]
    fn a_rate_of_nothing_promises_no_end() {
        let at = Instant::now();
        let sample = |done| Sample { at, step: "copy".into(), done };
        assert_eq!(rate(&sample(0), &sample(5)), None, "no time has passed");
        assert_eq!(rate(&sample(5), &sample(0)), None);
        assert_eq!(end(Timestamp::UNIX_EPOCH, 100, 0), None);
        assert_eq!(end(Timestamp::UNIX_EPOCH, u64::MAX, 1), None, "beyond all calendars");
    }
}
