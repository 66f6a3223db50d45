//! What the controllers watch, as metrics tell of it: storages and their health, schedules and their last good backup.
//! Pure, but for the caches that it reads.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::api::conditions::{self, status, types};
use crate::api::{BackupStorage, CronBackup, MySQLBackup};
use crate::obs::metrics::{ScheduleState, StorageState, Watched};

use super::names::{SCHEDULE, schedule_label};

/// The caches of the controllers, each there once its controller runs.
#[derive(Default)]
pub(crate) struct Caches {
    pub(crate) backups: OnceLock<Store<MySQLBackup>>,
    pub(crate) storages: OnceLock<Store<BackupStorage>>,
    pub(crate) schedules: OnceLock<Store<CronBackup>>,
}

impl Caches {
    /// What there is to tell.
    pub(crate) fn look(&self) -> Watched {
        let state = |storage: &Arc<BackupStorage>| storage_state(storage);
        Watched {
            storages: self.storages.get().map(|store| store.state().iter().map(state).collect()).unwrap_or_default(),
            schedules: schedule_states(
                &self.schedules.get().map(Store::state).unwrap_or_default(),
                &self.backups.get().map(Store::state).unwrap_or_default(),
            ),
        }
    }

    /// True of a storage that is known to be no good at the moment.
    pub(crate) fn is_unusable(&self, namespace: &str, storage: &str) -> bool {
        let of_that_name =
            |one: &BackupStorage| one.name_any() == storage && one.namespace().as_deref() == Some(namespace);
        let says_so = |one: &BackupStorage| {
            let conditions = one.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions::is(conditions, types::READY, status::FALSE)
        };
        self.storages.get().is_some_and(|store| store.state().iter().any(|one| of_that_name(one) && says_so(one)))
    }
}

fn storage_state(storage: &BackupStorage) -> StorageState {
    let status = storage.status.clone().unwrap_or_default();
    StorageState {
        namespace: storage.namespace().unwrap_or_default(),
        name: storage.name_any(),
        ready: status.is_ready(),
        backups: status.backup_count.unwrap_or(0),
        stored_bytes: status.stored_bytes.unwrap_or(0),
    }
}

/// The last success is the newest of what the schedule's status says and what its backups say: the one outlives the
/// backups, the other is there before the status is.
fn schedule_states(schedules: &[Arc<CronBackup>], backups: &[Arc<MySQLBackup>]) -> Vec<ScheduleState> {
    // By label, which for a long name is another one. A schedule that is gone is known by that alone.
    let mut states: BTreeMap<(String, String), ScheduleState> = BTreeMap::new();
    let known = |namespace: String, name: String| ScheduleState { namespace, name, created: None, last_success: None };
    for schedule in schedules {
        let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
        let key = (namespace.clone(), schedule_label(&name));
        let state = states.entry(key).or_insert_with(|| known(namespace, name));
        state.created = schedule.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let last = schedule.status.as_ref().and_then(|status| status.last_successful_time.as_ref());
        state.last_success = last.map(|time| time.0.as_second());
    }
    for backup in backups {
        let Some(schedule) = backup.labels().get(SCHEDULE) else { continue };
        let Some(good) = backup.status.as_ref().filter(|status| status.has_succeeded()) else { continue };
        let Some(ended) = good.completion_time.as_ref().map(|time| time.0.as_second()) else { continue };
        let namespace = backup.namespace().unwrap_or_default();
        let key = (namespace.clone(), schedule.clone());
        let state = states.entry(key).or_insert_with(|| known(namespace, schedule.clone()));
        state.last_success = state.last_success.max(Some(ended));
    }
    states.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn backup(name: &str, status: &str, ended: &str) -> Arc<MySQLBackup> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
                "metadata": {"name": name, "namespace": "shop", "labels": {SCHEDULE: "nightly"}},
                "spec": {"existing": {"storageRef": {"name": "b"}, "backupId": "x"}},
                "status": {"completionTime": ended, "conditions": [{"type": "Succeeded", "status": status, "reason": "R",
                    "message": "m", "lastTransitionTime": ended}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_last_good_backup_of_a_schedule_is_the_newest_that_succeeded() {
        let backups = [
            backup("a", "True", "1970-01-01T00:00:10Z"),
            backup("b", "True", "1970-01-01T00:00:30Z"),
            backup("c", "False", "1970-01-01T00:00:50Z"),
        ];
        let states = schedule_states(&[], &backups);
        let wanted =
            ScheduleState { namespace: "shop".into(), name: "nightly".into(), created: None, last_success: Some(30) };
        assert_eq!(states, [wanted]);
    }
}
