//! What the verbs give back. These are the JSON documents of `-o json`: names are a contract with scripts, the same
//! in manifest and status. LSNs are strings, since a JSON number above 2^53 is not safe; durations carry their unit.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::innodb::lsn::Lsn;
use crate::ops::options::Recovery;

/// Whether a backup stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum BackupType {
    /// Holds every page.
    Full,
    /// Holds what changed since its parent.
    Incremental,
}

impl std::fmt::Display for BackupType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Full => "Full",
            Self::Incremental => "Incremental",
        })
    }
}

/// The redo that a backup carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LsnRange {
    /// Where recovery starts.
    pub checkpoint: Lsn,
    /// The point in time that the backup is.
    pub end: Lsn,
}

/// A place in the binary log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BinlogPosition {
    /// The file's name, without directory.
    pub file: String,
    /// The byte in it.
    pub position: u64,
}

/// The server that was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerIdentity {
    /// As the server says it: `9.7.4-2`.
    pub version: String,
    /// `server_uuid`.
    pub uuid: String,
    /// No recorded test run covers this version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untested: bool,
}

/// What went in and what it takes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupBytes {
    /// Read from the server's files, redo included.
    pub read: u64,
    /// Written to the store.
    pub stored: u64,
}

/// The pages of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageCounts {
    /// Copied, each with a good checksum.
    pub copied: u64,
    /// All zero, so only counted.
    pub zero: u64,
    /// Read more than once, because the server was just writing them.
    pub reread: u64,
}

/// What `backup` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// The name given; several backups may share it.
    pub name: String,
    /// The id, unique forever.
    pub id: String,
    /// Full or incremental.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The id that an incremental builds on.
    pub parent: Option<String>,
    /// The redo range.
    pub lsn: LsnRange,
    /// The binary log at the cut, where the server writes one.
    pub binlog: Option<BinlogPosition>,
    /// Every transaction that the backup holds.
    pub gtid_executed: String,
    /// Where it came from.
    pub server: ServerIdentity,
    /// Sizes.
    pub bytes: BackupBytes,
    /// Pages.
    pub pages: PageCounts,
    /// From the first connection to the commit.
    pub duration_seconds: u64,
    /// How long the backup lock was held: DDL waits meanwhile, DML does not.
    pub lock_held_milliseconds: u64,
    /// How long the global read lock was held; 0 without tables of other engines.
    pub global_read_lock_milliseconds: u64,
    /// How long DDL was in fact seen waiting.
    pub ddl_wait_milliseconds: u64,
    /// When it began.
    pub start_time: Timestamp,
    /// When the manifest was committed.
    pub completion_time: Timestamp,
    /// Where it is, without secrets.
    pub destination: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// How the restored files become a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RecoveryState {
    /// A server was run here and shut down cleanly: the directory is ready, and what was open is rolled back. Who applied
    /// the redo before says `mode`.
    Recovered,
    /// Stillframe applied the redo: a server starts as after a clean shutdown.
    Applied,
    /// The captured redo lies beside the pages; the first server that starts recovers from it.
    AtFirstStart,
}

/// What `restore` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The backup's name.
    pub name: String,
    /// The backup's id.
    pub id: String,
    /// Where the database is now.
    pub datadir: PathBuf,
    /// Whether it was recovered here.
    pub recovery: RecoveryState,
    /// Who applied the redo, or will.
    #[serde(serialize_with = "as_text")]
    pub mode: Recovery,
    /// What was applied here; nothing where that is the server's to do.
    pub applied: Option<AppliedRedo>,
    /// The redo range of the backup.
    pub lsn: LsnRange,
    /// The binary log at the cut.
    pub binlog: Option<BinlogPosition>,
    /// Every transaction that the database holds.
    pub gtid_executed: String,
    /// Where the backup came from.
    pub server: ServerIdentity,
    /// Sizes.
    pub bytes: RestoreBytes,
    /// Files written, tablespaces included.
    pub files: u64,
    /// From the first request to the last sync.
    pub duration_seconds: u64,
    /// What the check of the tablespaces' structure found, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructureReport>,
    /// Settings that a server needs to open the directory, as `name=value`; none if the defaults do.
    pub settings: Vec<String>,
    /// What keeps the new server by itself, and how to lift it.
    pub isolation: Vec<String>,
    /// Accounts that got other passwords than they had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What the check of restored tablespaces' structure found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StructureReport {
    /// Tablespaces checked.
    pub tablespaces: u64,
    /// Their pages.
    pub pages: u64,
    /// Of them, pages of indexes.
    pub index_pages: u64,
    /// Of them, those whose rows' layout and order are known from the dictionary.
    pub ordered_pages: u64,
    /// What is wrong. Cut off after a bounded number; `problem_count` counts all.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problem_count: u64,
}

