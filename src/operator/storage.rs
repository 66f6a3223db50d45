//! A `BackupStorage` as those need it who connect: a URL, variables, and the Secrets that some of them come from.
//!
//! ```text
//!   BackupStorageSpec ─► StorePlan ──┬─► variables of a runner's pod     (Secrets by reference, a file for the CA)
//!                                    └─► StoreSettings of the operator   (Secrets read, the CA in a file of its own)
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource, Pod, Secret, SecretKeySelector, Volume, VolumeMount,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::api::common::SecretKeyRef;
use crate::api::storage::{AzureStorage, BackupStorageSpec, GcsStorage, S3Storage, VolumeStorage};
use crate::operator::runners::ca_volume;
use crate::store::{StoreSettings, StoreUrl};

/// Where the certificate of a storage's authority is in a runner's pod.
pub(crate) const CA_DIR: &str = "/etc/stillframe/store";
const CA_VARIABLE: &str = "AWS_CA_BUNDLE";
/// Where the volume of a storage is in a runner's pod.
const VOLUME_DIR: &str = "/var/lib/stillframe/store";
/// The group that a storage's volume belongs to. Runners of several users share its files by that.
pub(crate) const VOLUME_GROUP: i64 = 65532;

/// How to reach a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorePlan {
    /// Its URL.
    pub(crate) url: String,
    /// Variables with their values.
    pub(crate) plain: Vec<(&'static str, String)>,
    /// Variables whose values are in Secrets.
    pub(crate) secret: Vec<(&'static str, SecretKeyRef)>,
    /// The certificate of its authority.
    pub(crate) ca: Option<SecretKeyRef>,
    /// Only the pod's ServiceAccount opens it.
    pub(crate) by_identity: bool,
    /// The PersistentVolumeClaim that it is on.
    pub(crate) claim: Option<String>,
}

/// Why a storage cannot be reached as it is described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreRefusal {
    /// Something that it names is not there.
    #[error("the secret {name} has no key {key}")]
    MissingKey { name: String, key: String },
    /// It is there but no text.
    #[error("the key {key} of the secret {name} holds no text")]
    NoText { name: String, key: String },
    /// Whoever asks must do so from a pod.
    #[error("only a pod can reach it: by its volume, or by its ServiceAccount")]
    PodsOnly,
    /// The spec makes no URL.
    #[error("the storage has no address: {0}")]
    BadUrl(String),
    /// The authority's certificate could not be put where the client finds it.
    #[error("cannot write the authority's certificate to {path}: {why}")]
    WriteCa { path: String, why: String },
}

/// What a storage's spec means.
pub(crate) fn plan_store(spec: &BackupStorageSpec) -> Result<StorePlan, StoreRefusal> {
    match (&spec.s3, &spec.gcs, &spec.azure) {
        (Some(s3), ..) => Ok(plan_s3(s3)),
        (_, Some(gcs), _) => Ok(plan_gcs(gcs)),
        (_, _, Some(azure)) => Ok(plan_azure(azure)),
        _ if let Some(volume) = &spec.persistent_volume_claim => Ok(plan_volume(volume)),
        _ => Err(StoreRefusal::BadUrl("the spec names neither bucket nor volume".to_owned())),
    }
}

fn url(scheme: &str, bucket: &str, prefix: &str) -> String {
    if prefix.is_empty() { format!("{scheme}://{bucket}") } else { format!("{scheme}://{bucket}/{prefix}") }
}

