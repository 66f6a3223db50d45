//! How a `MySQLBackup` went, as a small state machine.
//!
//! ```text
//!              ┌──────────── set_retrying ◄────────────┐
//!              ▼                                       │
//!   set_pending ──► set_started ──► set_running ──► set_confirming ──► set_succeeded   ┐
//!        │               │ (progress)    │                │                            ├ terminal, immutable
//!        └───────────────┴───────────────┴────────────────┴──────────► set_failed      ┘
//!   set_imported (spec.existing) ─────────────────────────────────────────────────────►
//! ```
//!
//! Each transition says the `Succeeded` condition and nothing outside of it does. The operator is the only caller.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BinlogPosition, LsnRange, Progress, RunnerStatus, capped_gtid_set};
use super::conditions::{self, Said, reasons, status, types};
use super::schema;
use crate::util::units::format_bytes;

/// Warnings that a status tells; the manifest has them all.
const MOST_WARNINGS: usize = 64;

/// How a backup stands or how it ended. Written by the operator alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(oldSelf.conditions) || !oldSelf.conditions.exists(o, o.type == 'Succeeded' && o.status != 'Unknown') \
     || (has(self.conditions) && self.conditions.exists(c, c.type == 'Succeeded' \
     && oldSelf.conditions.exists(o, o.type == 'Succeeded' && o.status == c.status)))",
    "the backup has ended, and how it ended cannot be changed: create another one",
)])))]
pub struct MySQLBackupStatus {
    /// The generation of the object that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Succeeded sums up: Unknown until the backup ended, its reason says how it stands. Restorable is True while the
    /// storage holds the backup, complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The backup's id in its storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// The BackupStorage that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_name: Option<String>,
    /// Where it is, as a URL without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The id of the backup that an incremental one builds on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_backup_name: Option<String>,
    /// When the operator decided on its first try, just before it made the runner; of an imported backup, when the backup
    /// itself began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long the successful try took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// The server that was backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The redo that the backup carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<LsnRange>,
    /// The binary log at the backup's point in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binlog: Option<BinlogPosition>,
    /// Every transaction that the backup holds. Cut at 64 KiB; the backup's manifest has the set whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gtid_executed: Option<String>,
    /// Bytes read from the server's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Bytes that it takes in the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// sizeBytes for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// How long the backup lock was held. DDL waits meanwhile, reads and writes do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_held_milliseconds: Option<i64>,
    /// How long DDL was seen waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ddl_wait_milliseconds: Option<i64>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Who does the work, or did it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerStatus>,
    /// How many tries failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// When the next try may begin, after one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// What a person should know of it, such as tables that were left out: as the storage tells it, 64 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub warnings: Vec<String>,
    /// What had the backup made, as the storage tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginStatus>,
    /// What the storage itself knows of pin and expiry, and so every cluster that is pointed at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedMarks>,
}

/// What had a backup made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginStatus {
    /// The cluster's id: the uid of its namespace kube-system. Unset where the operator may not read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The namespace of the object that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The schedule that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// What a storage knows of pin and expiry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedMarks {
    /// Whether it is pinned.
    #[serde(default)]
    pub pinned: bool,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,
}

/// The server that was backed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The pod that it ran in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Its server_uuid.
    #[serde(rename = "serverUUID", skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// Its version, as it says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// What it was when it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<ServerRole>,
}

/// What a server is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServerRole {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

/// What the stored manifest tells of a complete backup.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupOutcome {
    /// The id.
    pub backup_id: String,
    /// Where it is.
    pub destination: String,
    /// The id that it builds on.
    pub parent: Option<String>,
    /// `server_uuid`.
    pub server_uuid: String,
    /// The server's version.
    pub server_version: String,
    /// What it was among its kind, if the manifest tells.
    pub role: Option<ServerRole>,
    /// The redo range.
    pub lsn: LsnRange,
    /// The binary log at the cut.
    pub binlog: Option<BinlogPosition>,
    /// Every transaction in it, whole.
    pub gtid_executed: String,
    /// Bytes read.
    pub size_bytes: i64,
    /// Bytes stored.
    pub stored_bytes: i64,
    /// How long the backup lock was held.
    pub lock_held_milliseconds: i64,
    /// How long DDL waited.
    pub ddl_wait_milliseconds: i64,
    /// When the run began.
    pub start_time: Timestamp,
    /// When the manifest was committed.
    pub completion_time: Timestamp,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// What had it made.
    pub origin: OriginStatus,
}

/// Returned when a transition was asked of a backup that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backup has already ended, and how it ended cannot be changed")]
pub struct AlreadyEnded;

/// Who speaks, about which generation, and when.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The object's generation.
    pub generation: i64,
    /// The time.
    pub now: Timestamp,
}

impl MySQLBackupStatus {
    /// True once the backup succeeded or failed for good.
    pub fn has_ended(&self) -> bool {
        self.has_succeeded() || conditions::is(&self.conditions, types::SUCCEEDED, status::FALSE)
    }

    /// True once the backup succeeded.
    pub fn has_succeeded(&self) -> bool {
        conditions::is(&self.conditions, types::SUCCEEDED, status::TRUE)
    }

    /// The reason of the summary.
    pub fn reason(&self) -> &str {
        conditions::find(&self.conditions, types::SUCCEEDED).map_or("", |condition| condition.reason.as_str())
    }