/// What native recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRedo {
    /// Records that were applied.
    pub records: u64,
    /// Records that their page had already.
    pub skipped: u64,
    /// Pages that were changed.
    pub pages: u64,
    /// Pages among them that the copy did not have, or only as zeros.
    pub created: u64,
    /// Tables whose `AUTO_INCREMENT` or corrupt indexes were only known from the redo.
    pub tables: u64,
    /// Bytes of redo that did not fit into the memory given.
    pub spilled_bytes: u64,
}

impl std::fmt::Display for AppliedRedo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { records, skipped, pages, created, .. } = self;
        write!(f, "{records} records to {pages} pages, {created} of them new; {skipped} were there already")
    }
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What a restore moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreBytes {
    /// Read from the store.
    pub fetched: u64,
    /// Written to the target, holes not counted.
    pub written: u64,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The backup's name.
    pub name: String,
    /// The backup's id.
    pub id: String,
    /// True when nothing is wrong with it.
    pub good: bool,
    /// Objects read.
    pub objects: u64,
    /// Bytes read from the store.
    pub bytes: u64,
    /// Pages by what was found.
    pub pages: VerifiedPages,
    /// Redo segments whose block chain was followed.
    pub redo_segments: u64,
    /// What the check of the recovered tablespaces' structure found, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructureReport>,
    /// The redo range of the backup.
    pub lsn: LsnRange,
    /// How long it took.
    pub duration_seconds: u64,
    /// What is wrong. Cut off after a bounded number; `problem_count` counts all.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problem_count: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Pages that `verify` looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedPages {
    /// Their checksum is right.
    pub checked: u64,
    /// All zero.
    pub zero: u64,
    /// Encrypted by the server and copied as they were: no key to look inside.
    pub unverified: u64,
}

/// One thing that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The stored object.
    pub object: String,
    /// What is wrong with it: where, what was expected, what was found.
    pub what: String,
}

/// Whether a stored backup can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum BackupState {
    /// Complete: it has a manifest.
    Complete,
    /// A run that still renews its lease.
    Running,
    /// A run that died; `prune --stale` removes its remains.
    Stale,
    /// Deleted, or about to be; remains may be held by the store.
    Deleted,
    /// It has a manifest that cannot be read.
    Damaged,
}

impl std::fmt::Display for BackupState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Complete => "Complete",
            Self::Running => "Running",
            Self::Stale => "Stale",
            Self::Deleted => "Deleted",
            Self::Damaged => "Damaged",
        })
    }
}

/// One line of `list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListEntry {
    /// The name.
    pub name: String,
    /// The id.
    pub id: String,
    /// Usable or not.
    pub state: BackupState,
    /// When it began.
    pub start_time: Timestamp,
    /// It must not be deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Until when it is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Timestamp>,
    /// What is known from the manifest; absent for what has none.
    #[serde(flatten)]
    pub contents: Option<ListContents>,
    /// Why the manifest could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The part of a [`ListEntry`] that a manifest tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListContents {
    /// Full or incremental.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The id that an incremental builds on.
    pub parent: Option<String>,
    /// When it was committed.
    pub completion_time: Timestamp,
    /// The redo range.
    pub lsn: LsnRange,
    /// Sizes.
    pub bytes: BackupBytes,
    /// Where it came from.
    pub server: ServerIdentity,
    /// It can be opened only with a key.
    pub encrypted: bool,
}

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Removal {
    /// Nothing of it is left.
    Removed,
    /// It can no longer be restored, but the store keeps (some of) its objects.
    Retained,
    /// A dry run: it would be removed.
    WouldRemove,
}

