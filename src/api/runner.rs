//! What the operator tells a runner, and what the runner tells back. Not part of the users' API.
//!
//! ```text
//!   operator ── RunnerRequest, JSON in an environment variable of the pod ──► runner
//!   operator ◄── RunnerReport, JSON in the one ConfigMap the runner may write ── runner
//!   operator ◄── the same as ReportLine in its log, the last one as termination message ── runner inside of a database's pod
//! ```
//!
//! A request carries no secret: it names files into which Secrets are mounted, and the store's credentials are
//! environment variables of the pod. A report is a claim: what counts is what the storage holds.

use serde::{Deserialize, Serialize};

use super::backup::{CompressionSpec, LockSpec, RedoConsumer};
use super::common::Progress;
use super::restore::Recovery;
use super::source::{EncryptedPages, TlsMode};

/// The variable that carries the request.
pub const REQUEST_VARIABLE: &str = "STILLFRAME_RUNNER_REQUEST";
/// The variable that tells a runner the uid of its own pod.
pub const POD_UID_VARIABLE: &str = "STILLFRAME_POD_UID";
/// The version of both documents. A runner of another version than the operator's refuses.
pub const VERSION: u32 = 1;

/// What a runner is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunnerRequest {
    /// [`VERSION`].
    pub version: u32,
    /// The object whose work it is, as logs name it.
    pub object: String,
    /// The namespace of the report's ConfigMap.
    pub namespace: String,
    /// The name of the report's ConfigMap.
    pub report: String,
    /// The key of the report in it: each runner has one of its own, so that a late report is not taken for another's.
    pub key: String,
    /// How the report gets to the operator.
    #[serde(default)]
    pub report_by: ReportBy,
    /// Files that are made of variables before the work begins, where Secrets cannot be mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileOfVariable>,
    /// The work.
    pub work: Work,
}

/// How a report gets to the operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReportBy {
    /// Written into the ConfigMap.
    #[default]
    ConfigMap,
    /// Printed, and the last one left for the kubelet as well: for a runner that has no authority of its own.
    Output,
}

/// A file that is made of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOfVariable {
    /// The variable.
    pub variable: String,
    /// The file.
    pub path: String,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Work {
    /// Ask servers who they are.
    Survey(Survey),
    /// Look who owns a data directory.
    Look {
        /// The directory.
        data_dir: String,
    },
    /// Take a backup.
    Backup(Box<BackupWork>),
    /// Bring one back.
    Restore(Box<RestoreWork>),
    /// Answer a question about a storage that only a pod can reach.
    Ask {
        /// The storage's URL; credentials are in the environment.
        store: String,
        /// The question: a document of the store's.
        question: serde_json::Value,
    },
}

/// Servers to be asked who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// The servers, by the names of their pods.
    pub servers: Vec<Server>,
    /// How to log in.
    pub login: Login,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its pod.
    pub pod: String,
    /// The pod's address.
    pub host: String,
    /// The server's port.
    pub port: u16,
}

/// How to log in: files, since all of it comes from Secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// Holds the user's name.
    pub user_file: String,
    /// Holds the password.
    pub password_file: String,
    /// How much is asked of the server's certificate.
    pub tls_mode: TlsMode,
    /// The authority's certificate.
    pub ca_file: Option<String>,
    /// The client's certificate.
    pub certificate_file: Option<String>,
    /// The client certificate's key.
    pub key_file: Option<String>,
    /// The name that the server's certificate must carry.
    pub server_name: Option<String>,
}

