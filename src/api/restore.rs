//! `MySQLRestore`: a backup brought back into claims, once, or a data source that fills claims as they come.
//!
//! ```text
//!   source  backupRef | storage {storageRef, backupId}
//!   target  existingClaim                    one claim that is there, empty            ┐
//!           newClaim                         one claim, made here                      │ ends: Succeeded
//!           newCluster                       the claims of a StatefulSet to come       ┘
//!           dataSource                       every claim whose dataSourceRef names this  stays: Ready
//! ```

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::is_default;
use super::common::{EncryptionSpec, ObjectRef, RunnerSpec, SecretKeyRef};
use super::restore_status::MySQLRestoreStatus;
use super::schema;
use super::source::KeyringSpec;

/// The fields of `spec` that may change after creation.
pub(super) const MUTABLE: &[&str] = &["suspend"];

/// Brings a backup back: once, into claims that it fills; or again and again, for every claim that names it as its
/// data source. A restored server has a new identity and starts by itself: it neither replicates nor runs events until
/// told. Applying the same object again never repeats a restore.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "stillframe.dev",
    version = "v1alpha1",
    kind = "MySQLRestore",
    namespaced,
    status = "MySQLRestoreStatus",
    shortname = "sfr",
    category = "stillframe",
    derive = "PartialEq",
    doc = "Brings a backup back: once, into claims that it fills; or again and again, for every claim that names it as \
           its data source. Applying the same object again never repeats a restore.",
    printcolumn(
        name = "Backup",
        type_ = "string",
        json_path = ".status.backupId",
        description = "The backup that is brought back"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#,
        description = "How it stands or how it ended; empty for a data source"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether a data source serves claims; empty for others"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress.summary",
        description = "How far it is"
    ),
    printcolumn(
        name = "Claims",
        type_ = "string",
        json_path = ".status.claimsReady",
        description = "Claims that are filled, of all"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.size",
        priority = 1,
        description = "Size of the data restored"
    ),
    printcolumn(
        name = "End LSN",
        type_ = "string",
        json_path = ".status.lsn.end",
        priority = 1,
        description = "The point in time that it is"
    ),
    printcolumn(
        name = "GTID",
        type_ = "string",
        json_path = ".status.gtidExecuted",
        priority = 1,
        description = "Every transaction that it holds"
    ),
    printcolumn(
        name = "Seconds",
        type_ = "integer",
        json_path = ".status.durationSeconds",
        priority = 1,
        description = "How long it took"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(self.accounts) || size(self.accounts) == 0 || !has(self.recovery) || self.recovery == 'Native'",
    "spec.accounts: passwords are set in files that are recovered, which recovery Server leaves to the first server",
), (
    "!has(self.accounts) || self.accounts.all(one, self.accounts.exists_one(other, other.user == one.user && \
     has(other.host) == has(one.host) && (!has(one.host) || other.host == one.host)))",
    "spec.accounts: the same account twice",
)])))]
pub struct MySQLRestoreSpec {
    /// The backup to bring back.
    pub source: RestoreSource,
    /// Where it goes.
    pub target: RestoreTarget,
    /// Keys, one of which opens the backup. Unset: those of its MySQLBackup or BackupStorage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// The keyring file of the server that was backed up, if that server used data-at-rest encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyring: Option<KeyringSpec>,
    /// Who applies the redo that the backup carries: Server the MySQL server when it first starts on the volume,
    /// Native the restore itself. Unset: what this version of Stillframe does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Isolate starts the restored server with replication and the event scheduler off, so that it cannot disturb the
    /// one it came from. Keep lets it go on as the old one did.
    #[serde(default)]
    pub replication: ReplicationPolicy,
    /// Accounts that get other passwords than they had when the backup was taken, such as those that the new cluster's
    /// own Secrets have. Only accounts that the backup has, with caching_sha2_password or mysql_native_password; where one
    /// is missing, the restore fails before it has written anything. Not with recovery Server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub accounts: Vec<AccountPassword>,
    /// Threads that write. Unset: as many as the runner has cores, 8 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: Option<i32>,
    /// Keeps the restore from starting, and from trying again; a running one runs on. May be changed at any time.
    #[serde(default)]
    pub suspend: bool,
    /// How long the restore may take from status.startTime on, all tries together. After that it is
    /// cancelled and fails. Unset: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,
    /// How many more times to try, for each claim, after a runner failed or died. Each try starts over.
    #[serde(default = "MySQLRestoreSpec::default_backoff_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub backoff_limit: i32,
    /// The pods that do the work, one for each claim.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runner: RunnerSpec,
}

impl MySQLRestoreSpec {
    const fn default_backoff_limit() -> i32 {
        3
    }
}

/// A new password for an account of the restored database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountPassword {
    /// The user's name.
    #[schemars(length(min = 1, max = 32))]
    pub user: String,
    /// The host of the account, as in 'user'@'host'. Unset: all accounts of that name that no other entry names with their
    /// hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub host: Option<String>,
    /// The password. A line end at its end is not part of it.
    pub password_ref: SecretKeyRef,
}

