//! Which backups may go: the rules of a schedule, and what stays whatever the rules say. Pure; the time is passed in.
//!
//! ```text
//!   good backups of a schedule
//!     newest N, newest of each day week month, not older than   ─► keep    a rule wants it
//!     the newest of all                                         ─► keep    LastGood
//!     spec.pinned                                               ─► keep    Pinned
//!     an increment or a restore needs it                        ─► keep    NeededBy…
//!     what a kept one builds on                                 ─► keep    NeededByIncrement
//!     all else                                                  ─► remove  increments first, then the oldest
//! ```
//! Only what is known to be good is counted, and only that is removed: a backup whose data cannot be seen at the moment
//! neither takes the place of a good one nor goes.

mod needs;

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::conditions::{self, status, types};
use crate::api::cron::RetentionSpec;
use crate::api::{MySQLBackup, MySQLBackupStatus};

use super::names::SCHEDULED_TIME;

pub(crate) use needs::{Need, Needs};

/// A good backup that a rule may remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The object's name.
    pub(crate) name: String,
    /// The backup's id.
    pub(crate) id: String,
    /// The time that it counts for.
    pub(crate) time: Timestamp,
    /// The id that it builds on.
    pub(crate) parent: Option<String>,
    /// It is pinned.
    pub(crate) pinned: bool,
}

impl Candidate {
    /// A backup's object as retention sees it; `None` if it is not known to be good, or on its way out.
    pub(crate) fn of(backup: &MySQLBackup) -> Option<Self> {
        let seen = backup.status.as_ref()?;
        if !is_good(seen) || backup.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Self {
            name: backup.name_any(),
            id: seen.backup_id.clone()?,
            time: time_of(backup)?,
            parent: seen.parent_backup_name.clone(),
            pinned: backup.spec.pinned,
        })
    }
}

/// It succeeded, and as far as anybody knows the storage still has it.
pub(crate) fn is_good(seen: &MySQLBackupStatus) -> bool {
    seen.has_succeeded() && !conditions::is(&seen.conditions, types::RESTORABLE, status::FALSE)
}

/// The time that a backup counts for: that of its schedule, or else when it began. (When it ended may be another day.)
pub(crate) fn time_of(backup: &MySQLBackup) -> Option<Timestamp> {
    let began = || backup.status.as_ref()?.start_time.as_ref().map(|time| time.0);
    let created = || backup.metadata.creation_timestamp.as_ref().map(|time| time.0);
    scheduled_time(backup).or_else(began).or_else(created)
}

/// The time of the schedule that a backup was created for.
pub(crate) fn scheduled_time(backup: &MySQLBackup) -> Option<Timestamp> {
    backup.annotations().get(SCHEDULED_TIME)?.parse().ok()
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keep {
    /// A rule wants it.
    Rule,
    /// There is no newer one.
    LastGood,
    /// It is pinned.
    Pinned,
    /// Something needs it.
    Needed(Need),
}

/// What stays and what goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RetentionPlan {
    /// Stays, by name.
    pub(crate) keep: BTreeMap<String, Keep>,
    /// Goes, in this order.
    pub(crate) remove: Vec<String>,
}

/// Applies the rules. `candidates` are all good backups of one schedule.
pub(crate) fn plan_retention(
    rules: &RetentionSpec,
    zone: &TimeZone,
    now: Timestamp,
    mut candidates: Vec<Candidate>,
    needs: &Needs,
) -> RetentionPlan {
    // Newest first; the name decides between equals, so that it is the same each time.
    candidates.sort_by(|a, b| (b.time, &b.name).cmp(&(a.time, &a.name)));
    let mut keep: BTreeMap<String, Keep> = BTreeMap::new();
    for name in wanted(rules, zone, now, &candidates) {
        keep.insert(name.to_owned(), Keep::Rule);
    }
    for (nth, candidate) in candidates.iter().enumerate() {
        let reason = match needs.of(&candidate.name, &candidate.id) {
            _ if nth == 0 => Keep::LastGood,
            _ if candidate.pinned => Keep::Pinned,
            Some(need) => Keep::Needed(need.clone()),
            None => continue,
        };
        keep.entry(candidate.name.clone()).or_insert(reason);
    }
    keep_parents(&candidates, &mut keep);
    let goes: Vec<&Candidate> = candidates.iter().filter(|candidate| !keep.contains_key(&candidate.name)).collect();
    RetentionPlan { remove: in_order(&goes), keep }
}

/// What the rules want, of candidates that are newest first.
fn wanted<'a>(
    rules: &RetentionSpec,
    zone: &TimeZone,
    now: Timestamp,
    candidates: &'a [Candidate],
) -> BTreeSet<&'a str> {
    // Without `..`: a rule that can be written is obeyed.
    let RetentionSpec { keep_last, keep_daily, keep_weekly, keep_monthly, keep_within_seconds, deletion_policy: _ } =
        rules;
    let count = |number: &Option<i32>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    let mut wanted: BTreeSet<&str> =
        candidates.iter().take(count(keep_last)).map(|candidate| candidate.name.as_str()).collect();
    for (number, format) in [(keep_daily, "%Y-%m-%d"), (keep_weekly, "%G-W%V"), (keep_monthly, "%Y-%m")] {
        let mut periods = BTreeSet::new();
        for candidate in candidates {
            let period = candidate.time.to_zoned(zone.clone()).strftime(format).to_string();
            if periods.len() < count(number) && periods.insert(period) {
                wanted.insert(&candidate.name);
            }
        }
    }
    if let Some(seconds) = keep_within_seconds {
        // Before all calendars: nothing is that old.
        let oldest = now.checked_sub(SignedDuration::from_secs(*seconds)).unwrap_or(Timestamp::MIN);
        wanted.extend(candidates.iter().filter(|candidate| candidate.time >= oldest).map(|found| found.name.as_str()));
    }
    wanted
}

/// What a kept one builds on stays, and what that builds on.
fn keep_parents(candidates: &[Candidate], keep: &mut BTreeMap<String, Keep>) {
    let by_id: BTreeMap<&str, &Candidate> = candidates.iter().map(|found| (found.id.as_str(), found)).collect();
    let mut left: Vec<&Candidate> = candidates.iter().filter(|found| keep.contains_key(&found.name)).collect();
    while let Some(child) = left.pop() {
        let Some(parent) = child.parent.as_deref().and_then(|id| by_id.get(id)) else { continue };
        if !keep.contains_key(&parent.name) {
            keep.insert(parent.name.clone(), Keep::Needed(Need::Increment(child.name.clone())));
            left.push(parent);
        }
    }
}

/// Increments before what they build on; among others the oldest first.
fn in_order(goes: &[&Candidate]) -> Vec<String> {
    let parents: BTreeMap<&str, &str> =
        goes.iter().filter_map(|found| Some((found.id.as_str(), found.parent.as_deref()?))).collect();
    let depth = |candidate: &Candidate| {
        let mut depth = 0_usize;
        let mut id = candidate.id.as_str();
        // A chain that bites its own tail would be no chain: it cannot be longer than what there is.
        while let (Some(parent), true) = (parents.get(id), depth <= goes.len()) {
            id = parent;
            depth += 1;
        }
        depth
    };
    let mut order: Vec<(usize, &&Candidate)> = goes.iter().map(|candidate| (depth(candidate), candidate)).collect();
    order.sort_by(|(deep, a), (flat, b)| flat.cmp(deep).then_with(|| (a.time, &a.name).cmp(&(b.time, &b.name))));
    order.into_iter().map(|(_, candidate)| candidate.name.clone()).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
