//! Decisions of schedules: a table for each rule, and what holds whatever happens.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A schedule of each hour, created at half past nine.
fn cron(spec: &Value, status: &Value) -> CronBackup {
    let mut document = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup",
        "metadata": {"name": "often", "namespace": "shop", "uid": "u-1", "creationTimestamp": "2026-03-14T09:30:00Z"},
        "spec": {"schedule": "0 * * * *", "backupTemplate": {"spec": {"storageRef": {"name": "s"},
            "source": {"podName": "p", "credentials": {"secretRef": {"name": "c"}}}}}},
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        document["spec"][field] = value.clone();
    }
    serde_json::from_value(document).unwrap()
}

/// A backup of that schedule; `ended` is the status of Succeeded.
fn child(scheduled: &str, ended: &str) -> MySQLBackup {
    let due = at(scheduled);
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
        "metadata": {"name": crate::operator::names::scheduled_backup_name("often", due), "namespace": "shop",
            "annotations": {"stillframe.dev/scheduled-time": scheduled}},
        "spec": {},
        "status": {"conditions": [{"type": "Succeeded", "status": ended, "reason": "R", "message": "m",
            "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
    }))
    .unwrap()
}

fn run(cron: &CronBackup, children: &[MySQLBackup], now: &str) -> Decision {
    decide(cron, &read_schedule(cron).unwrap(), children, at(now))
}

#[test]
fn each_time_is_taken_once() {
    let new = cron(&json!({}), &json!({}));
    assert_eq!(run(&new, &[], "2026-03-14T09:59:59Z").create, None, "times before it was created are nobody's");
    let due = run(&new, &[], "2026-03-14T10:00:00Z");
    assert_eq!(due.create, Some(at("2026-03-14T10:00:00Z")));
    assert_eq!(due.next, Some(at("2026-03-14T11:00:00Z")));
    let taken = [child("2026-03-14T10:00:00Z", "True")];
    assert_eq!(run(&new, &taken, "2026-03-14T10:59:59Z").create, None, "the status was lost, the backup was not");
    let told = cron(&json!({}), &json!({"lastScheduleTime": "2026-03-14T10:00:00Z"}));
    assert_eq!(run(&told, &[], "2026-03-14T10:59:59Z").create, None, "the backup was deleted, the status was not");
    assert_eq!(run(&told, &taken, "2026-03-14T11:00:01Z").create, Some(at("2026-03-14T11:00:00Z")));
}

#[test]
fn the_future_silences_nobody() {
    let ahead = json!({"lastScheduleTime": "2031-03-14T10:00:00Z", "countedFromTime": "2031-03-14T10:00:00Z"});
    let children = [child("2031-03-14T10:00:00Z", "True")];
    let due = run(&cron(&json!({}), &ahead), &children, "2026-03-14T10:00:00Z").create;
    assert_eq!(due, Some(at("2026-03-14T10:00:00Z")));
}

#[test]
fn of_what_was_missed_one_is_made_up_for() {
    let told = json!({"lastScheduleTime": "2026-03-14T10:00:00Z"});
    let late = cron(&json!({}), &told);
    assert_eq!(run(&late, &[], "2026-03-16T09:59:00Z").create, Some(at("2026-03-16T09:00:00Z")), "only the last one");
    let strict = cron(&json!({"startingDeadlineSeconds": 600}), &told);
    assert_eq!(run(&strict, &[], "2026-03-16T09:10:00Z").create, Some(at("2026-03-16T09:00:00Z")));
    let missed = run(&strict, &[], "2026-03-16T09:10:01Z");
    assert_eq!((missed.create, missed.missed), (None, Some(at("2026-03-16T09:00:00Z"))));
    let counted = json!({"lastScheduleTime": "2026-03-14T10:00:00Z", "countedFromTime": missed.counted_from.unwrap().to_string()});
    let again = run(&cron(&json!({"startingDeadlineSeconds": 600}), &counted), &[], "2026-03-16T09:10:02Z");
    assert_eq!((again.create, again.missed), (None, None), "said once");
}

