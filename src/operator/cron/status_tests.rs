//! What a schedule's status says.

use serde_json::json;

use super::*;
use crate::api::conditions::{self, types};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(suspend: bool, policy: &str) -> CronBackup {
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup",
        "metadata": {"name": "often", "namespace": "shop", "creationTimestamp": "2026-03-14T09:30:00Z"},
        "spec": {"schedule": "@hourly", "suspend": suspend, "concurrencyPolicy": policy,
            "backupTemplate": {"spec": {}}},
    }))
    .unwrap()
}

fn child(name: &str, succeeded: &str, restorable: &str, completed: &str) -> MySQLBackup {
    let said = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "R", "message": "m",
            "lastTransitionTime": "1970-01-01T00:00:00Z"})
    };
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
        "metadata": {"name": name, "annotations": {"stillframe.dev/scheduled-time": "2026-03-14T10:00:00Z"}},
        "spec": {},
        "status": {"completionTime": completed,
            "conditions": [said("Succeeded", succeeded), said("Restorable", restorable)]},
    }))
    .unwrap()
}

fn moment() -> Moment {
    Moment { generation: 7, now: at("2026-03-14T11:00:00Z") }
}

fn ready(status: &CronBackupStatus) -> (String, String, String) {
    let said = conditions::find(&status.conditions, types::READY).unwrap();
    (said.status.clone(), said.reason.clone(), said.message.clone())
}

#[test]
fn it_tells_what_runs_and_what_was_good() {
    let children = [
        child("a", "True", "True", "2026-03-14T10:05:00Z"),
        child("b", "True", "False", "2026-03-14T10:09:00Z"),
        child("c", "False", "False", "2026-03-14T10:10:00Z"),
        child("d", "Unknown", "Unknown", "2026-03-14T10:11:00Z"),
    ];
    let decision = Decision {
        create: Some(at("2026-03-14T11:00:00Z")),
        next: Some(at("2026-03-14T12:00:00Z")),
        ..Decision::default()
    };
    let new = status(&cron(false, "Allow"), &children, Ok(&decision), moment());
    let names: Vec<&str> = new.active.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["often-202603141100", "d"]);
    assert_eq!(new.last_successful_backup_name.as_deref(), Some("a"), "b is gone from its storage");
    assert_eq!(new.last_successful_time, Some(Time(at("2026-03-14T10:05:00Z"))));
    assert_eq!(new.last_schedule_time, Some(Time(at("2026-03-14T11:00:00Z"))));
    assert_eq!(new.next_schedule_time, Some(Time(at("2026-03-14T12:00:00Z"))));
    assert_eq!(new.observed_schedule.as_deref(), Some("@hourly Etc/UTC"));
    assert_eq!(ready(&new).0, "True");
    assert_eq!(new.observed_generation, Some(7));
}

#[test]
fn it_says_why_nothing_is_taken() {
    let suspended = status(&cron(true, "Forbid"), &[], Ok(&Decision::default()), moment());
    assert_eq!((ready(&suspended).0.as_str(), ready(&suspended).1.as_str()), ("False", "Suspended"));
    assert_eq!(suspended.next_schedule_time, None);
    let refusal = Refusal { reason: reasons::INVALID_SCHEDULE, message: "never".into() };
    let refused = status(&cron(false, "Forbid"), &[], Err(&refusal), moment());
    assert_eq!(ready(&refused), ("False".into(), "InvalidSchedule".into(), "never".into()));
    let children = [child("d", "Unknown", "Unknown", "2026-03-14T10:11:00Z")];
    let waits = Decision { waiting: Some(at("2026-03-14T11:00:00Z")), ..Decision::default() };
    let waiting = status(&cron(false, "Forbid"), &children, Ok(&waits), moment());
    assert_eq!(ready(&waiting).2, "the backup of 2026-03-14T11:00:00Z waits for d to end");
}

#[test]
fn a_status_comes_to_rest() {
    let children = [child("d", "Unknown", "Unknown", "2026-03-14T10:11:00Z")];
    for (suspend, policy) in [(true, "Allow"), (false, "Forbid"), (false, "Replace")] {
        let mut object = cron(suspend, policy);
        let mut look = |second: i64| {
            let now = at("2026-03-14T11:00:00Z").checked_add(jiff::SignedDuration::from_secs(second)).unwrap();
            let schedule = super::super::validate::read_schedule(&object).unwrap();
            let decision = super::super::validate::decide(&object, &schedule, &children, now);
            let new = status(&object, &children, Ok(&decision), Moment { generation: 7, now });
            let changed = object.status.as_ref() != Some(&new);
            object.status = Some(new);
            changed
        };
        assert!(look(0), "{policy}");
        assert!((1..100).all(|second| !look(second)), "each write would be the cause of the next look: {policy}");
    }
}

#[test]
fn a_status_names_no_more_than_it_may() {
    let children: Vec<MySQLBackup> = (0..150)
        .map(|number| child(&format!("often-{number:04}"), "Unknown", "Unknown", "2026-03-14T10:11:00Z"))
        .collect();
    let new = status(&cron(false, "Allow"), &children, Ok(&Decision::default()), moment());
    assert_eq!((new.active.len(), new.active[0].name.as_str()), (MOST_ACTIVE, "often-0149"), "the newest");
}
