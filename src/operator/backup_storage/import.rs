//! What a look into a storage means for the objects of its namespace. Pure.
//!
//! ```text
//!   in the storage    an object shows it    importExisting
//!   complete          no                    yes            an object is made: existing, pin and expiry included
//!   complete          yes                                  Restorable: True
//!   not there         yes                                  Restorable: False, GoneFromStorage
//!   deleted for good  one that import made  yes            that object goes
//! ```
//! Only the last takes anything away, and only on the storage's explicit word: its tombstone, which stays for good. What
//! is merely not listed may be a matter of rights, or of the wrong bucket.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use crate::api::conditions::{self, reasons, status, types};
use crate::api::{GROUP, Moment, MySQLBackup, MySQLBackupStatus, VERSION};
use crate::store::{Content, Listed, Marks};

/// Carries the name of the storage that a backup was found in.
const IMPORTED_FROM: &str = "stillframe.dev/imported-from";

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct ImportPlan {
    /// Objects to be made.
    pub(super) create: Vec<MySQLBackup>,
    /// Objects that import made, of backups that were deleted for good.
    pub(super) remove: Vec<MySQLBackup>,
    /// Objects whose status changes, with the new one.
    pub(super) tell: Vec<(MySQLBackup, MySQLBackupStatus)>,
}

/// Decides. `shown` are all backups of the namespace, read after the storage was: what was made meanwhile is in them.
/// The names of new ones are the ids', so that two operators make the same ones.
pub(super) fn plan_imports(
    namespace: &str,
    storage: &str,
    import: bool,
    content: &Content,
    shown: &[MySQLBackup],
    at: Moment,
) -> ImportPlan {
    let mut plan = ImportPlan::default();
    let complete: BTreeMap<&str, &Listed> = content.complete.iter().map(|found| (found.id.as_str(), found)).collect();
    let deleted: BTreeSet<&str> = content.deleted.iter().map(crate::archive::id::BackupId::as_str).collect();
    for backup in shown.iter().filter(|backup| backup.spec.storage_name() == Some(storage)) {
        let id = ids(backup).next().unwrap_or_default();
        if import
            && deleted.contains(id.as_str())
            && was_imported(backup)
            && backup.metadata.deletion_timestamp.is_none()
        {
            plan.remove.push(backup.clone());
        } else if let Some(new) = told(backup, complete.contains_key(id.as_str()), at) {
            plan.tell.push((backup.clone(), new));
        }
    }
    if import {
        let known: BTreeSet<String> = shown.iter().flat_map(ids).collect();
        let names: BTreeSet<String> = shown.iter().map(ResourceExt::name_any).collect();
        let missing = content.complete.iter().filter(|found| !known.contains(found.id.as_str()));
        let wanted = missing.filter(|found| !is_over(&found.marks, at.now));
        plan.create.extend(wanted.filter_map(|found| object(namespace, storage, found, &names)));
    }
    plan
}

/// The ids that an object stands for: the one that it names, the one that it has.
fn ids(backup: &MySQLBackup) -> impl Iterator<Item = String> + use<> {
    let existing = backup.spec.existing.as_ref().map(|existing| existing.backup_id.clone());
    let of_status = backup.status.as_ref().and_then(|status| status.backup_id.clone());
    existing.into_iter().chain(of_status)
}

fn was_imported(backup: &MySQLBackup) -> bool {
    backup.spec.existing.is_some() && backup.labels().contains_key(IMPORTED_FROM)
}

/// It would only be removed again.
fn is_over(marks: &Marks, now: Timestamp) -> bool {
    !marks.pinned && marks.expiration_time.is_some_and(|time| time <= now)
}

/// The status of a backup that ended well, if what is there changed.
fn told(backup: &MySQLBackup, is_there: bool, at: Moment) -> Option<MySQLBackupStatus> {
    let seen = backup.status.as_ref().filter(|seen| seen.has_succeeded())?;
    let is_gone = conditions::find(&seen.conditions, types::RESTORABLE)
        .is_some_and(|said| said.status == status::FALSE && said.reason == reasons::GONE_FROM_STORAGE);
    // What else may be said against it is not for a list to judge.
    let restorable = conditions::is(&seen.conditions, types::RESTORABLE, status::TRUE);
    // One that ended while the storage was looked at need not be in what was seen.
    let ended = conditions::find(&seen.conditions, types::SUCCEEDED).map(|said| said.last_transition_time.0);
    if !is_there && ended.is_some_and(|ended| ended.as_second() >= at.now.as_second()) {
        return None;
    }
    let at = Moment { generation: backup.metadata.generation.unwrap_or(at.generation), now: at.now };
    let mut new = seen.clone();
    match is_there {
        true if is_gone => new.set_restorable(true, reasons::COMPLETED, "the storage holds it, complete, again", at),
        false if restorable => {
            let message = "the storage no longer lists it: it was deleted by others, or cannot be seen";
            new.set_restorable(false, reasons::GONE_FROM_STORAGE, message, at);
        }
        _ => return None,
    }
    Some(new)
}

fn object(namespace: &str, storage: &str, found: &Listed, names: &BTreeSet<String>) -> Option<MySQLBackup> {
    // An id differs from a name only in the case of two letters.
    let name = found.id.as_str().to_ascii_lowercase();
    if names.contains(&name) {
        return None;
    }
    let mut document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "MySQLBackup",
        "metadata": {"name": name, "namespace": namespace, "labels": {
            "app.kubernetes.io/managed-by": "stillframe",
            (IMPORTED_FROM): storage.get(..63).unwrap_or(storage).trim_end_matches(['-', '.']),
        }},
        "spec": {
            "type": found.backup_type,
            "existing": {"storageRef": {"name": storage}, "backupId": found.id},
            "deletionPolicy": "Retain",
            "pinned": found.marks.pinned,
        },
    });
    if let Some(time) = found.marks.expiration_time {
        // Whole seconds, as the API has them.
        let time = Timestamp::from_second(time.as_second()).ok()?;
        document.pointer_mut("/spec")?.as_object_mut()?.insert("expirationTime".to_owned(), json!(time));
    }
    serde_json::from_value(document).ok()
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