/// The backup to bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "has(self.backupRef) != has(self.storage)",
    "set exactly one of spec.source.backupRef (a MySQLBackup) and spec.source.storage (a storage and the id of a backup in it)",
)])))]
pub struct RestoreSource {
    /// A MySQLBackup of the same namespace. The restore waits until it is complete. Exactly one of backupRef and
    /// storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<ObjectRef>,
    /// A backup that a storage holds, whoever took it. Exactly one of backupRef and storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<super::backup::ExistingBackup>,
}

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "[has(self.existingClaim), has(self.newClaim), has(self.newCluster), has(self.dataSource)].filter(x, x).size() == 1",
    "set exactly one of spec.target.existingClaim, newClaim, newCluster and dataSource",
)])))]
pub struct RestoreTarget {
    /// A PersistentVolumeClaim that is there and empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_claim: Option<ExistingClaim>,
    /// One PersistentVolumeClaim that the restore makes. It appears only once it is complete, so that no server can
    /// start on half of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_claim: Option<NewClaim>,
    /// The claims of a StatefulSet that is not there yet, all filled from the one backup at the same time. Each
    /// appears only once it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_cluster: Option<NewCluster>,
    /// Fills every PersistentVolumeClaim of the namespace whose spec.dataSourceRef names this MySQLRestore, those of
    /// members added later included. Such a restore never ends, and protects its backup from retention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_source: Option<DataSource>,
    /// The directory in the volume that becomes the data directory, without a leading slash; as the subPath with which
    /// the MySQL container mounts the volume. Unset: the volume's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[a-zA-Z0-9_-][a-zA-Z0-9._-]*(/[a-zA-Z0-9_-][a-zA-Z0-9._-]*)*$")
    )]
    pub sub_path: Option<String>,
    /// The uid that the restored files belong to: the one that mysqld runs as.
    #[serde(default = "RestoreTarget::default_run_as")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: i64,
    /// The gid that the restored files belong to.
    #[serde(default = "RestoreTarget::default_run_as")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: i64,
}

impl RestoreTarget {
    /// The uid and gid of the official MySQL images.
    const fn default_run_as() -> i64 {
        999
    }
}

/// A claim that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExistingClaim {
    /// The claim, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Replaces a database that the claim holds, as long as no pod uses it. Without it the claim must be empty.
    #[serde(default)]
    pub overwrite: bool,
}

/// One claim to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewClaim {
    /// The name of the claim. None of that name may exist.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// What the claim asks for.
    pub template: ClaimTemplate,
}

/// The claims of a StatefulSet to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewCluster {
    /// The name that the StatefulSet will have. None of that name may exist.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub stateful_set_name: String,
    /// The name of the StatefulSet's volumeClaimTemplate.
    #[serde(default = "NewCluster::default_claim_name")]
    #[schemars(length(min = 1, max = 50), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_name: String,
    /// How many members the cluster starts with.
    #[serde(default = "NewCluster::default_replicas")]
    #[schemars(range(min = 1, max = 32))]
    pub replicas: i32,
    /// What the claims ask for; as in the StatefulSet's volumeClaimTemplate.
    pub template: ClaimTemplate,
}

impl NewCluster {
    fn default_claim_name() -> String {
        "data".to_owned()
    }

    const fn default_replicas() -> i32 {
        3
    }

    /// The claims' names, as the StatefulSet controller forms them.
    pub fn claim_names(&self) -> Vec<String> {
        (0..self.replicas).map(|ordinal| format!("{}-{}-{ordinal}", self.claim_name, self.stateful_set_name)).collect()
    }
}

/// Claims are served as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataSource {}

/// What a new claim asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTemplate {
    /// The claims' labels. Those that a GitOps tool tracks its objects by do not belong here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::label_map")]
    pub labels: BTreeMap<String, String>,
    /// The StorageClass. Unset: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub storage_class_name: Option<String>,
    /// How the volume may be mounted.
    #[serde(default = "ClaimTemplate::default_access_modes")]
    #[schemars(length(min = 1, max = 4))]
    pub access_modes: Vec<ClaimAccessMode>,
    /// The size. A backup that does not fit is refused before anything is written.
    #[schemars(schema_with = "schema::quantity")]
    pub storage: Quantity,
}

impl ClaimTemplate {
    fn default_access_modes() -> Vec<ClaimAccessMode> {
        vec![ClaimAccessMode::ReadWriteOnce]
    }
}

/// How a volume may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimAccessMode {
    /// By pods of one node.
    ReadWriteOnce,
    /// By one pod.
    ReadWriteOncePod,
    /// By pods of many nodes.
    ReadWriteMany,
}

/// Who applies the captured redo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Recovery {
    /// The server, at its first start.
    Server,
    /// The restore.
    Native,
}

/// Whether the restored server may disturb the one it came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicationPolicy {
    /// It starts by itself.
    #[default]
    Isolate,
    /// It goes on as the old one did.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_as_a_stateful_set_names_them() {
        let cluster: NewCluster = serde_json::from_value(serde_json::json!({
            "statefulSetName": "shop", "template": {"storage": "10Gi"},
        }))
        .unwrap();
        assert_eq!(cluster.claim_names(), ["data-shop-0", "data-shop-1", "data-shop-2"]);
        assert_eq!(cluster.template.access_modes, [ClaimAccessMode::ReadWriteOnce]);
    }
}
