//! How a `MySQLRestore` goes. One-shot restores end in `Succeeded`; a data source stays, with `Ready`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup_status::{Moment, SourceStatus};
use super::common::{BinlogPosition, LsnRange, Progress, capped_gtid_set};
use super::conditions::{self, Said, reasons, status, types};
use super::runner::RestoredData;
use super::schema;
use crate::util::units::format_bytes;

/// How a restore stands or how it ended. Written by the operator alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(oldSelf.conditions) || !oldSelf.conditions.exists(o, o.type == 'Succeeded' && o.status != 'Unknown') \
     || (has(self.conditions) && self.conditions.exists(c, c.type == 'Succeeded' \
     && oldSelf.conditions.exists(o, o.type == 'Succeeded' && o.status == c.status)))",
    "the restore has ended, and how it ended cannot be changed: create another one",
)])))]
pub struct MySQLRestoreStatus {
    /// The generation of the object that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Succeeded sums up a restore that runs once: Unknown until it ended. Ready sums up a data source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The id of the backup that is brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// The BackupStorage that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_name: Option<String>,
    /// The server that the backup was taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The redo that the backup carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<LsnRange>,
    /// The binary log at the backup's point in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binlog: Option<BinlogPosition>,
    /// Every transaction that the restored database holds: what to set gtid_purged to, or what to expect, when it
    /// becomes a replica. Cut at 64 KiB; the backup's manifest has the set whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gtid_executed: Option<String>,
    /// Bytes of the restored files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// sizeBytes for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// When the operator had found all that it needs and went on to make its first runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// How far all claims together are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The claims that are filled or were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Vec<ClaimStatus>,
    /// How many claims are filled, of all: 2/3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims_ready: Option<String>,
    /// What keeps the restored server by itself, and how to lift it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub isolation: Vec<String>,
    /// Accounts that got other passwords than they had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub accounts: Vec<String>,
    /// Settings, as name=value, that a server must be started with on the restored files; none if the defaults do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub required_settings: Vec<String>,
    /// What a person should know of the restored data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub warnings: Vec<String>,
}

/// One claim of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStatus {
    /// The claim.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Where it stands.
    pub state: ClaimState,
    /// The uid of a claim that named this object as its data source: another claim of that name is another one to fill.
    #[serde(rename = "claimUID", default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// The pod that fills it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// That pod's uid: a pod of the same name with another uid is another runner.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The volume that was filled, while it is handed over and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// The number of the try, from 1.
    #[serde(default)]
    pub attempt: i32,
    /// When the first try began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the next try begins, after one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Why it is not further, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub reason: Option<String>,
    /// Why it is not further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ClaimStatus {
    /// One for which nothing was done yet.
    pub fn new(name: impl Into<String>, claim_uid: Option<String>) -> Self {
        Self {
            name: name.into(),
            state: ClaimState::Pending,
            claim_uid,
            pod_name: None,
            pod_uid: None,
            volume_name: None,
            attempt: 0,
            start_time: None,
            next_attempt_time: None,
            reason: None,
            message: None,
        }
    }

    /// Moves it, with the reason in a word and a sentence.
    pub fn set(&mut self, state: ClaimState, reason: &str, message: &str) {
        self.state = state;
        self.reason = Some(reason.to_owned());
        self.message = Some(message.chars().take(MESSAGE_MAX).collect());
    }

    /// Moves it where there is nothing more to be said.
    pub fn set_plain(&mut self, state: ClaimState) {
        self.state = state;
        self.reason = None;
        self.message = None;
        self.next_attempt_time = None;
    }
}

/// Longest message about one claim: 256 of them must fit into one object.
const MESSAGE_MAX: usize = 1000;
/// Most claims that a status lists; of more, those that are filled are only counted.
const CLAIMS_MAX: usize = 256;

/// Where a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimState {
    /// Nothing done yet.
    Pending,
    /// Data flows into it, or into the staging claim that becomes it.
    Filling,
    /// Filled; its volume is being handed over.
    HandingOver,
    /// A server may start on it.
    Ready,
    /// It will not be filled.
    Failed,
}

/// What the stored manifest tells of the backup that is brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredBackup {
    /// The id.
    pub backup_id: String,
    /// The BackupStorage.
    pub storage_name: String,
    /// `server_uuid` of the old server.
    pub server_uuid: String,
    /// Its version.
    pub server_version: String,
    /// The redo range.
    pub lsn: LsnRange,
    /// The binary log at the cut.
    pub binlog: Option<BinlogPosition>,
    /// Every transaction in it, whole.
    pub gtid_executed: String,
}

