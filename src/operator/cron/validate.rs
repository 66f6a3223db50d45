//! From a schedule and its backups to what is to be done now. Pure: the same input, the same decision.
//!
//! ```text
//!   created ─┐
//!   taken ───┼─► base ─────┬────────── due ──────────┬──── now ──── next ──►
//!   counted ─┘             │  the last time after    │
//!                          │  the base, if any       │ too late?  ─► missed, counted
//!                                                    │ one runs?  ─► Forbid waits, Replace cancels, Allow goes on
//!                                                    └ else       ─► create, under the name of that time
//! ```
//! The time of the newest backup is read from the backups themselves, too: neither a lost status nor a second operator
//! takes one twice.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use xxhash_rust::xxh3::xxh3_64;

use crate::api::conditions::{self, reasons, status, types};
use crate::api::cron::ConcurrencyPolicy;
use crate::api::{CronBackup, MySQLBackup, MySQLBackupStatus};
use crate::operator::retention::{scheduled_time, time_of};

use super::schedule::Schedule;

/// So many backups of a schedule may be under way; a status can name no more.
pub(super) const MOST_ACTIVE: usize = 100;

/// Why nothing is scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The condition's reason.
    pub(super) reason: &'static str,
    /// The condition's message.
    pub(super) message: String,
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Take the backup of this time.
    pub(super) create: Option<Timestamp>,
    /// A backup is due since then, and waits for those under way.
    pub(super) waiting: Option<Timestamp>,
    /// Cancel these first.
    pub(super) cancel: Vec<String>,
    /// The backup of this time was not taken, and will not be.
    pub(super) missed: Option<Timestamp>,
    /// Failed ones that nobody needs to look at any more.
    pub(super) forget: Vec<String>,
    /// When the next one is due.
    pub(super) next: Option<Timestamp>,
    /// When it is too late for the one that waits.
    pub(super) deadline: Option<Timestamp>,
    /// Nothing is made up for before this.
    pub(super) counted_from: Option<Timestamp>,
}

/// Reads the schedule.
pub(super) fn read_schedule(cron: &CronBackup) -> Result<Schedule, Refusal> {
    Schedule::parse(&cron.spec.schedule, &cron.spec.time_zone)
        .map_err(|bad| Refusal { reason: reasons::INVALID_SCHEDULE, message: bad.to_string() })
}

/// The schedule as a status remembers it.
pub(super) fn observed(cron: &CronBackup) -> String {
    format!("{} {}", cron.spec.schedule, cron.spec.time_zone)
}

/// Decides. `children` are all backups of this schedule.
pub(super) fn decide(cron: &CronBackup, schedule: &Schedule, children: &[MySQLBackup], now: Timestamp) -> Decision {
    let mut decision = Decision { forget: failed_to_forget(cron, children), ..Decision::default() };
    let counted = counted_from(cron, now);
    decision.counted_from = counted;
    if cron.spec.suspend {
        return decision;
    }
    let delay = jitter(cron);
    decision.next = earlier(now, delay).and_then(|now| schedule.next(now)).and_then(|next| later(next, delay));
    let Some(due) = due(cron, schedule, children, counted, now) else { return decision };
    let starts = if Some(due) == first_time(cron) { Some(due) } else { later(due, delay) };
    let patience = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    decision.deadline = patience.zip(starts).and_then(|(patience, starts)| later(starts, patience));
    if decision.deadline.is_some_and(|deadline| deadline < now) {
        decision.missed = Some(due);
        decision.counted_from = Some(due).max(counted);
        return decision;
    }
    let active: Vec<&MySQLBackup> = active(children).collect();
    match cron.spec.concurrency_policy {
        _ if active.is_empty() => decision.create = Some(due),
        ConcurrencyPolicy::Allow if active.len() < MOST_ACTIVE => decision.create = Some(due),
        ConcurrencyPolicy::Replace => {
            decision.waiting = Some(due);
            let here = active.iter().filter(|backup| backup.metadata.deletion_timestamp.is_none());
            decision.cancel = here.map(|backup| backup.name_any()).collect();
        }
        ConcurrencyPolicy::Allow | ConcurrencyPolicy::Forbid => decision.waiting = Some(due),
    }
    decision
}

