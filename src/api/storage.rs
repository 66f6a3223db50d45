//! `BackupStorage`: where backups live. A bucket, or a volume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{EncryptionSpec, SecretKeyRef};
use super::conditions::{self, Said, status, types};
use super::{backup_status::Moment, schema};

/// Where backups live: a bucket of S3, Google Cloud or Azure, or a volume. It is probed when it changes and from time
/// to time; Ready says whether backups can go there, and if not, why.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "stillframe.dev",
    version = "v1alpha1",
    kind = "BackupStorage",
    plural = "backupstorages",
    namespaced,
    status = "BackupStorageStatus",
    shortname = "sfs",
    category = "stillframe",
    derive = "PartialEq",
    doc = "Where backups live: a bucket of S3, Google Cloud or Azure, or a volume. It is probed when it changes and \
           from time to time; Ready says whether backups can go there, and if not, why.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether backups can go there"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why, or why not"
    ),
    printcolumn(
        name = "Destination",
        type_ = "string",
        json_path = ".status.destination",
        description = "Where it is"
    ),
    printcolumn(
        name = "Backups",
        type_ = "integer",
        json_path = ".status.backupCount",
        description = "Complete backups in it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Probed",
        type_ = "date",
        json_path = ".status.lastProbeTime",
        priority = 1,
        description = "When it was last looked at"
    ),
    printcolumn(
        name = "Deletes",
        type_ = "boolean",
        json_path = ".status.capabilities.delete",
        priority = 1,
        description = "Whether it allows to delete"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "[has(self.s3), has(self.gcs), has(self.azure), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
        "set exactly one of spec.s3, spec.gcs, spec.azure and spec.persistentVolumeClaim",
    ),
    (
        "has(self.s3) == has(oldSelf.s3) && (!has(self.s3) || (self.s3.bucket == oldSelf.s3.bucket \
         && self.s3.prefix == oldSelf.s3.prefix))",
        "spec.s3.bucket and spec.s3.prefix cannot be changed, since backups are found by them: create another BackupStorage",
    ),
    (
        "has(self.gcs) == has(oldSelf.gcs) && (!has(self.gcs) || (self.gcs.bucket == oldSelf.gcs.bucket \
         && self.gcs.prefix == oldSelf.gcs.prefix))",
        "spec.gcs.bucket and spec.gcs.prefix cannot be changed, since backups are found by them: create another BackupStorage",
    ),
    (
        "has(self.azure) == has(oldSelf.azure) && (!has(self.azure) || (self.azure.storageAccount == oldSelf.azure.storageAccount \
         && self.azure.container == oldSelf.azure.container && self.azure.prefix == oldSelf.azure.prefix))",
        "spec.azure.storageAccount, container and prefix cannot be changed, since backups are found by them: create another BackupStorage",
    ),
    (
        "has(self.persistentVolumeClaim) == has(oldSelf.persistentVolumeClaim) && (!has(self.persistentVolumeClaim) || (self.persistentVolumeClaim.claimName == oldSelf.persistentVolumeClaim.claimName \
         && self.persistentVolumeClaim.path == oldSelf.persistentVolumeClaim.path))",
        "spec.persistentVolumeClaim.claimName and path cannot be changed, since backups are found by them: create another BackupStorage",
    ),
])))]
pub struct BackupStorageSpec {
    /// A bucket of Amazon S3, or of anything that speaks its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// A bucket of Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsStorage>,
    /// A container of Azure Blob Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStorage>,
    /// A directory of a PersistentVolumeClaim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeStorage>,
    /// The ServiceAccount that the pods run under which use this storage; for workload identity. It needs no rights in
    /// Kubernetes. Unset: one that the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub service_account_name: Option<String>,
    /// Keys that may open the backups which go here, unless a backup names its own. Unset: they are not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// ReadWrite for backups and restores, ReadOnly for restores: nothing is ever written or deleted, not even by the
    /// probe.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// Shows every complete backup of the storage that no object shows as a MySQLBackup of this namespace, so that it
    /// can be restored.
    #[serde(default)]
    pub import_existing: bool,
    /// How often the storage is probed (an object is written, read back and deleted) and looked through for backups.
    #[serde(default = "BackupStorageSpec::default_probe_period_seconds")]
    #[schemars(range(min = 30, max = 86_400))]
    pub probe_period_seconds: i64,
}

impl BackupStorageSpec {
    const fn default_probe_period_seconds() -> i64 {
        900
    }
}

/// A bucket of S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// The bucket. It must exist.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub bucket: String,
    /// Below which all objects lie, without a leading slash. Several storages may share a bucket under prefixes that
    /// do not contain each other.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub prefix: String,
    /// The region. Servers other than Amazon's mostly do not care.
    #[serde(default = "S3Storage::default_region")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9-]+$"))]
    pub region: String,
    /// The address of a server other than Amazon's, for example https://minio.storage.svc:9000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "endpoint")]
    pub endpoint: Option<String>,
    /// Puts the bucket into the path of URLs (https://server/bucket) as most servers other than Amazon's want it,
    /// instead of into the host's name.
    #[serde(default)]
    pub path_style: bool,
    /// The certificate of the authority that the endpoint's own is signed by, in PEM. Unset: the usual public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// An access key. Unset: what the pod's ServiceAccount gives (IAM roles for service accounts, EKS pod identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
}