fn plan_s3(s3: &S3Storage) -> StorePlan {
    let mut plain = vec![("AWS_REGION", s3.region.clone())];
    if let Some(endpoint) = &s3.endpoint {
        plain.push((
            "AWS_ENDPOINT_URL",
            if s3.path_style { endpoint.clone() } else { with_bucket(endpoint, &s3.bucket) },
        ));
        plain.push(("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", (!s3.path_style).to_string()));
    }
    let mut secret = Vec::new();
    if let Some(credentials) = &s3.credentials {
        secret.push(("AWS_ACCESS_KEY_ID", credentials.access_key_id_ref.clone()));
        secret.push(("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key_ref.clone()));
        secret.extend(credentials.session_token_ref.clone().map(|token| ("AWS_SESSION_TOKEN", token)));
    }
    StorePlan {
        url: url("s3", &s3.bucket, &s3.prefix),
        plain,
        by_identity: secret.is_empty(),
        secret,
        ca: s3.ca_secret_ref.clone(),
        claim: None,
    }
}

/// `https://server` and `bucket` as `https://bucket.server`.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, server)) => format!("{scheme}://{bucket}.{server}"),
        None => endpoint.to_owned(),
    }
}

fn plan_gcs(gcs: &GcsStorage) -> StorePlan {
    let secret: Vec<_> =
        gcs.credentials_secret_ref.iter().map(|key| ("GOOGLE_SERVICE_ACCOUNT_KEY", key.clone())).collect();
    StorePlan {
        url: url("gs", &gcs.bucket, &gcs.prefix),
        plain: vec![],
        by_identity: secret.is_empty(),
        secret,
        ca: None,
        claim: None,
    }
}

fn plan_azure(azure: &AzureStorage) -> StorePlan {
    let mut plain = vec![("AZURE_STORAGE_ACCOUNT_NAME", azure.storage_account.clone())];
    plain.extend(azure.endpoint.clone().map(|endpoint| ("AZURE_STORAGE_ENDPOINT", endpoint)));
    let secret: Vec<_> = azure.account_key_ref.iter().map(|key| ("AZURE_STORAGE_ACCOUNT_KEY", key.clone())).collect();
    StorePlan {
        url: url("az", &azure.container, &azure.prefix),
        plain,
        by_identity: secret.is_empty(),
        secret,
        ca: None,
        claim: None,
    }
}

fn plan_volume(volume: &VolumeStorage) -> StorePlan {
    let place = format!("{VOLUME_DIR}/{}", volume.path);
    StorePlan {
        url: format!("file://{}", place.trim_end_matches('/')),
        plain: vec![],
        secret: vec![],
        ca: None,
        by_identity: false,
        claim: Some(volume.claim_name.clone()),
    }
}

impl StorePlan {
    /// True if the operator itself cannot get there.
    pub(crate) fn is_for_pods_only(&self) -> bool {
        self.by_identity || self.claim.is_some()
    }

    /// Its address as people know it.
    pub(crate) fn shown(&self) -> String {
        let place = |claim: &String| {
            let path =
                self.url.strip_prefix("file://").and_then(|url| url.strip_prefix(VOLUME_DIR)).unwrap_or_default();
            format!("pvc://{claim}{path}")
        };
        self.claim.as_ref().map_or_else(|| self.url.clone(), place)
    }

    /// Lets a pod with a database's volumes use the storage's, too. Not by `fsGroup`: that would be for all of them.
    pub(crate) fn join_group(&self, pod: &mut Pod) {
        if let Some(security) = pod.spec.as_mut().and_then(|spec| spec.security_context.as_mut())
            && self.claim.is_some()
        {
            security.supplemental_groups.get_or_insert_default().push(VOLUME_GROUP);
        }
    }