/// Returned when a transition was asked of a restore that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the restore has already ended, and how it ended cannot be changed")]
pub struct AlreadyEnded;

impl MySQLRestoreStatus {
    /// True once a one-shot restore succeeded or failed for good.
    pub fn has_ended(&self) -> bool {
        self.has_succeeded() || conditions::is(&self.conditions, types::SUCCEEDED, status::FALSE)
    }

    /// True once a one-shot restore succeeded.
    pub fn has_succeeded(&self) -> bool {
        conditions::is(&self.conditions, types::SUCCEEDED, status::TRUE)
    }

    /// Nothing runs, and this is why.
    pub fn set_pending(&mut self, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reason, message, at)
    }

    /// The backup was found; runners fill the claims.
    pub fn set_started(&mut self, backup: RestoredBackup, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reasons::RUNNING, "claims are being filled", at)?;
        self.start_time.get_or_insert(Time(at.now));
        self.take_backup(backup);
        Ok(())
    }

    /// So far are the claims, and this is the one thing to say of them all.
    pub fn set_claims(
        &mut self,
        claims: Vec<ClaimStatus>,
        progress: Option<Progress>,
        (reason, message): (&str, &str),
        at: Moment,
    ) -> Result<(), AlreadyEnded> {
        self.say(status::UNKNOWN, reason, message, at)?;
        self.count(claims);
        self.progress = progress.map(Progress::summarised);
        Ok(())
    }

    /// Every claim is filled.
    pub fn set_succeeded(&mut self, claims: Vec<ClaimStatus>, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::TRUE, reasons::COMPLETED, "every claim is complete", at)?;
        self.count(claims);
        self.progress = None;
        self.end(at);
        Ok(())
    }

    /// What a runner found out about the data, which is the same in every claim.
    pub fn take_data(&mut self, data: &RestoredData) {
        self.isolation.clone_from(&data.isolation);
        self.accounts.clone_from(&data.accounts);
        self.required_settings.clone_from(&data.settings);
        self.warnings.clone_from(&data.warnings);
        self.isolation.truncate(16);
        self.accounts.truncate(64);
        self.required_settings.truncate(64);
        self.warnings.truncate(64);
        self.size_bytes = Some(i64::try_from(data.bytes).unwrap_or(i64::MAX));
        self.size = Some(format_bytes(data.bytes));
    }

    /// It will not succeed any more.
    pub fn set_failed(&mut self, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        self.say(status::FALSE, reason, message, at)?;
        self.progress = None;
        self.end(at);
        Ok(())
    }

    /// A data source: whether it serves claims, and those that it knows.
    pub fn set_serving(
        &mut self,
        ready: Result<(), (&str, &str)>,
        claims: Vec<ClaimStatus>,
        progress: Option<Progress>,
        at: Moment,
    ) {
        match ready {
            Ok(()) => {
                let message = "claims that name this object as their data source are filled";
                self.say_type(types::READY, status::TRUE, reasons::SERVING, message, at);
            }
            Err((reason, message)) => self.say_type(types::READY, status::FALSE, reason, message, at),
        }
        self.count(claims);
        self.progress = progress.map(Progress::summarised);
    }

    /// What the stored manifest tells.
    pub fn take_backup(&mut self, backup: RestoredBackup) {
        let RestoredBackup { backup_id, storage_name, server_uuid, server_version, lsn, binlog, gtid_executed } =
            backup;
        self.backup_id = Some(backup_id);
        self.storage_name = Some(storage_name);
        let source = self.source.get_or_insert_default();
        source.server_uuid = Some(server_uuid);
        source.server_version = Some(server_version);
        self.lsn = Some(lsn);
        self.binlog = binlog;
        self.gtid_executed = Some(capped_gtid_set(&gtid_executed)).filter(|set| !set.is_empty());
    }

    fn count(&mut self, mut claims: Vec<ClaimStatus>) {
        let ready = claims.iter().filter(|claim| claim.state == ClaimState::Ready).count();
        self.claims_ready = Some(format!("{ready}/{}", claims.len()));
        if claims.len() > CLAIMS_MAX {
            claims.sort_by_key(|claim| claim.state == ClaimState::Ready);
            claims.truncate(CLAIMS_MAX);
        }
        self.claims = claims;
    }

    fn end(&mut self, at: Moment) {
        self.completion_time = Some(Time(at.now));
        self.duration_seconds = self.start_time.as_ref().map(|start| at.now.duration_since(start.0).as_secs().max(0));
    }

    fn say(&mut self, status: &'static str, reason: &str, message: &str, at: Moment) -> Result<(), AlreadyEnded> {
        if self.has_ended() {
            return Err(AlreadyEnded);
        }
        self.say_type(types::SUCCEEDED, status, reason, message, at);
        Ok(())
    }

    fn say_type(&mut self, type_: &str, status: &'static str, reason: &str, message: &str, at: Moment) {
        let said = Said { status, reason, message };
        conditions::set(&mut self.conditions, type_, &said, at.generation, at.now);
        self.observed_generation = Some(at.generation);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Moment {
        Moment { generation: 1, now: Timestamp::from_second(second).unwrap() }
    }

    fn backup() -> RestoredBackup {
        RestoredBackup {
            backup_id: "b-20260314T150926Z-1a2b3c4d".into(),
            storage_name: "bucket".into(),
            server_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".into(),
            server_version: "9.7.4".into(),
            lsn: LsnRange { checkpoint: "1".into(), end: "2".into() },
            binlog: None,
            gtid_executed: String::new(),
        }
    }

    fn claim(name: &str, state: ClaimState) -> ClaimStatus {
        ClaimStatus { state, attempt: 1, ..ClaimStatus::new(name, None) }
    }

    #[test]
    fn a_restore_fills_its_claims_and_ends() {
        let mut status = MySQLRestoreStatus::default();
        status.set_pending(reasons::PENDING, "seen", at(1)).unwrap();
        status.set_started(backup(), at(10)).unwrap();
        let half = vec![claim("a", ClaimState::Ready), claim("b", ClaimState::Filling)];
        status.set_claims(half, None, (reasons::RUNNING, "m"), at(20)).unwrap();
        assert_eq!(status.claims_ready.as_deref(), Some("1/2"));
        let all = vec![claim("a", ClaimState::Ready), claim("b", ClaimState::Ready)];
        status.take_data(&RestoredData { bytes: 1 << 20, ..RestoredData::default() });
        status.set_succeeded(all, at(70)).unwrap();
        assert_eq!((status.size_bytes, status.size.as_deref()), (Some(1 << 20), Some("1.0 MiB")));
        assert_eq!(status.duration_seconds, Some(60));
        assert_eq!(status.gtid_executed, None, "an empty set is not shown");

        let ended = status.clone();
        assert_eq!(status.set_failed("Failed", "late", at(80)), Err(AlreadyEnded));
        assert_eq!(status.set_pending("Pending", "late", at(80)), Err(AlreadyEnded));
        assert_eq!(status.set_started(backup(), at(80)), Err(AlreadyEnded));
        assert_eq!(status.set_claims(vec![], None, ("R", "m"), at(80)), Err(AlreadyEnded));
        assert_eq!(status.set_succeeded(vec![], at(80)), Err(AlreadyEnded));
        assert_eq!(status, ended);
    }

    #[test]
    fn a_data_source_never_ends() {
        let mut status = MySQLRestoreStatus::default();
        status.set_serving(Err((reasons::WAITING_FOR_REFERENCE, "no such backup")), vec![], None, at(1));
        assert!(conditions::is(&status.conditions, types::READY, status::FALSE));
        status.set_serving(Ok(()), vec![claim("a", ClaimState::Ready)], None, at(2));
        assert!(conditions::is(&status.conditions, types::READY, status::TRUE));
        assert!(!status.has_ended());
        assert_eq!(status.claims_ready.as_deref(), Some("1/1"));
    }

    #[test]
    fn a_status_lists_what_is_not_filled_first() {
        let mut status = MySQLRestoreStatus::default();
        let mut claims: Vec<_> = (0..300).map(|number| claim(&format!("c{number}"), ClaimState::Ready)).collect();
        claims.push(claim("late", ClaimState::Pending));
        status.set_serving(Ok(()), claims, None, at(1));
        assert_eq!(status.claims.len(), 256);
        assert_eq!(status.claims[0].name, "late");
        assert_eq!(status.claims_ready.as_deref(), Some("300/301"));
    }
}
