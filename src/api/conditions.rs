//! Conditions: their types and reasons by name, and the one way to set them.
//!
//! Reasons that a verb of the engine gives are those of its `ErrorKind`; they come in as text and are not repeated
//! here. Each has a page in `docs/runbooks/`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod types {
    /// Sums up a kind that runs to completion: Unknown until it ended, then True or False forever.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Sums up a kind that stays.
    pub const READY: &str = "Ready";
    /// The storage holds the backup, complete.
    pub const RESTORABLE: &str = "Restorable";
    /// A backup's `expirationTime` has passed.
    pub const EXPIRED: &str = "Expired";
    /// The storage itself knows that a backup is pinned, and when it expires.
    pub const RECORDED: &str = "Recorded";
}

/// Values of a condition's status.
pub mod status {
    /// It holds.
    pub const TRUE: &str = "True";
    /// It does not.
    pub const FALSE: &str = "False";
    /// It cannot be said yet.
    pub const UNKNOWN: &str = "Unknown";
}

/// Reasons of events that are no condition's. One that tells of how a backup fares is `Backup` and the condition's reason.
pub mod events {
    /// A schedule created a backup.
    pub const BACKUP_CREATED: &str = "BackupCreated";
    /// A schedule created none: it was too late for it.
    pub const BACKUP_MISSED: &str = "BackupMissed";
    /// A schedule cancelled a backup for the next one.
    pub const BACKUP_REPLACED: &str = "BackupReplaced";
    /// A schedule left one out: its name belongs to somebody else's.
    pub const BACKUP_NAME_TAKEN: &str = "BackupNameTaken";
    /// No rule of a schedule's retention keeps a backup.
    pub const BACKUP_REMOVED: &str = "BackupRemoved";
    /// The time of a backup has passed, and it stays.
    pub const BACKUP_KEPT: &str = "BackupKept";
    /// The time of a backup has passed, and it goes with its data.
    pub const BACKUP_EXPIRED: &str = "BackupExpired";
    /// The object goes, its data stays.
    pub const BACKUP_RETAINED: &str = "BackupRetained";
    /// The object had to go before its data could be removed.
    pub const BACKUP_DATA_LEFT_BEHIND: &str = "BackupDataLeftBehind";

    /// All of them: each has a line in `docs/runbooks/schedules.md`.
    pub const ALL: &[&str] = &[
        BACKUP_CREATED,
        BACKUP_MISSED,
        BACKUP_REPLACED,
        BACKUP_NAME_TAKEN,
        BACKUP_REMOVED,
        BACKUP_KEPT,
        BACKUP_EXPIRED,
        BACKUP_RETAINED,
        BACKUP_DATA_LEFT_BEHIND,
    ];
}

/// Reasons that the operator gives. Those of the engine (`ErrorKind`) come on top.
pub mod reasons {
    /// Seen, nothing done yet.
    pub const PENDING: &str = "Pending";
    /// Held back by `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// Something that the spec names is not there yet.
    pub const WAITING_FOR_REFERENCE: &str = "WaitingForReference";
    /// The storage is not ready.
    pub const STORAGE_NOT_READY: &str = "StorageNotReady";
    /// No pod fits the source.
    pub const NO_SOURCE_POD: &str = "NoSourcePod";
    /// No second pod can mount the database's volume.
    pub const VOLUME_NOT_SHAREABLE: &str = "VolumeNotShareable";
    /// The runner's pod exists but does not run yet.
    pub const STARTING: &str = "Starting";
    /// The runner's pod cannot be scheduled.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The runner's pod was refused: quota, limit range, pod security, admission.
    pub const POD_REFUSED: &str = "PodRefused";
    /// The runner's image or a volume cannot be had.
    pub const POD_STUCK: &str = "PodStuck";
    /// A runner works.
    pub const RUNNING: &str = "Running";
    /// A try failed; another one follows.
    pub const RETRYING: &str = "Retrying";
    /// The runner says it is done; the operator looks for itself.
    pub const CONFIRMING: &str = "Confirming";
    /// Done, and seen in the storage.
    pub const COMPLETED: &str = "Completed";
    /// Found in the storage.
    pub const IMPORTED: &str = "Imported";
    /// The runner was killed for using more memory than it may.
    pub const RUNNER_OUT_OF_MEMORY: &str = "RunnerOutOfMemory";
    /// The runner was evicted from its node.
    pub const RUNNER_EVICTED: &str = "RunnerEvicted";
    /// The runner died without a word.
    pub const RUNNER_DIED: &str = "RunnerDied";
    /// The runner's pod is gone.
    pub const RUNNER_LOST: &str = "RunnerLost";
    /// It did not start within `startingDeadlineSeconds`.
    pub const STARTING_DEADLINE_EXCEEDED: &str = "StartingDeadlineExceeded";
    /// It took longer than `activeDeadlineSeconds`.
    pub const ACTIVE_DEADLINE_EXCEEDED: &str = "ActiveDeadlineExceeded";
    /// The spec asks for something that cannot be.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The storage no longer holds it.
    pub const GONE_FROM_STORAGE: &str = "GoneFromStorage";
    /// A storage's probe passed.
    pub const PROBED: &str = "Probed";
    /// A schedule works.
    pub const SCHEDULED: &str = "Scheduled";
    /// A schedule that can never come true, or a time zone that is not known.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// A data source serves claims.
    pub const SERVING: &str = "Serving";
    /// `expirationTime` had passed before anything was done, or the backup is about to go.
    pub const EXPIRED: &str = "Expired";
    /// The backup stays: it is pinned.
    pub const PINNED: &str = "Pinned";
    /// The backup stays: another backup builds on it.
    pub const NEEDED_BY_INCREMENT: &str = "NeededByIncrement";
    /// The backup stays: a restore needs it.
    pub const NEEDED_BY_RESTORE: &str = "NeededByRestore";
    /// The storage knows what the object says.
    pub const RECORDED: &str = "Recorded";
    /// The storage may not be written to.
    pub const READ_ONLY: &str = "ReadOnly";
    /// What a restore is to make is there already.
    pub const TARGET_EXISTS: &str = "TargetExists";
    /// A claim is filled, and its volume is being handed over.
    pub const HANDING_OVER: &str = "HandingOver";
    /// A claim waits for the first pod that uses it: that pod decides about the node.
    pub const WAITING_FOR_CONSUMER: &str = "WaitingForConsumer";
    /// The provisioner gave a claim an empty volume, whatever its dataSourceRef says.
    pub const PROVISIONED_EMPTY: &str = "ProvisionedEmpty";
    /// A claim that can never be filled as it is.
    pub const CLAIM_UNUSABLE: &str = "ClaimUnusable";
    /// The volume that was filled is gone.
    pub const VOLUME_LOST: &str = "VolumeLost";