/// What `delete` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteReport {
    /// The backup's id.
    pub id: String,
    /// How it ended.
    pub result: Removal,
}

/// What `pin` or `unpin` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinReport {
    /// The backup's id.
    pub id: String,
    /// Whether it is pinned now.
    pub pinned: bool,
    /// Whether that is new.
    pub changed: bool,
}

/// What `prune` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Only planned, nothing done.
    pub dry_run: bool,
    /// Backups that stay, and why.
    pub kept: Vec<PruneLine>,
    /// Backups that went, and why.
    pub removed: Vec<PruneLine>,
    /// Remains of runs that died.
    pub stale: Vec<PruneLine>,
    /// What could not be removed, and why; the rest was done nevertheless.
    pub failed: Vec<PruneLine>,
}

/// One backup in a [`PruneReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneLine {
    /// The backup's id.
    pub id: String,
    /// How its removal ended; absent for what stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Removal>,
    /// Why it stays, goes or could not go.
    pub reason: String,
}

#[cfg(test)]
pub(crate) mod samples {
    //! Filled reports for tests here and in the front end.
    use super::*;

    pub(crate) fn backup() -> BackupReport {
        BackupReport {
            name: "nightly".into(),
            id: "nightly-20260314T150926Z-1a2b3c4d".into(),
            backup_type: BackupType::Full,
            parent: None,
            lsn: LsnRange { checkpoint: Lsn::new(178_959_386), end: Lsn::new(u64::MAX) },
            binlog: Some(BinlogPosition { file: "binlog.000008".into(), position: 158 }),
            gtid_executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23".into(),
            server: ServerIdentity {
                version: "9.7.4".into(),
                uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".into(),
                untested: false,
            },
            bytes: BackupBytes { read: 3 << 30, stored: 1 << 30 },
            pages: PageCounts { copied: 190_000, zero: 6_608, reread: 2 },
            duration_seconds: 21,
            lock_held_milliseconds: 20_340,
            global_read_lock_milliseconds: 212,
            ddl_wait_milliseconds: 0,
            start_time: Timestamp::from_second(1_773_500_966).unwrap(),
            completion_time: Timestamp::from_second(1_773_500_987).unwrap(),
            destination: "file:///backups".into(),
            warnings: vec!["3 tables of MyISAM were copied under a global read lock".into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_backup_report_has_the_names_that_scripts_use() {
        let json = serde_json::to_value(samples::backup()).unwrap();
        for path in [
            "/name",
            "/id",
            "/type",
            "/parent",
            "/lsn/checkpoint",
            "/lsn/end",
            "/binlog/file",
            "/binlog/position",
            "/gtidExecuted",
            "/server/version",
            "/server/uuid",
            "/bytes/read",
            "/bytes/stored",
            "/pages/copied",
            "/pages/zero",
            "/pages/reread",
            "/durationSeconds",
            "/lockHeldMilliseconds",
            "/ddlWaitMilliseconds",
        ] {
            assert!(json.pointer(path).is_some(), "{path} is missing");
        }
        assert_eq!(json["lsn"]["end"], Value::String(u64::MAX.to_string()), "LSNs are strings");
        assert_eq!(json["type"], "Full");
        assert_eq!(json["parent"], Value::Null, "a script may ask for it always");
    }

    #[test]
    fn a_list_entry_without_manifest_has_no_contents() {
        let entry = ListEntry {
            name: "a".into(),
            id: "a-20260314T150926Z-1a2b3c4d".into(),
            state: BackupState::Running,
            start_time: Timestamp::UNIX_EPOCH,
            pinned: false,
            expiration_time: None,
            contents: None,
            problem: None,
        };
        let json = serde_json::to_value(entry).unwrap();
        assert_eq!(json["state"], "Running");
        assert!(json.get("lsn").is_none());
        assert!(json.get("pinned").is_none());
    }
}