/// A backup to take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupWork {
    /// The id. All tries of one object have the same, so that one at most can commit.
    pub backup_id: String,
    /// What had it made.
    pub origin: Origin,
    /// The storage's URL; credentials are in the environment.
    pub store: String,
    /// The server.
    pub server: Server,
    /// How to log in.
    pub login: Login,
    /// Where the data directory is mounted.
    pub data_dir: String,
    /// The server's keyring.
    pub keyring_file: Option<String>,
    /// Files with the keys that may open the backup.
    pub encryption_key_files: Vec<String>,
    /// What to do without the key to an encrypted page.
    pub encrypted_pages: EncryptedPages,
    /// How stored bytes are compressed.
    pub compression: CompressionSpec,
    /// What clients may have to wait for.
    pub lock: LockSpec,
    /// Whether the server is asked to keep its redo.
    pub redo_consumer: RedoConsumer,
    /// Bytes a second at most.
    pub throttle: Option<u64>,
    /// Threads that copy.
    pub parallelism: Option<u32>,
    /// The spool.
    pub spool_dir: String,
    /// How much may wait there.
    pub spool_bytes: u64,
    /// Goes on with an untested version.
    pub allow_untested_server: bool,
}

/// A backup to bring back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreWork {
    /// The backup's id.
    pub backup_id: String,
    /// The storage's URL; credentials are in the environment.
    pub store: String,
    /// The directory that becomes the data directory.
    pub data_dir: String,
    /// Files with keys, one of which opens the backup.
    pub encryption_key_files: Vec<String>,
    /// The keyring that the restored server will use.
    pub keyring_file: Option<String>,
    /// Who applies the redo; unset: as the engine does it by itself.
    pub recovery: Option<Recovery>,
    /// Lets the restored server go on replicating.
    pub keep_replication: bool,
    /// Accounts that get other passwords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountFile>,
    /// Clears what an interrupted restore left: of this restore's own former try, in a volume that is its own.
    pub overwrite_incomplete: bool,
    /// Replaces a database that is there.
    pub overwrite: bool,
    /// Whose restore it is: the volume keeps it, so that another try knows a complete restore that nobody was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Threads that write.
    pub parallelism: Option<u32>,
}

/// An account and its new password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountFile {
    /// The user's name.
    pub user: String,
    /// The host; all accounts of that name that no other entry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The file with the password.
    pub password_file: String,
}

/// What had a backup made: goes into its manifest, so that a bucket tells it without a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The cluster's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The namespace of the object.
    pub namespace: String,
    /// The schedule that created it.
    pub schedule: Option<String>,
    /// The object's uid.
    pub uid: String,
}

/// What a runner says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerReport {
    /// How it stands.
    pub state: RunnerState,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A report as a line of the runner's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportLine {
    /// The report.
    pub stillframe_report: RunnerReport,
}

/// How a runner stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RunnerState {
    /// At work.
    Running,
    /// A backup was committed.
    BackedUp {
        /// Its id.
        backup_id: String,
        /// What a person should know.
        warnings: Vec<String>,
    },
    /// A backup was brought back: the directory is complete and durable.
    Restored(RestoredData),
    /// The servers answered, or did not.
    Surveyed {
        /// One for each server asked.
        answers: Vec<Answer>,
    },
    /// The owner of the data directory.
    Looked {
        /// Its uid.
        uid: u32,
        /// Its gid.
        gid: u32,
    },
    /// The answer to a question about a storage: a document of the store's, packed.
    Answered {
        /// The document.
        packed: String,
    },
    /// It did not work.
    Failed {
        /// The reason: of the engine's `ErrorKind`.
        reason: String,
        /// What failed, and what to do.
        message: String,
        /// Another try may work.
        retryable: bool,
    },
}

/// What a runner brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoredData {
    /// The backup.
    pub backup_id: String,
    /// The uid of the runner's pod: a report of another pod is no report of this try's.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Bytes of the files.
    pub bytes: u64,
    /// Settings that a server needs to open the directory, as name=value.
    pub settings: Vec<String>,
    /// What keeps the new server by itself, and how to lift it.
    pub isolation: Vec<String>,
    /// Accounts that got other passwords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What a server said, or why it did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The server's pod.
    pub pod: String,
    /// It takes writes; `None`: it did not answer.
    pub primary: Option<bool>,
    /// Why it did not answer or should not be chosen.
    pub unfit: Option<String>,
}