    /// What a pod that reaches it must mount: the certificate of its authority, its volume. A pod that has no other
    /// volume sets `fsGroup` to [`VOLUME_GROUP`]; one beside a database must not, see [`Self::join_group`].
    pub(crate) fn volumes(&self, writes: bool) -> Vec<(Volume, VolumeMount)> {
        let mount = |volume: Volume, path: &str, read_only: bool| {
            let mount = VolumeMount {
                name: volume.name.clone(),
                mount_path: path.to_owned(),
                read_only: Some(read_only),
                ..VolumeMount::default()
            };
            (volume, mount)
        };
        let ca = self.ca.iter().map(|ca| mount(ca_volume(ca), CA_DIR, true));
        let claim = self.claim.iter().map(|claim| {
            // Where it is only read, the kubelet must not give it to the pod's own group either.
            let read_only = (!writes).then_some(true);
            let source = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only };
            let name = "stillframe-store".to_owned();
            let volume = Volume { name, persistent_volume_claim: Some(source), ..Volume::default() };
            mount(volume, VOLUME_DIR, !writes)
        });
        ca.chain(claim).collect()
    }

    /// Every Secret key that it needs.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretKeyRef> {
        self.secret.iter().map(|(_, key)| key).chain(&self.ca)
    }

    /// The variables of a runner's container. The certificate of the authority must be mounted at [`CA_DIR`].
    pub(crate) fn environment(&self) -> Vec<EnvVar> {
        self.environment_with(&format!("{CA_DIR}/ca.crt"))
    }

    /// The same with the certificate of the authority elsewhere.
    pub(crate) fn environment_with(&self, ca_file: &str) -> Vec<EnvVar> {
        let plain = self.plain.iter().map(|(name, value)| EnvVar {
            name: (*name).to_owned(),
            value: Some(value.clone()),
            ..EnvVar::default()
        });
        let secret = self.secret.iter().map(|(name, key)| EnvVar {
            name: (*name).to_owned(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: key.name.clone(),
                    key: key.key.clone(),
                    optional: Some(false),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        });
        let ca = self.ca.iter().map(|_| EnvVar {
            name: CA_VARIABLE.to_owned(),
            value: Some(ca_file.to_owned()),
            ..EnvVar::default()
        });
        plain.chain(secret).chain(ca).collect()
    }

    /// The operator's own way in, with the Secrets' contents.
    pub(crate) fn connection(
        &self,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<(StoreUrl, StoreSettings), StoreRefusal> {
        if self.is_for_pods_only() {
            return Err(StoreRefusal::PodsOnly);
        }
        let url =
            self.url.parse().map_err(|error: crate::store::StoreError| StoreRefusal::BadUrl(error.to_string()))?;
        let mut variables: Vec<(String, String)> =
            self.plain.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        for (name, key) in &self.secret {
            variables.push(((*name).to_owned(), secret_text(secrets, key)?));
        }
        if let Some(key) = &self.ca {
            let path = keep_ca(&secret_text(secrets, key)?)?;
            variables.push((CA_VARIABLE.to_owned(), path.to_string_lossy().into_owned()));
        }
        Ok((url, StoreSettings::new(variables)))
    }
}

/// The store's client reads certificates from a file. Same certificate, same file, so that no number of storages and
/// no restart fills the directory.
fn keep_ca(text: &str) -> Result<PathBuf, StoreRefusal> {
    let path = std::env::temp_dir().join(format!("stillframe-ca-{:016x}.pem", xxh3_64(text.as_bytes())));
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(path);
    }
    std::fs::write(&path, text)
        .map(|()| path.clone())
        .map_err(|error| StoreRefusal::WriteCa { path: path.display().to_string(), why: error.to_string() })
}