/// Backups that have not ended; those that are being cancelled have not either.
pub(super) fn active(children: &[MySQLBackup]) -> impl Iterator<Item = &MySQLBackup> {
    children.iter().filter(|backup| !backup.status.as_ref().is_some_and(MySQLBackupStatus::has_ended))
}

/// How much later than its schedule this object starts: always the same.
pub(super) fn jitter(cron: &CronBackup) -> SignedDuration {
    let most = u64::try_from(cron.spec.jitter_seconds).unwrap_or(0);
    let uid = cron.metadata.uid.as_deref().unwrap_or_default();
    let seconds = xxh3_64(uid.as_bytes()).checked_rem(most.saturating_add(1)).unwrap_or(0);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))
}

/// When the newest backup was due that was taken.
pub(super) fn last_taken(cron: &CronBackup, children: &[MySQLBackup]) -> Option<Timestamp> {
    let said = cron.status.as_ref().and_then(|seen| seen.last_schedule_time.as_ref()).map(|time| time.0);
    children.iter().filter_map(scheduled_time).chain(said).max()
}

/// Up to when the times of the schedule are done with, beside those that were taken.
fn counted_from(cron: &CronBackup, now: Timestamp) -> Option<Timestamp> {
    let seen = cron.status.as_ref();
    let counted = seen.and_then(|seen| seen.counted_from_time.as_ref()).map(|time| time.0);
    let was_suspended = seen.is_some_and(|seen| {
        let ready = conditions::find(&seen.conditions, types::READY);
        ready.is_some_and(|ready| ready.status == status::FALSE && ready.reason == reasons::SUSPENDED)
    });
    let changed = seen.and_then(|seen| seen.observed_schedule.as_ref()).is_some_and(|old| *old != observed(cron));
    // Only at the turning points, and not at each look in between: a status that tells the time never comes to rest.
    if (was_suspended && !cron.spec.suspend) || changed { Some(now) } else { counted }
}

/// The time of the backup that is taken at once.
fn first_time(cron: &CronBackup) -> Option<Timestamp> {
    let created = cron.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created.filter(|_| cron.spec.immediate)
}

fn due(
    cron: &CronBackup,
    schedule: &Schedule,
    children: &[MySQLBackup],
    counted: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let created = cron.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // Of a former schedule of the same name: that has nothing to do with this one's beginning.
    let taken = last_taken(cron, children).filter(|taken| created.is_none_or(|created| *taken >= created));
    // A clock that was ahead for a while, or an annotation that somebody wrote, must not silence a schedule for years.
    // What is then due a second time has a name that is taken.
    let past = |moment: &Timestamp| *moment <= now;
    let base = created.max(taken.filter(past)).max(counted.filter(past))?;
    let last = earlier(now, jitter(cron)).and_then(|now| schedule.last(now)).filter(|last| *last > base);
    let first = first_time(cron).filter(|first| taken.is_none() && counted.is_none_or(|counted| counted < *first));
    // Both: one backup is enough, and it is that of the schedule.
    last.or(first)
}

fn earlier(moment: Timestamp, by: SignedDuration) -> Option<Timestamp> {
    moment.checked_sub(by).ok()
}

fn later(moment: Timestamp, by: SignedDuration) -> Option<Timestamp> {
    moment.checked_add(by).ok()
}

/// Failed backups beyond the history, oldest first.
fn failed_to_forget(cron: &CronBackup, children: &[MySQLBackup]) -> Vec<String> {
    let failed = |backup: &&MySQLBackup| {
        backup.status.as_ref().is_some_and(|seen| seen.has_ended() && !seen.has_succeeded())
            && backup.metadata.deletion_timestamp.is_none()
            && !backup.spec.pinned
    };
    let mut failed: Vec<&MySQLBackup> = children.iter().filter(failed).collect();
    failed.sort_by_key(|backup| (time_of(backup), backup.name_any()));
    let limit = usize::try_from(cron.spec.failed_backups_history_limit).unwrap_or(0);
    let beyond = failed.len().saturating_sub(limit);
    failed.into_iter().take(beyond).map(ResourceExt::name_any).collect()
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