    /// Nothing runs, and this is why.
    pub fn set_pending(&mut self, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reason, message, at)
    }

    /// A runner was made: this is its try.
    pub fn set_started(
        &mut self,
        runner: RunnerStatus,
        backup_id: &str,
        source: SourceStatus,
        at: Moment,
    ) -> Result<(), AlreadyEnded> {
        let message = format!("try {} in pod {}", runner.attempt, runner.pod_name);
        self.say(status::UNKNOWN, reasons::STARTING, &message, at)?;
        self.start_time.get_or_insert(Time(at.now));
        self.backup_id = Some(backup_id.to_owned());
        self.source = Some(source);
        self.runner = Some(runner);
        self.progress = None;
        self.next_attempt_time = None;
        Ok(())
    }

    /// The runner works, and is so far.
    pub fn set_running(&mut self, progress: Option<Progress>, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reasons::RUNNING, "the runner works", at)?;
        if let Some(progress) = progress {
            self.progress = Some(progress.summarised());
        }
        Ok(())
    }

    /// The runner says it is done; the storage is being looked at.
    pub fn set_confirming(&mut self, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reasons::CONFIRMING, message, at)
    }

    /// A try failed; the next one begins at `next`.
    pub fn set_retrying(
        &mut self,
        reason: &str,
        message: &str,
        next: Timestamp,
        at: Moment,
    ) -> Result<(), AlreadyEnded> {
        let failed = self.failed_attempts.unwrap_or(0).saturating_add(1);
        let text = format!("try {failed} failed ({reason}): {message}");
        self.say(status::UNKNOWN, reasons::RETRYING, &text, at)?;
        self.failed_attempts = Some(failed);
        self.next_attempt_time = Some(Time(next));
        self.progress = None;
        Ok(())
    }

    /// Done, and seen in the storage.
    pub fn set_succeeded(&mut self, outcome: BackupOutcome, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::TRUE, reasons::COMPLETED, "the backup is complete in its storage", at)?;
        self.completion_time = Some(Time(outcome.completion_time));
        self.take_outcome(outcome, at);
        Ok(())
    }

    /// Found in the storage, taken by nobody here.
    pub fn set_imported(&mut self, outcome: BackupOutcome, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::TRUE, reasons::IMPORTED, "the backup was found in its storage", at)?;
        self.start_time = Some(Time(outcome.start_time));
        self.completion_time = Some(Time(outcome.completion_time));
        self.take_outcome(outcome, at);
        Ok(())
    }

    /// It will not succeed any more.
    pub fn set_failed(&mut self, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::FALSE, reason, message, at)?;
        self.completion_time = Some(Time(at.now));
        self.progress = None;
        self.next_attempt_time = None;
        let said = Said { status: status::FALSE, reason, message: "there is nothing to restore" };
        conditions::set(&mut self.conditions, types::RESTORABLE, &said, at.generation, at.now);
        Ok(())
    }

    /// Whether the storage still holds it. May change after the end: a bucket has a life of its own.
    pub fn set_restorable(&mut self, restorable: bool, reason: &str, message: &str, at: Moment) {
        let status = if restorable { status::TRUE } else { status::FALSE };
        let said = Said { status, reason, message };
        conditions::set(&mut self.conditions, types::RESTORABLE, &said, at.generation, at.now);
        self.observed_generation = Some(at.generation);
    }

    /// Says one of the conditions beside the summary, or takes it away.
    pub fn set_aside(&mut self, type_: &str, said: Option<&Said<'_>>, at: Moment) {
        match said {
            Some(said) => {
                conditions::set(&mut self.conditions, type_, said, at.generation, at.now);
            }
            None => self.conditions.retain(|condition| condition.type_ != type_),
        }
        self.observed_generation = Some(at.generation);
    }

    fn take_outcome(&mut self, outcome: BackupOutcome, at: Moment) {
        // Without `..`: a field that the manifest tells must not be forgotten here.
        let BackupOutcome {
            backup_id,
            destination,
            parent,
            server_uuid,
            server_version,
            role,
            lsn,
            binlog,
            gtid_executed,
            size_bytes,
            stored_bytes,
            lock_held_milliseconds,
            ddl_wait_milliseconds,
            start_time,
            completion_time,
            mut warnings,
            origin,
        } = outcome;
        self.backup_id = Some(backup_id);
        self.destination = Some(destination);
        self.parent_backup_name = parent;
        let source = self.source.get_or_insert_default();
        source.server_uuid = Some(server_uuid);
        source.server_version = Some(server_version);
        source.role = role.or(source.role);
        self.lsn = Some(lsn);
        self.binlog = binlog;
        self.gtid_executed = Some(capped_gtid_set(&gtid_executed)).filter(|set| !set.is_empty());
        self.size_bytes = Some(size_bytes);
        self.stored_bytes = Some(stored_bytes);
        self.size = Some(format_bytes(u64::try_from(size_bytes).unwrap_or(0)));
        self.lock_held_milliseconds = Some(lock_held_milliseconds);
        self.ddl_wait_milliseconds = Some(ddl_wait_milliseconds);
        self.duration_seconds = Some(completion_time.duration_since(start_time).as_secs().max(0));
        warnings.truncate(MOST_WARNINGS);
        self.warnings = warnings;
        self.origin = Some(origin).filter(|origin| *origin != OriginStatus::default());
        self.progress = None;
        self.next_attempt_time = None;
        self.set_restorable(true, reasons::COMPLETED, "the storage holds a complete backup", at);
    }

    fn say(&mut self, status: &'static str, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        if self.has_ended() {
            return Err(AlreadyEnded);
        }
        let said = Said { status, reason, message };
        conditions::set(&mut self.conditions, types::SUCCEEDED, &said, at.generation, at.now);
        self.observed_generation = Some(at.generation);
        Ok(())
    }
}

#[cfg(test)]
#[path = "backup_status_tests.rs"]
mod tests;
