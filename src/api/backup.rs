//! `MySQLBackup`: one backup, taken from a running server or found in a bucket.
//!
//! ```text
//!   source   + storageRef      a runner copies a live server's files into the storage
//!   existing {storageRef, id}  shows a backup that a storage already holds; never runs
//! ```
//!
//! What is asked for. How it went is in [`super::backup_status`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup_status::MySQLBackupStatus;
use super::common::{EncryptionSpec, ObjectRef, RunnerSpec};
use super::schema;
use super::source::BackupSource;

/// The fields of `spec` that may change after creation.
pub(super) const MUTABLE: &[&str] = &["deletionPolicy", "pinned", "expirationTime", "suspend"];

/// One physical backup of a MySQL server: taken from a running one (spec.source), or one that a storage already holds
/// (spec.existing). Applying the same object again never repeats a backup. Deleting it cancels it while it runs; what
/// becomes of the stored data says spec.deletionPolicy.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "stillframe.dev",
    version = "v1alpha1",
    kind = "MySQLBackup",
    namespaced,
    status = "MySQLBackupStatus",
    shortname = "sfb",
    category = "stillframe",
    derive = "PartialEq",
    doc = "One physical backup of a MySQL server: taken from a running one (spec.source), or one that a storage \
           already holds (spec.existing). Applying the same object again never repeats a backup; deleting it while \
           it runs cancels it.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type", description = "Full or incremental"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#,
        description = "How it stands or how it ended"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress.summary",
        description = "How far it is"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.size",
        description = "Size of the data backed up"
    ),
    printcolumn(
        name = "End LSN",
        type_ = "string",
        json_path = ".status.lsn.end",
        description = "The point in time that it is"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "GTID",
        type_ = "string",
        json_path = ".status.gtidExecuted",
        priority = 1,
        description = "Every transaction that it holds"
    ),
    printcolumn(
        name = "Binlog",
        type_ = "string",
        json_path = ".status.binlog.file",
        priority = 1,
        description = "The binary log at its point in time"
    ),
    printcolumn(
        name = "Binlog Position",
        type_ = "integer",
        json_path = ".status.binlog.position",
        priority = 1,
        description = "The byte in that binary log"
    ),
    printcolumn(
        name = "Seconds",
        type_ = "integer",
        json_path = ".status.durationSeconds",
        priority = 1,
        description = "How long it took"
    ),
    printcolumn(
        name = "Storage",
        type_ = "string",
        json_path = ".status.storageName",
        priority = 1,
        description = "The BackupStorage that holds it"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "has(self.source) != has(self.existing)",
        "set exactly one of spec.source (take a backup) and spec.existing (show one that a storage already holds)",
    ),
    ("has(self.existing) || has(self.storageRef)", "set spec.storageRef: the BackupStorage that the backup goes to"),
    (
        "!has(self.existing) || !has(self.storageRef)",
        "leave out spec.storageRef: spec.existing has a storageRef of its own",
    ),
    ("self.type == 'Incremental' || !has(self.baseRef)", "leave out spec.baseRef, or set spec.type to Incremental"),
    ("self.type == 'Incremental' || !has(self.incremental)", "leave out spec.incremental, or set spec.type to Incremental"),
])))]
pub struct MySQLBackupSpec {
    /// Full holds every page; Incremental holds what changed since another backup.
    #[serde(default, rename = "type")]
    pub backup_type: BackupType,
    /// The MySQLBackup that an incremental one builds on. Unset: the newest of the same server that can be built on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ref: Option<ObjectRef>,
    /// How an incremental backup is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental: Option<IncrementalSpec>,
    /// The server to back up. Exactly one of source and existing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<BackupSource>,
    /// A backup that a storage already holds. Nothing runs for it. Exactly one of source and existing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingBackup>,
    /// The BackupStorage that the backup goes to. Required with source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<ObjectRef>,
    /// How stored bytes are compressed.
    #[serde(default)]
    pub compression: CompressionSpec,
    /// Keys that may open the backup. Unset: those of the BackupStorage; if it has none either, nothing is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// What the server's clients may have to wait for.
    #[serde(default)]
    pub lock: LockSpec,
    /// Whether the server is asked to keep its redo log until it is captured: Auto where server and privileges allow
    /// it, Always or the backup fails, Never.
    #[serde(default)]
    pub redo_consumer: RedoConsumer,
    /// Limits on reading the server's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleSpec>,
    /// Threads that copy. Unset: as many as the runner has cores, 8 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: Option<i32>,
    /// What becomes of the stored data when somebody deletes this object: Retain leaves it in the storage, Delete removes
    /// it. What expirationTime or a schedule's retention removes goes with its data in any case (a schedule may say
    /// otherwise), and the data of a pinned backup stays in any case. May be changed at any time.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Keeps the backup from retention and expiry, and its data in the storage even if this object is deleted. The
    /// storage knows it, too. May be changed at any time.
    #[serde(default)]
    pub pinned: bool,
    /// When the backup is removed by itself, object and stored data, whatever deletionPolicy says. A pinned backup stays,
    /// and so does one that an incremental backup or a restore needs; the condition Expired tells. The storage knows the
    /// time, too. An object that is created after it is never started. May be changed at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,
    /// Keeps the backup from starting, and from trying again; a running one runs on. May be changed at any time.
    #[serde(default)]
    pub suspend: bool,
    /// How long the backup may wait until its first runner runs, counted from the creation of this object. After that
    /// it fails. Unset: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// How long the backup may take from status.startTime on, all tries together. After that it is cancelled
    /// and fails. Unset: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,
    /// How many more times to try after a runner failed or died. Each try starts over. What another try cannot mend
    /// (a missing privilege, a wrong option) is not tried again.
    #[serde(default = "MySQLBackupSpec::default_backoff_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub backoff_limit: i32,
    /// The pod that does the work.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runner: RunnerSpec,
}