#[test]
fn the_first_one_at_once() {
    let now = "2026-03-14T09:30:01Z";
    let first = run(&cron(&json!({"immediate": true}), &json!({})), &[], now);
    assert_eq!(first.create, Some(at("2026-03-14T09:30:00Z")), "named by the creation");
    let taken = [child("2026-03-14T09:30:00Z", "Unknown")];
    assert_eq!(run(&cron(&json!({"immediate": true}), &json!({})), &taken, now).create, None);
    let deleted = json!({"lastScheduleTime": "2026-03-14T09:30:00Z"});
    assert_eq!(run(&cron(&json!({"immediate": true}), &deleted), &[], now).create, None);
    let suspended = json!({"countedFromTime": "2026-03-14T09:31:00Z"});
    assert_eq!(run(&cron(&json!({"immediate": true}), &suspended), &[], "2026-03-14T09:40:00Z").create, None, "let go");
    let down = run(&cron(&json!({"immediate": true}), &json!({})), &[], "2026-03-14T12:05:00Z");
    assert_eq!(down.create, Some(at("2026-03-14T12:00:00Z")), "one is enough, and it is the schedule's");
    let former = [child("2026-03-01T10:00:00Z", "True")];
    let again = run(&cron(&json!({"immediate": true}), &json!({})), &former, now);
    assert!(again.create.is_some(), "a schedule that was deleted and created again is a new one");
}