impl S3Storage {
    fn default_region() -> String {
        "us-east-1".to_owned()
    }
}

/// An access key of S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Credentials {
    /// The access key's id.
    pub access_key_id_ref: SecretKeyRef,
    /// The access key's secret.
    pub secret_access_key_ref: SecretKeyRef,
    /// The session token of a temporary access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token_ref: Option<SecretKeyRef>,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsStorage {
    /// The bucket. It must exist.
    #[schemars(length(min = 3, max = 222), regex(pattern = r"^[a-z0-9._-]+$"))]
    pub bucket: String,
    /// Below which all objects lie, without a leading slash.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub prefix: String,
    /// A service account key, in JSON. Unset: what the pod's ServiceAccount gives (GKE workload identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretKeyRef>,
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureStorage {
    /// The storage account.
    #[schemars(length(min = 3, max = 24), regex(pattern = r"^[a-z0-9]+$"))]
    pub storage_account: String,
    /// The container. It must exist.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub container: String,
    /// Below which all objects lie, without a leading slash.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub prefix: String,
    /// The address of a server other than Azure's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "endpoint")]
    pub endpoint: Option<String>,
    /// The account's key. Unset: what the pod's ServiceAccount gives (Azure workload identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_key_ref: Option<SecretKeyRef>,
}

/// A directory of a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStorage {
    /// The claim, in the same namespace. To be written from several nodes it must be ReadWriteMany.
    #[schemars(schema_with = "schema::object_name")]
    pub claim_name: String,
    /// The directory in the volume, without a leading slash. Unset: the root.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub path: String,
}

/// What a storage may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Backups and restores.
    #[default]
    ReadWrite,
    /// Restores.
    ReadOnly,
}

/// How a storage is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageStatus {
    /// The generation of the object that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready sums up: True while backups can go there (or be read, if ReadOnly).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Where it is, as a URL without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What the storage was seen to allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<StorageCapabilities>,
    /// When it was last probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// How many complete backups it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_count: Option<i64>,
    /// What they take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
}

/// What a storage was seen to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageCapabilities {
    /// Its objects can be listed. Without it, backups are found by their id only.
    pub list: bool,
    /// Its objects can be deleted. Without it, deleted backups stay until the storage removes them by itself.
    pub delete: bool,
}

impl BackupStorageStatus {
    /// True while backups can go there.
    pub fn is_ready(&self) -> bool {
        conditions::is(&self.conditions, types::READY, status::TRUE)
    }

    /// The probe passed.
    pub fn set_ready(&mut self, capabilities: StorageCapabilities, message: &str, at: Moment) {
        self.capabilities = Some(capabilities);
        self.last_probe_time = Some(Time(at.now));
        self.say(status::TRUE, conditions::reasons::PROBED, message, at);
    }

    /// The probe failed, or could not be made.
    pub fn set_not_ready(&mut self, reason: &str, message: &str, at: Moment) {
        self.last_probe_time = Some(Time(at.now));
        self.say(status::FALSE, reason, message, at);
    }

    /// Not probed yet.
    pub fn set_unknown(&mut self, reason: &str, message: &str, at: Moment) {
        self.say(status::UNKNOWN, reason, message, at);
    }

    fn say(&mut self, status: &'static str, reason: &str, message: &str, at: Moment) {
        let said = Said { status, reason, message };
        conditions::set(&mut self.conditions, types::READY, &said, at.generation, at.now);
        self.observed_generation = Some(at.generation);
    }
}

fn prefix(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": 512,
        "pattern": "^([a-zA-Z0-9_-][a-zA-Z0-9._-]*(/[a-zA-Z0-9_-][a-zA-Z0-9._-]*)*)?$",
    })
}

fn endpoint(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 2048, "pattern": "^https?://[^/?#@\\s]+(/[^?#\\s]*)?$"})
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_storage_comes_and_goes() {
        let at = |second| Moment { generation: 1, now: Timestamp::from_second(second).unwrap() };
        let mut storage = BackupStorageStatus::default();
        storage.set_unknown(conditions::reasons::PENDING, "not probed yet", at(1));
        assert!(!storage.is_ready());
        assert_eq!(storage.last_probe_time, None);
        storage.set_ready(StorageCapabilities { list: true, delete: false }, "written and read back", at(2));
        assert!(storage.is_ready());
        storage.set_not_ready("StoreDenied", "403", at(3));
        assert!(!storage.is_ready());
        assert_eq!(storage.conditions.len(), 1);
        assert_eq!(
            storage.capabilities,
            Some(StorageCapabilities { list: true, delete: false }),
            "what was seen stays"
        );
    }
}