impl MySQLBackupSpec {
    const fn default_backoff_limit() -> i32 {
        3
    }

    /// The storage that holds the backup or will: `storageRef`, or the one that `existing` names.
    pub fn storage_name(&self) -> Option<&str> {
        let reference = self.storage_ref.as_ref().or(self.existing.as_ref().map(|existing| &existing.storage_ref));
        reference.map(|reference| reference.name.as_str())
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether a backup stands alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupType {
    /// Holds every page.
    #[default]
    Full,
    /// Holds what changed since its parent.
    Incremental,
}

/// How an incremental backup is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IncrementalSpec {
    /// What to do when there is nothing that can be built on: Full takes a full backup instead, Fail fails.
    #[serde(default)]
    pub fallback: IncrementalFallback,
}

/// What to do when there is nothing to build on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IncrementalFallback {
    /// Take a full backup instead.
    #[default]
    Full,
    /// Fail.
    Fail,
}

/// A backup that a storage already holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExistingBackup {
    /// The BackupStorage that holds it.
    pub storage_ref: ObjectRef,
    /// Its id, as stillframe list shows it: name, time and a random part.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$")
    )]
    pub backup_id: String,
}

/// How stored bytes are compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.algorithm == 'Zstd' || !has(self.level)", "leave out level: only Zstd has levels"),
])))]
pub struct CompressionSpec {
    /// Zstd is small and fast, LZ4 faster and larger, None stores the bytes as they are.
    #[serde(default)]
    pub algorithm: CompressionAlgorithm,
    /// For Zstd: 1 is fastest, 19 smallest. Unset: 1, which keeps up with a disk on few cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<i32>,
}

/// A way to compress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CompressionAlgorithm {
    /// Small and fast.
    #[default]
    Zstd,
    /// Faster and larger.
    LZ4,
    /// Not at all.
    None,
}

/// What the server's clients may have to wait for. InnoDB's reads and writes never wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockSpec {
    /// When the backup lock is taken, under which DDL waits: Full before the copy and until its end, Short after the
    /// copy, for a moment.
    #[serde(default)]
    pub policy: LockPolicy,
    /// How long to try for a lock. Each attempt is short, so that nobody queues behind it.
    #[serde(default = "LockSpec::default_timeout_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i64,
    /// How long DDL, or a replica's applier, may wait for the backup lock before the backup gives up. 0: as long as
    /// it takes.
    #[serde(default = "LockSpec::default_ddl_wait_budget_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub ddl_wait_budget_seconds: i64,
    /// What to do about tables without redo (MyISAM, CSV, ARCHIVE, MERGE): Include copies them under a short global
    /// read lock, Refuse fails if there are any, Skip leaves them out and says so.
    #[serde(default)]
    pub non_transactional: NonTransactional,
}

impl LockSpec {
    const fn default_timeout_seconds() -> i64 {
        60
    }

    const fn default_ddl_wait_budget_seconds() -> i64 {
        300
    }
}

impl Default for LockSpec {
    fn default() -> Self {
        Self {
            policy: LockPolicy::default(),
            timeout_seconds: Self::default_timeout_seconds(),
            ddl_wait_budget_seconds: Self::default_ddl_wait_budget_seconds(),
            non_transactional: NonTransactional::default(),
        }
    }
}

/// When the backup lock is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockPolicy {
    /// Before the copy.
    #[default]
    Full,
    /// After the copy.
    Short,
}

/// What to do about tables without redo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NonTransactional {
    /// Copy them under a short global read lock.
    #[default]
    Include,
    /// Fail if there are any.
    Refuse,
    /// Leave them out.
    Skip,
}

/// Whether the server is asked to keep its redo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedoConsumer {
    /// Where server and privileges allow it.
    #[default]
    Auto,
    /// Or fail. (Not "On": YAML readers take that for a boolean.)
    Always,
    /// Not at all.
    Never,
}

/// Limits on reading the server's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleSpec {
    /// Bytes a second that are read from the server's files at most. Redo is never throttled.
    #[schemars(range(min = 65_536))]
    pub max_bytes_per_second: i64,
}

/// What becomes of stored data when its object is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays in the storage.
    #[default]
    Retain,
    /// It is removed.
    Delete,
}
