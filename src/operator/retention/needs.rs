//! What is in use: backups that others build on, and backups that restores read or may read again. Pure.

use std::collections::BTreeMap;
use std::fmt;

use kube::ResourceExt;

use crate::api::conditions::reasons;
use crate::api::{MySQLBackup, MySQLBackupStatus, MySQLRestore, MySQLRestoreStatus};

/// Who needs a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// The object of a backup that builds on it.
    Increment(String),
    /// A restore that has not ended, or a data source: namespace/name.
    Restore(String),
}

impl Need {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Increment(_) => reasons::NEEDED_BY_INCREMENT,
            Self::Restore(_) => reasons::NEEDED_BY_RESTORE,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Increment(name) => write!(f, "the incremental backup {name} builds on it"),
            Self::Restore(name) => write!(f, "the MySQLRestore {name} needs it"),
        }
    }
}

/// Everything that is needed, by the names of objects of one namespace and by ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    by_name: BTreeMap<String, Need>,
    by_id: BTreeMap<String, Need>,
}

impl Needs {
    /// What is needed in a namespace. `backups` are those of it that may build on others; `restores` may be of other
    /// namespaces, too: they can read the same storage.
    pub(crate) fn gather<'a>(
        namespace: &str,
        backups: impl IntoIterator<Item = &'a MySQLBackup>,
        restores: impl IntoIterator<Item = &'a MySQLRestore>,
    ) -> Self {
        let mut needs = Self::default();
        for backup in backups {
            needs.add_increment(backup);
        }
        for restore in restores {
            needs.add_restore(namespace, restore);
        }
        needs
    }

    /// Who needs this backup.
    pub(crate) fn of(&self, name: &str, id: &str) -> Option<&Need> {
        self.by_name.get(name).or_else(|| self.by_id.get(id))
    }

    fn add_increment(&mut self, backup: &MySQLBackup) {
        let need = || Need::Increment(backup.name_any());
        let seen = backup.status.as_ref();
        let failed = seen.is_some_and(|seen| seen.has_ended() && !seen.has_succeeded());
        if failed {
            return;
        }
        if let Some(parent) = seen.and_then(|seen| seen.parent_backup_name.clone()) {
            self.by_id.entry(parent).or_insert_with(need);
        }
        let to_come = !seen.is_some_and(MySQLBackupStatus::has_ended);
        if let Some(base) = backup.spec.base_ref.as_ref().filter(|_| to_come) {
            self.by_name.entry(base.name.clone()).or_insert_with(need);
        }
    }

    fn add_restore(&mut self, namespace: &str, restore: &MySQLRestore) {
        let seen = restore.status.as_ref();
        // One that is being deleted may still be reading. A data source never ends.
        if seen.is_some_and(MySQLRestoreStatus::has_ended) {
            return;
        }
        let home = restore.namespace().unwrap_or_default();
        let need = || Need::Restore(format!("{home}/{}", restore.name_any()));
        let source = &restore.spec.source;
        if let Some(backup) = source.backup_ref.as_ref().filter(|_| home == namespace) {
            self.by_name.entry(backup.name.clone()).or_insert_with(need);
        }
        let named = source.storage.as_ref().map(|existing| existing.backup_id.clone());
        for id in named.into_iter().chain(seen.and_then(|seen| seen.backup_id.clone())) {
            self.by_id.entry(id).or_insert_with(need);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn restore(name: &str, namespace: &str, source: &Value, status: &Value) -> MySQLRestore {
        serde_json::from_value(json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLRestore",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"source": source, "target": {"dataSource": {}}}, "status": status,
        }))
        .unwrap()
    }

    fn ended(status: &str) -> Value {
        json!({"conditions": [{"type": "Succeeded", "status": status, "reason": "R", "message": "m",
            "lastTransitionTime": "1970-01-01T00:00:00Z"}]})
    }

    fn backup(name: &str, spec: &Value, status: &Value) -> MySQLBackup {
        serde_json::from_value(json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": {"name": name},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_restore_needs_its_backup_until_it_ends() {
        let by_name = json!({"backupRef": {"name": "b"}});
        let needs = |status: &Value| Needs::gather("shop", [], [&restore("r", "shop", &by_name, status)]);
        assert_eq!(needs(&json!({})).of("b", "x"), Some(&Need::Restore("shop/r".into())));
        assert_eq!(needs(&ended("Unknown")).of("b", "x"), Some(&Need::Restore("shop/r".into())));
        assert_eq!(needs(&ended("True")).of("b", "x"), None);
        assert_eq!(needs(&ended("False")).of("b", "x"), None);
        let serving = json!({"backupId": "id", "conditions": [{"type": "Ready", "status": "True", "reason": "Serving",
            "message": "m", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
        assert!(needs(&serving).of("b", "x").is_some(), "a data source never ends");
        assert!(needs(&serving).of("imported", "id").is_some(), "by another object of the same backup, too");
    }

    #[test]
    fn a_restore_of_another_namespace_counts_by_id() {
        let by_id = json!({"storage": {"storageRef": {"name": "s"}, "backupId": "id"}});
        let needs = Needs::gather("shop", [], [&restore("r", "other", &by_id, &json!({}))]);
        assert_eq!(needs.of("b", "id"), Some(&Need::Restore("other/r".into())));
        let by_name = json!({"backupRef": {"name": "b"}});
        let needs = Needs::gather("shop", [], [&restore("r", "other", &by_name, &json!({}))]);
        assert_eq!(needs.of("b", "id"), None, "a backup of that name in the other namespace");
    }

    #[test]
    fn increments_need_what_they_build_on() {
        let spec = json!({"type": "Incremental", "baseRef": {"name": "base"}, "storageRef": {"name": "s"},
            "source": {"podName": "p", "credentials": {"secretRef": {"name": "c"}}}});
        let needs = |status: &Value| Needs::gather("shop", [&backup("child", &spec, status)], []);
        assert_eq!(needs(&json!({})).of("base", "x"), Some(&Need::Increment("child".into())));
        let mut done = ended("True");
        done["parentBackupName"] = json!("parent-id");
        assert!(needs(&done).of("base", "parent-id").is_some());
        let mut failed = ended("False");
        failed["parentBackupName"] = json!("parent-id");
        assert!(needs(&failed).of("base", "parent-id").is_none(), "there is nothing to restore from it");
    }
}
