//! The server that a `MySQLBackup` is taken from: pods, which of them, and how to get in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::SecretKeyRef;
use super::schema;

/// The server to back up: pods, which of them, and how to get in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "has(self.selector) != has(self.podName)",
    "set exactly one of selector (choose among the pods of a cluster) and podName (this pod and no other)",
)])))]
pub struct BackupSource {
    /// The pods of one MySQL cluster, by their labels. One of them is chosen by target. Exactly one of selector and
    /// podName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_selector")]
    pub selector: Option<LabelSelector>,
    /// This pod and no other. Exactly one of selector and podName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub pod_name: Option<String>,
    /// Which of the selected pods: Primary the one that takes writes, Replica one that does not, PreferReplica a
    /// replica if one is there and the primary otherwise. The servers themselves are asked who they are.
    #[serde(default)]
    pub target: BackupTarget,
    /// The container that runs mysqld. Unset: the one that mounts the data directory; if several do, the one named
    /// mysql or mysqld.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub container: Option<String>,
    /// The port of the server in its pod.
    #[serde(default = "BackupSource::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The data directory as the database's container sees it.
    #[serde(default = "BackupSource::default_data_dir")]
    #[schemars(length(min = 2, max = 4096), regex(pattern = r"^/[^\x00]+$"))]
    pub data_dir: String,
    /// The uid that owns the data directory; the runner runs as it. Unset: the one of the database's container or pod,
    /// and if those do not say, the owner of the files is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// The gid that goes with runAsUser.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// The MySQL account that takes the backup. stillframe grants prints the SQL that creates it.
    pub credentials: CredentialsSpec,
    /// How the connection to the server is secured.
    #[serde(default)]
    pub tls: TlsSpec,
    /// The keyring file of a server with data-at-rest encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyring: Option<KeyringSpec>,
    /// What to do with pages that the server encrypts when their key is not at hand: Verify refuses the backup,
    /// CopyUnverified copies them as they are, and the backup says that nobody looked inside.
    #[serde(default)]
    pub encrypted_pages: EncryptedPages,
    /// Goes on with a server version that no recorded test run of Stillframe covers.
    #[serde(default)]
    pub allow_untested_server: bool,
    /// Lets an ephemeral container in the database's own pod do the work where no second pod can mount its volume
    /// (ReadWriteOncePod, emptyDir). Such a container cannot be removed before the pod is, shares the pod's memory, and
    /// gets Secrets as variables. It needs a storage with credentials, and the chart's allowEphemeralContainers.
    #[serde(default)]
    pub allow_ephemeral_container: bool,
}

impl BackupSource {
    const fn default_port() -> i32 {
        3306
    }

    fn default_data_dir() -> String {
        "/var/lib/mysql".to_owned()
    }
}

/// Which of the selected pods is backed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupTarget {
    /// The one that takes writes.
    Primary,
    /// A replica if there is one.
    #[default]
    PreferReplica,
    /// A replica or none.
    Replica,
}

/// The MySQL account that takes the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSpec {
    /// The Secret that holds user and password.
    pub secret_ref: CredentialsSecretRef,
}

/// A Secret with a user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecretRef {
    /// The Secret's name, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// The key that holds the user's name.
    #[serde(default = "CredentialsSecretRef::default_username_key")]
    #[schemars(schema_with = "schema::data_key")]
    pub username_key: String,
    /// The key that holds the password.
    #[serde(default = "CredentialsSecretRef::default_password_key")]
    #[schemars(schema_with = "schema::data_key")]
    pub password_key: String,
}

impl CredentialsSecretRef {
    fn default_username_key() -> String {
        "username".to_owned()
    }

    fn default_password_key() -> String {
        "password".to_owned()
    }
}

/// How the connection to the server is secured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("has(self.certificateSecretRef) == has(self.keySecretRef)", "set certificateSecretRef and keySecretRef together"),
    ("self.mode != 'VerifyCA' || has(self.caSecretRef)", "set caSecretRef: mode VerifyCA needs to know the authority"),
    (
        "self.mode != 'Disabled' || !(has(self.caSecretRef) || has(self.certificateSecretRef) || has(self.serverName))",
        "mode Disabled uses no certificates: leave them out, or choose another mode",
    ),
])))]
pub struct TlsSpec {
    /// As MySQL's own --ssl-mode: Disabled, Preferred (TLS if the server offers it; a password is never sent in
    /// clear), Required, VerifyCA (the server's certificate must be of the authority), VerifyIdentity (and name it).
    #[serde(default)]
    pub mode: TlsMode,
    /// The certificate of the authority, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A client certificate, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<SecretKeyRef>,
    /// The client certificate's key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<SecretKeyRef>,
    /// The name that the server's certificate must carry under VerifyIdentity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// How much is asked of the server's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS.
    Disabled,
    /// TLS where the server offers it.
    #[default]
    Preferred,
    /// TLS, whoever answers.
    Required,
    /// The authority is checked.
    VerifyCA,
    /// Authority and name are checked.
    VerifyIdentity,
}

/// The server's keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyringSpec {
    /// The Secret key that holds the data file of component_keyring_file.
    pub secret_ref: SecretKeyRef,
}

/// What to do without the key to an encrypted page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EncryptedPages {
    /// Refuse the backup.
    #[default]
    Verify,
    /// Copy them as they are.
    CopyUnverified,
}
