//! The backup that a schedule takes: its object. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::api::{CronBackup, MySQLBackup};
use crate::operator::names::{MANAGED_BY, SCHEDULE, SCHEDULED_TIME, schedule_label, scheduled_backup_name};

/// The backup for the time `due`. Its name is made of that time, so that however often it is created, it is one.
///
/// It has no owner: a schedule that is deleted leaves its backups. And nothing of the schedule's own labels and
/// annotations: a GitOps tool would take it for an object of its own that is not in Git, and prune it.
pub(super) fn backup(cron: &CronBackup, due: Timestamp) -> MySQLBackup {
    let name = cron.name_any();
    let template = &cron.spec.backup_template;
    let mut labels = template.metadata.labels.clone();
    labels.extend(own_labels(&name));
    let mut annotations = template.metadata.annotations.clone();
    annotations.insert(SCHEDULED_TIME.to_owned(), due.to_string());
    let mut backup = MySQLBackup::new(&scheduled_backup_name(&name, due), template.spec.clone());
    backup.metadata = ObjectMeta {
        namespace: cron.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        ..backup.metadata
    };
    backup
}

fn own_labels(schedule: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (SCHEDULE.to_owned(), schedule_label(schedule)),
    ])
}

/// Whether a backup is one of this schedule's.
pub(super) fn is_own(cron: &CronBackup, backup: &MySQLBackup) -> bool {
    backup.labels().get(SCHEDULE) == Some(&schedule_label(&cron.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backup_has_the_templates_metadata_and_none_of_the_schedules() {
        let cron: CronBackup = serde_json::from_value(json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "CronBackup",
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "u",
                "labels": {"argocd.argoproj.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop"},
                "annotations": {"argocd.argoproj.io/tracking-id": "shop:x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"schedule": "@daily", "backupTemplate": {
                "metadata": {"labels": {"team": "shop", "stillframe.dev/schedule": "stolen"}, "annotations": {"note": "n"}},
                "spec": {"storageRef": {"name": "s"}, "deletionPolicy": "Delete",
                    "source": {"podName": "p", "credentials": {"secretRef": {"name": "c"}}}}}},
        }))
        .unwrap();
        let due = "2026-03-14T02:30:00Z".parse().unwrap();
        let made = backup(&cron, due);
        assert_eq!(made.name_any(), "nightly-202603140230");
        assert_eq!(made.namespace().as_deref(), Some("shop"));
        assert_eq!(
            serde_json::to_value(made.labels()).unwrap(),
            json!({"team": "shop", "app.kubernetes.io/managed-by": "stillframe", "stillframe.dev/schedule": "nightly"})
        );
        assert_eq!(
            serde_json::to_value(made.annotations()).unwrap(),
            json!({"note": "n", "stillframe.dev/scheduled-time": "2026-03-14T02:30:00Z"})
        );
        assert_eq!(made.metadata.owner_references, None);
        assert_eq!(made.spec, cron.spec.backup_template.spec);
        assert!(is_own(&cron, &made));
        assert_eq!(crate::operator::retention::scheduled_time(&made), Some(due));
    }
}