/// What is under a Secret's key, as text.
pub(crate) fn secret_text(secrets: &BTreeMap<String, Secret>, key: &SecretKeyRef) -> Result<String, StoreRefusal> {
    let bytes = secrets.get(&key.name).and_then(|secret| secret.data.as_ref()?.get(&key.key));
    let bytes = bytes.ok_or_else(|| StoreRefusal::MissingKey { name: key.name.clone(), key: key.key.clone() })?;
    let text = std::str::from_utf8(&bytes.0)
        .map_err(|_| StoreRefusal::NoText { name: key.name.clone(), key: key.key.clone() })?;
    // Files and shells like to leave a line feed behind; no key or token ends in one.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> BackupStorageSpec {
        serde_json::from_value(value).unwrap()
    }

    fn secrets() -> BTreeMap<String, Secret> {
        let data = [("id", "AKIA\n"), ("secret", "hunter2"), ("ca", "-----BEGIN CERTIFICATE-----")]
            .map(|(key, value)| (key.to_owned(), ByteString(value.into())));
        BTreeMap::from([("s".to_owned(), Secret { data: Some(data.into()), ..Secret::default() })])
    }

    fn s3() -> BackupStorageSpec {
        spec(json!({"s3": {
            "bucket": "backups", "prefix": "a/b", "endpoint": "https://minio:9000", "pathStyle": true,
            "caSecretRef": {"name": "s", "key": "ca"},
            "credentials": {"accessKeyIdRef": {"name": "s", "key": "id"}, "secretAccessKeyRef": {"name": "s", "key": "secret"}},
        }}))
    }

    #[test]
    fn a_runner_gets_secrets_by_reference_only() {
        let plan = plan_store(&s3()).unwrap();
        assert_eq!(plan.url, "s3://backups/a/b");
        assert!(!plan.by_identity);
        let text = serde_json::to_string(&plan.environment()).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("AKIA"), "{text}");
        assert!(text.contains(r#"{"name":"AWS_ENDPOINT_URL","value":"https://minio:9000"}"#), "{text}");
        assert!(text.contains(r#""value":"/etc/stillframe/store/ca.crt""#), "{text}");
        assert_eq!(plan.secrets().count(), 3);
    }

    #[test]
    fn the_operator_reads_them() {
        let plan = plan_store(&s3()).unwrap();
        let (url, settings) = plan.connection(&secrets()).unwrap();
        assert_eq!(url.to_string(), "s3://backups/a/b");
        assert_eq!(settings.environment["AWS_ACCESS_KEY_ID"], "AKIA", "without the line feed");
        let ca = std::fs::read_to_string(&settings.environment[CA_VARIABLE]).unwrap();
        assert_eq!(ca, "-----BEGIN CERTIFICATE-----");
        let error = plan.connection(&BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "the secret s has no key id");
    }

    #[test]
    fn each_cloud_has_its_variables() {
        let plan = plan_store(&spec(json!({"s3": {"bucket": "b-b", "endpoint": "https://s3.example"}}))).unwrap();
        assert!(plan.by_identity);
        assert!(plan.plain.contains(&("AWS_ENDPOINT_URL", "https://b-b.s3.example".to_owned())), "{plan:?}");
        let plan =
            plan_store(&spec(json!({"gcs": {"bucket": "b-b", "credentialsSecretRef": {"name": "s", "key": "k"}}})))
                .unwrap();
        assert_eq!((plan.url.as_str(), plan.secret[0].0), ("gs://b-b", "GOOGLE_SERVICE_ACCOUNT_KEY"));
        let azure = json!({"azure": {"storageAccount": "acc", "container": "c-c", "prefix": "p"}});
        let plan = plan_store(&spec(azure)).unwrap();
        assert_eq!((plan.url.as_str(), plan.by_identity), ("az://c-c/p", true));
    }

    #[test]
    fn a_volume_is_reached_from_pods_only() {
        let plan = plan_store(&spec(json!({"persistentVolumeClaim": {"claimName": "c", "path": "a/b"}}))).unwrap();
        assert_eq!((plan.url.as_str(), plan.shown().as_str()), ("file:///var/lib/stillframe/store/a/b", "pvc://c/a/b"));
        assert_eq!(plan.connection(&BTreeMap::new()).unwrap_err(), StoreRefusal::PodsOnly);
        let [(volume, mount)] = &plan.volumes(true)[..] else { panic!("{plan:?}") };
        assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "c");
        assert_eq!((mount.mount_path.as_str(), mount.read_only), (VOLUME_DIR, Some(false)));
        assert_eq!(plan.volumes(false)[0].1.read_only, Some(true));
        let root = plan_store(&spec(json!({"persistentVolumeClaim": {"claimName": "c"}}))).unwrap();
        assert_eq!((root.url.as_str(), root.shown().as_str()), ("file:///var/lib/stillframe/store", "pvc://c"));
    }
}