#[test]
fn what_suspension_left_out_is_not_made_up_for() {
    let told = json!({"lastScheduleTime": "2026-03-14T10:00:00Z"});
    let suspended = run(&cron(&json!({"suspend": true}), &told), &[], "2026-03-14T12:30:00Z");
    assert_eq!((suspended.create, suspended.next), (None, None));
    assert_eq!(suspended.counted_from, None, "as long as it is suspended, nothing changes");
    let said = json!({"lastScheduleTime": "2026-03-14T10:00:00Z",
        "conditions": [{"type": "Ready", "status": "False", "reason": "Suspended", "message": "m",
            "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
    let resumed = run(&cron(&json!({}), &said), &[], "2026-03-14T14:05:00Z");
    assert_eq!((resumed.create, resumed.counted_from), (None, Some(at("2026-03-14T14:05:00Z"))));
    assert_eq!(resumed.next, Some(at("2026-03-14T15:00:00Z")));
}

#[test]
fn another_schedule_begins_with_its_change() {
    let told = |observed: &str| json!({"lastScheduleTime": "2026-03-13T10:00:00Z", "observedSchedule": observed});
    let changed = run(&cron(&json!({}), &told("0 2 * * * Etc/UTC")), &[], "2026-03-14T14:05:00Z");
    assert_eq!((changed.create, changed.counted_from), (None, Some(at("2026-03-14T14:05:00Z"))));
    let same = run(&cron(&json!({}), &told("0 * * * * Etc/UTC")), &[], "2026-03-14T14:05:00Z");
    assert_eq!(same.create, Some(at("2026-03-14T14:00:00Z")));
}

#[test]
fn one_that_is_under_way_decides_about_the_next() {
    let now = "2026-03-14T11:00:05Z";
    let running = [child("2026-03-14T10:00:00Z", "Unknown")];
    let with = |policy: &str| run(&cron(&json!({"concurrencyPolicy": policy}), &json!({})), &running, now);
    assert_eq!(with("Allow").create, Some(at("2026-03-14T11:00:00Z")));
    let forbid = with("Forbid");
    assert_eq!((forbid.create, forbid.waiting), (None, Some(at("2026-03-14T11:00:00Z"))));
    assert!(forbid.cancel.is_empty());
    let replace = with("Replace");
    assert_eq!((replace.create, replace.waiting), (None, Some(at("2026-03-14T11:00:00Z"))));
    assert_eq!(replace.cancel, ["often-202603141000"]);
    // On its way out: it is waited for, and not told twice.
    let mut leaving = running.clone();
    leaving[0].metadata.deletion_timestamp = cron(&json!({}), &json!({})).metadata.creation_timestamp;
    let replace = run(&cron(&json!({"concurrencyPolicy": "Replace"}), &json!({})), &leaving, now);
    assert_eq!((replace.create, replace.cancel.len()), (None, 0));
    let ended = [child("2026-03-14T10:00:00Z", "False")];
    let after = run(&cron(&json!({}), &json!({})), &ended, "2026-03-14T11:40:00Z");
    assert_eq!(after.create, Some(at("2026-03-14T11:00:00Z")), "made up for once the other one ended");
    let late = run(&cron(&json!({"startingDeadlineSeconds": 60}), &json!({})), &running, "2026-03-14T11:00:30Z");
    assert_eq!(late.deadline, Some(at("2026-03-14T11:01:00Z")));
}

#[test]
fn too_many_under_way_are_not_joined_by_more() {
    let many: Vec<MySQLBackup> = (0..MOST_ACTIVE)
        .map(|number| child(&format!("2026-03-13T{:02}:{:02}:00Z", number / 60, number % 60), "Unknown"))
        .collect();
    let allow = cron(&json!({"concurrencyPolicy": "Allow"}), &json!({}));
    let decision = run(&allow, &many, "2026-03-14T10:00:00Z");
    assert_eq!((decision.create, decision.waiting), (None, Some(at("2026-03-14T10:00:00Z"))));
}

#[test]
fn jitter_is_the_objects_own() {
    let spread = cron(&json!({"jitterSeconds": 600}), &json!({}));
    let delay = jitter(&spread);
    assert_eq!(delay, jitter(&spread));
    assert!((0..=600).contains(&delay.as_secs()));
    let mut other = spread.clone();
    other.metadata.uid = Some("u-2".into());
    assert_ne!(jitter(&other), delay);
    let start = at("2026-03-14T10:00:00Z").checked_add(delay).unwrap();
    let before = start.checked_sub(SignedDuration::from_secs(1)).unwrap();
    assert_eq!(run(&spread, &[], &before.to_string()).create, None);
    assert_eq!(run(&spread, &[], &before.to_string()).next, Some(start));
    assert_eq!(run(&spread, &[], &start.to_string()).create, Some(at("2026-03-14T10:00:00Z")), "named by the schedule");
    assert_eq!(jitter(&cron(&json!({}), &json!({}))).as_secs(), 0);
}

#[test]
fn failed_ones_are_kept_to_be_looked_at() {
    let mut children: Vec<MySQLBackup> =
        (1..=5).map(|hour| child(&format!("2026-03-14T0{hour}:00:00Z"), "False")).collect();
    children.push(child("2026-03-14T00:00:00Z", "True"));
    children[1].spec.pinned = true;
    let forget = |limit: i32| {
        run(&cron(&json!({"failedBackupsHistoryLimit": limit}), &json!({})), &children, "2026-03-14T09:31:00Z").forget
    };
    assert_eq!(forget(2), ["often-202603140100", "often-202603140300"], "the oldest, pinned ones never");
    assert_eq!(forget(9), [""; 0]);
    assert_eq!(forget(0).len(), 4);
}

#[test]
fn what_is_no_schedule_is_said() {
    let refusal = read_schedule(&cron(&json!({"schedule": "0 0 30 2 *"}), &json!({}))).unwrap_err();
    assert_eq!(refusal.reason, "InvalidSchedule");
    assert!(refusal.message.contains("never"));
}

proptest! {
    /// However often, and however irregularly, a schedule is looked at: no time is taken twice, none is invented, and
    /// where nothing is in the way none is left out while it is looked at each minute.
    #[test]
    fn every_look_agrees(
        steps in prop::collection::vec((1..9000_i64, 0..3_u8, prop::bool::weighted(0.2)), 1..60),
        policy in prop::sample::select(vec!["Allow", "Forbid", "Replace"]),
    ) {
        let mut object = cron(&json!({"concurrencyPolicy": policy, "immediate": true}), &json!({}));
        let schedule = read_schedule(&object).unwrap();
        let mut children: Vec<MySQLBackup> = Vec::new();
        let mut taken: Vec<Timestamp> = Vec::new();
        let mut now = at("2026-03-14T09:30:00Z");
        for (seconds, ending, lose_status) in steps {
            now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
            let decision = decide(&object, &schedule, &children, now);
            if let Some(due) = decision.create {
                prop_assert!(!taken.contains(&due), "{due} twice");
                prop_assert!(due <= now);
                let first = object.metadata.creation_timestamp.as_ref().unwrap().0;
                prop_assert!(due == first || schedule.last(due) == Some(due), "{due} is no time of the schedule");
                prop_assert!(policy == "Allow" || active(&children).count() == 0);
                taken.push(due);
                children.push(child(&due.to_string(), "Unknown"));
            }
            children.retain(|backup| !decision.cancel.contains(&backup.name_any()));
            if ending == 0 && let Some(last) = children.last_mut() {
                *last = child(&scheduled_time(last).unwrap().to_string(), "True");
            }
            if let Some(next) = decision.next {
                prop_assert!(next > now);
            }
            // A lost status alone, or lost backups alone, change nothing.
            if !lose_status || children.is_empty() {
                let status = object.status.get_or_insert_default();
                status.last_schedule_time = taken.iter().max().map(|time| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(*time));
                status.counted_from_time = decision.counted_from.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
            }
        }
    }
}