    /// All of them, for the documentation and its test.
    pub const ALL: &[&str] = &[
        PENDING,
        SUSPENDED,
        WAITING_FOR_REFERENCE,
        STORAGE_NOT_READY,
        NO_SOURCE_POD,
        VOLUME_NOT_SHAREABLE,
        STARTING,
        UNSCHEDULABLE,
        POD_REFUSED,
        POD_STUCK,
        RUNNING,
        RETRYING,
        CONFIRMING,
        COMPLETED,
        IMPORTED,
        RUNNER_OUT_OF_MEMORY,
        RUNNER_EVICTED,
        RUNNER_DIED,
        RUNNER_LOST,
        STARTING_DEADLINE_EXCEEDED,
        ACTIVE_DEADLINE_EXCEEDED,
        INVALID_SPEC,
        GONE_FROM_STORAGE,
        PROBED,
        SCHEDULED,
        INVALID_SCHEDULE,
        SERVING,
        EXPIRED,
        PINNED,
        NEEDED_BY_INCREMENT,
        NEEDED_BY_RESTORE,
        RECORDED,
        READ_ONLY,
        TARGET_EXISTS,
        HANDING_OVER,
        WAITING_FOR_CONSUMER,
        PROVISIONED_EMPTY,
        CLAIM_UNUSABLE,
        VOLUME_LOST,
    ];
}

/// What is to be said under one type of condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<'a> {
    /// True, False or Unknown: one of [`status`].
    pub status: &'static str,
    /// One word: one of [`reasons`], or an engine's.
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
}

/// Longest message that is stored; what is cut off was for the log.
const MESSAGE_MAX: usize = 4096;

/// Sets one condition. The time of transition moves only when the status does. True if anything changed.
pub fn set(conditions: &mut Vec<Condition>, type_: &str, said: &Said<'_>, generation: i64, now: Timestamp) -> bool {
    let message = shortened(said.message);
    let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == type_) else {
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: said.status.to_owned(),
            reason: said.reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(now),
            observed_generation: Some(generation),
        });
        return true;
    };
    let before = old.clone();
    if old.status != said.status {
        said.status.clone_into(&mut old.status);
        old.last_transition_time = Time(now);
    }
    said.reason.clone_into(&mut old.reason);
    message.clone_into(&mut old.message);
    old.observed_generation = Some(generation);
    *old != before
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// True if the condition of this type has this status.
pub fn is(conditions: &[Condition], type_: &str, status: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == status)
}

fn shortened(message: &str) -> &str {
    if message.len() <= MESSAGE_MAX {
        return message;
    }
    let mut end = MESSAGE_MAX;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_of_transition_moves_with_the_status_only() {
        let mut conditions = Vec::new();
        let said = |status, reason| Said { status, reason, message: "m" };
        assert!(set(&mut conditions, types::READY, &said(status::UNKNOWN, "A"), 1, at(10)));
        assert!(!set(&mut conditions, types::READY, &said(status::UNKNOWN, "A"), 1, at(20)), "nothing changed");
        assert!(set(&mut conditions, types::READY, &said(status::UNKNOWN, "B"), 2, at(30)));
        assert_eq!(conditions[0].last_transition_time.0, at(10));
        assert!(set(&mut conditions, types::READY, &said(status::TRUE, "C"), 2, at(40)));
        assert_eq!(conditions[0].last_transition_time.0, at(40));
        assert_eq!(conditions[0].observed_generation, Some(2));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_at_a_letter() {
        let long = "ü".repeat(3000);
        assert_eq!(shortened(&long).len(), MESSAGE_MAX);
        let odd = format!("a{long}");
        assert_eq!(shortened(&odd).len(), MESSAGE_MAX - 1);
    }

    #[test]
    fn reasons_are_single_camel_case_words_and_unique() {
        let mut seen = std::collections::HashSet::new();
        for reason in reasons::ALL {
            assert!(reason.starts_with(|c: char| c.is_ascii_uppercase()), "{reason}");
            assert!(reason.chars().all(|c| c.is_ascii_alphanumeric()), "{reason}");
            assert!(seen.insert(reason), "{reason}");
        }
    }
}
