//! Which objects must be made so that every complete backup of a storage is shown by one. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::json;

use crate::api::{GROUP, MySQLBackup, VERSION};

use super::probe::Listed;

/// Carries the name of the storage that a backup was found in.
const IMPORTED_FROM: &str = "stillframe.dev/imported-from";

/// The objects to be made. `shown` are all of the namespace. The names are the ids', so that two operators make the
/// same ones.
pub(super) fn plan_imports(
    namespace: &str,
    storage: &str,
    backups: &[Listed],
    shown: &[MySQLBackup],
) -> Vec<MySQLBackup> {
    let ids = |backup: &MySQLBackup| {
        let existing = backup.spec.existing.as_ref().map(|existing| existing.backup_id.clone());
        let of_status = backup.status.as_ref().and_then(|status| status.backup_id.clone());
        existing.into_iter().chain(of_status)
    };
    let known: BTreeSet<String> = shown.iter().flat_map(ids).collect();
    let names: BTreeSet<String> = shown.iter().map(ResourceExt::name_any).collect();
    let missing = backups.iter().filter(|backup| !known.contains(backup.id.as_str()));
    missing.filter_map(|backup| object(namespace, storage, backup, &names)).collect()
}

fn object(namespace: &str, storage: &str, backup: &Listed, names: &BTreeSet<String>) -> Option<MySQLBackup> {
    // An id differs from a name only in the case of two letters.
    let name = backup.id.as_str().to_ascii_lowercase();
    if names.contains(&name) {
        return None;
    }
    let document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "MySQLBackup",
        "metadata": {"name": name, "namespace": namespace, "labels": {
            "app.kubernetes.io/managed-by": "stillframe",
            (IMPORTED_FROM): storage.get(..63).unwrap_or(storage).trim_end_matches(['-', '.']),
        }},
        "spec": {"existing": {"storageRef": {"name": storage}, "backupId": backup.id}, "deletionPolicy": "Retain"},
    });
    serde_json::from_value(document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 2] = ["nightly-20260314T150926Z-1a2b3c4d", "nightly-20260315T150926Z-1a2b3c4d"];

    fn listed(id: &str) -> Listed {
        Listed { id: id.parse().unwrap(), stored_bytes: 1 }
    }

    #[test]
    fn each_backup_is_shown_once() {
        let backups = IDS.map(listed);
        let made = plan_imports("shop", "bucket", &backups, &[]);
        let names: Vec<String> = made.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["nightly-20260314t150926z-1a2b3c4d", "nightly-20260315t150926z-1a2b3c4d"]);
        assert_eq!(made[0].spec.existing.as_ref().unwrap().backup_id, IDS[0]);
        assert!(plan_imports("shop", "bucket", &backups, &made).is_empty(), "all are shown");

        let mut own = made[0].clone();
        own.metadata.name = Some("nightly".into());
        own.spec.existing = None;
        let status = own.status.get_or_insert_default();
        status.backup_id = Some(IDS[0].to_owned());
        let more = plan_imports("shop", "bucket", &backups, &[own]);
        assert_eq!(more.len(), 1, "one was taken here, the other one is to be shown");
        assert_eq!(more[0].spec.existing.as_ref().unwrap().backup_id, IDS[1]);
    }
}
