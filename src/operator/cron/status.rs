//! What a schedule's backups and the decision mean for its status. Pure; the words that reach people are here.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::common::ObjectRef;
use crate::api::conditions::reasons;
use crate::api::cron::ConcurrencyPolicy;
use crate::api::{CronBackup, CronBackupStatus, Moment, MySQLBackup};
use crate::operator::retention::is_good;

use super::validate::{Decision, MOST_ACTIVE, Refusal, active, last_taken, observed};

/// The status after this look. `children` are those before it; what was created is added.
pub(super) fn status(
    cron: &CronBackup,
    children: &[MySQLBackup],
    decided: Result<&Decision, &Refusal>,
    at: Moment,
) -> CronBackupStatus {
    let mut new = cron.status.clone().unwrap_or_default();
    new.active = active(children).map(|backup| ObjectRef::new(backup.name_any())).collect();
    if let Some((name, time)) = last_good(children) {
        new.last_successful_backup_name = Some(name);
        new.last_successful_time = Some(Time(time));
    } else {
        new.last_successful_backup_name = None;
        new.last_successful_time = None;
    }
    let taken = last_taken(cron, children);
    new.last_schedule_time = taken.map(Time);
    match decided {
        Ok(decision) => {
            if let Some(due) = decision.create {
                new.active.push(ObjectRef::new(crate::operator::names::scheduled_backup_name(&cron.name_any(), due)));
                new.last_schedule_time = Some(due).max(taken).map(Time);
            }
            new.counted_from_time = decision.counted_from.map(Time);
            new.observed_schedule = Some(observed(cron));
            if cron.spec.suspend {
                new.set_not_ready(reasons::SUSPENDED, "held back by spec.suspend: set it to false to go on", at);
            } else {
                new.set_ready(&words(cron, children, decision), at);
                new.next_schedule_time = decision.next.map(Time);
            }
        }
        Err(refusal) => new.set_not_ready(refusal.reason, &refusal.message, at),
    }
    new.active.sort_by(|a, b| Reverse(&a.name).cmp(&Reverse(&b.name)));
    new.active.truncate(MOST_ACTIVE);
    new
}

/// The newest good backup, and when it was complete.
fn last_good(children: &[MySQLBackup]) -> Option<(String, Timestamp)> {
    let good = children.iter().filter_map(|backup| {
        let seen = backup.status.as_ref().filter(|seen| is_good(seen))?;
        Some((seen.completion_time.as_ref()?.0, backup.name_any()))
    });
    good.max().map(|(time, name)| (name, time))
}

/// What the condition says while all is well.
fn words(cron: &CronBackup, children: &[MySQLBackup], decision: &Decision) -> String {
    let Some(due) = decision.waiting else { return "backups are taken as scheduled".to_owned() };
    let names: Vec<String> = active(children).map(ResourceExt::name_any).take(3).collect();
    let names = names.join(", ");
    match cron.spec.concurrency_policy {
        ConcurrencyPolicy::Replace => format!("the backup of {due} begins once {names} is cancelled"),
        ConcurrencyPolicy::Allow => {
            format!("the backup of {due} waits: {MOST_ACTIVE} are under way, {names} among them")
        }
        ConcurrencyPolicy::Forbid => format!("the backup of {due} waits for {names} to end"),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
