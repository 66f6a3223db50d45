//! Imports: what is made, what goes, what is told.

use serde_json::Value;

use super::*;
use crate::archive::manifest::BackupType;

const IDS: [&str; 2] = ["nightly-20260314T150926Z-1a2b3c4d", "nightly-20260315T150926Z-1a2b3c4d"];

fn listed(id: &str) -> Listed {
    Listed { id: id.parse().unwrap(), stored_bytes: 1, backup_type: BackupType::Full, marks: Marks::default() }
}

fn content(complete: &[&str], deleted: &[&str]) -> Content {
    Content {
        complete: complete.iter().map(|id| listed(id)).collect(),
        deleted: deleted.iter().map(|id| id.parse().unwrap()).collect(),
    }
}

fn at() -> Moment {
    Moment { generation: 1, now: Timestamp::from_second(1_773_500_966).unwrap() }
}

fn plan(content: &Content, shown: &[MySQLBackup]) -> ImportPlan {
    plan_imports("shop", "bucket", true, content, shown, at())
}

/// An object of its own, taken here.
fn own(id: &str, restorable: (&str, &str)) -> MySQLBackup {
    let said = |type_: &str, (status, reason): (&str, &str)| -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "1970-01-01T00:00:00Z"})
    };
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
        "metadata": {"name": "nightly", "namespace": "shop", "generation": 3},
        "spec": {"storageRef": {"name": "bucket"},
            "source": {"podName": "p", "credentials": {"secretRef": {"name": "c"}}}},
        "status": {"backupId": id,
            "conditions": [said("Succeeded", ("True", "Completed")), said("Restorable", restorable)]},
    }))
    .unwrap()
}

#[test]
fn each_backup_is_shown_once() {
    let there = content(&IDS, &[]);
    let made = plan(&there, &[]).create;
    let names: Vec<String> = made.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["nightly-20260314t150926z-1a2b3c4d", "nightly-20260315t150926z-1a2b3c4d"]);
    assert_eq!(made[0].spec.existing.as_ref().unwrap().backup_id, IDS[0]);
    assert_eq!(made[0].metadata.owner_references, None);
    assert!(!made[0].labels().contains_key(crate::operator::names::SCHEDULE), "no schedule's retention is about it");
    assert!(plan(&there, &made).create.is_empty(), "all are shown");
    assert!(plan_imports("shop", "bucket", false, &there, &[], at()).create.is_empty(), "only when asked to");

    let more = plan(&there, &[own(IDS[0], ("True", "Completed"))]);
    assert_eq!(more.create.len(), 1, "one was taken here, the other one is to be shown");
    assert_eq!(more.create[0].spec.existing.as_ref().unwrap().backup_id, IDS[1]);
    assert!(more.tell.is_empty() && more.remove.is_empty());
}

#[test]
fn pins_and_expiry_come_with_it() {
    let mut there = content(&IDS, &[]);
    let time = |second| Some(Timestamp::from_second(second).unwrap());
    there.complete[0].marks = Marks { pinned: true, expiration_time: time(1_000) };
    there.complete[0].backup_type = BackupType::Incremental;
    there.complete[1].marks = Marks { pinned: false, expiration_time: time(1_000) };
    let made = plan(&there, &[]).create;
    assert_eq!(made.len(), 1, "one that has expired would only be removed again");
    assert!(made[0].spec.pinned);
    assert_eq!(made[0].spec.backup_type, crate::api::backup::BackupType::Incremental);
    assert_eq!(made[0].spec.expiration_time.as_ref().unwrap().0, Timestamp::from_second(1_000).unwrap());
}

#[test]
fn what_is_gone_is_told() {
    let here = own(IDS[0], ("True", "Completed"));
    assert!(plan(&content(&IDS[..1], &[]), std::slice::from_ref(&here)).tell.is_empty());
    let gone = plan(&content(&[], &[]), std::slice::from_ref(&here));
    let (_, new) = &gone.tell[0];
    let said = conditions::find(&new.conditions, types::RESTORABLE).unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "GoneFromStorage"));
    assert_eq!(said.observed_generation, Some(3));
    assert!(new.has_succeeded(), "how it ended does not change");
    assert!(gone.remove.is_empty(), "nobody's object but import's own goes");
    let deleted = plan(&content(&[], &IDS[..1]), std::slice::from_ref(&here));
    assert_eq!((deleted.tell.len(), deleted.remove.len()), (1, 0));

    let back = MySQLBackup { status: Some(new.clone()), ..here };
    assert!(plan(&content(&[], &[]), std::slice::from_ref(&back)).tell.is_empty(), "told once");
    let (_, again) = &plan(&content(&IDS[..1], &[]), &[back]).tell[0];
    assert!(conditions::is(&again.conditions, types::RESTORABLE, status::TRUE));
    let other = own(IDS[0], ("False", "DamagedBackup"));
    assert!(plan(&content(&IDS[..1], &[]), &[other]).tell.is_empty(), "not for a list to judge");
}

#[test]
fn one_that_ended_while_the_storage_was_looked_at_is_not_called_gone() {
    let mut backup = own(IDS[0], ("True", "Completed"));
    let gone = |backup: &MySQLBackup| plan(&content(&[], &[]), std::slice::from_ref(backup)).tell.len();
    assert_eq!(gone(&backup), 1);
    for condition in backup.status.iter_mut().flat_map(|status| &mut status.conditions) {
        condition.last_transition_time.0 = at().now;
    }
    assert_eq!(gone(&backup), 0);
}

#[test]
fn imports_follow_the_storages_tombstones() {
    let made = plan(&content(&IDS, &[]), &[]).create;
    let after = plan(&content(&IDS[..1], &IDS[1..]), &made);
    assert_eq!(after.remove.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [made[1].name_any()]);
    assert!(plan(&content(&IDS[..1], &[]), &made).remove.is_empty(), "merely not listed");
    let mut by_hand = made[1].clone();
    by_hand.metadata.labels = None;
    assert!(plan(&content(&[], &IDS), &[by_hand]).remove.is_empty(), "somebody wrote it");
}
