//! From an address and an environment to a client of that cloud. Sends nothing yet.
//!
//! The crate's own retries are off: the loop in `retry` does them all, so that each is logged, jittered, bounded by
//! one clock and ended by a cancel.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path as FilePath;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::util::fs::{fsync_dir, parent};

use super::error::StoreError;
use super::settings::StoreSettings;
use super::url::{Cloud, Place, StoreUrl};

/// A part of 8 MiB passes in this time even at 0.5 Mbit/s; a dead connection is noticed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A store, and how it takes large objects.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) parts: Parts,
}

/// How large objects are written.
#[derive(Clone)]
pub(super) enum Parts {
    /// Into a file beside, then renamed.
    Files(Arc<LocalFileSystem>),
    /// As parts that the store joins; each can be sent again.
    Cloud(Arc<dyn MultipartStore>),
}

/// Whether a missing directory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    Create,
    Refuse,
}

pub(super) fn connect(url: &StoreUrl, settings: &StoreSettings, missing: IfMissing) -> Result<Backend, StoreError> {
    let (cloud, bucket) = match url.place() {
        Place::Directory(path) => return open_directory(url, path, missing),
        Place::Bucket { cloud, bucket, .. } => (*cloud, bucket.as_str()),
    };
    let wrong = |error: object_store::Error| StoreError::Settings {
        url: url.to_string(),
        // The builder's errors name settings, not their values.
        why: super::explain::explain(&error).to_string(),
    };
    match cloud {
        Cloud::S3 => amazon(url, bucket, settings)?.build().map(of_cloud).map_err(wrong),
        Cloud::Google => google(bucket, settings).build().map(of_cloud).map_err(wrong),
        Cloud::Azure => azure(bucket, settings).build().map(of_cloud).map_err(wrong),
    }
}

fn of_cloud<S: ObjectStore + MultipartStore>(store: S) -> Backend {
    let store = Arc::new(store);
    Backend { objects: store.clone(), parts: Parts::Cloud(store) }
}

fn open_directory(url: &StoreUrl, path: &FilePath, missing: IfMissing) -> Result<Backend, StoreError> {
    let refuse = |why: String| StoreError::Directory { url: url.to_string(), why };
    if !path.exists() {
        let above = parent(path);
        if !above.is_dir() {
            return Err(refuse(format!("the directory {} does not exist", above.display())));
        }
        if missing == IfMissing::Refuse {
            return Err(refuse("the directory does not exist".to_owned()));
        }
        // Less what the user's mask takes away: on a shared volume, runners of one group work here.
        match DirBuilder::new().mode(0o770).create(path) {
            Ok(()) => fsync_dir(above).map_err(|error| refuse(format!("{error}: {}", error.source)))?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refuse(format!("cannot create it: {error}"))),
        }
    }
    if !path.is_dir() {
        return Err(refuse("it is not a directory".to_owned()));
    }
    let files =
        LocalFileSystem::new_with_prefix(path).map_err(|error| refuse(super::explain::explain(&error).to_string()))?;
    // Without fsync a commit could be durable before the data that it speaks of.
    let files = Arc::new(files.with_fsync(true).with_automatic_cleanup(true));
    Ok(Backend { objects: files.clone(), parts: Parts::Files(files) })
}

fn amazon(url: &StoreUrl, bucket: &str, settings: &StoreSettings) -> Result<AmazonS3Builder, StoreError> {
    let endpoint = settings.variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
    let mut options = client_options(endpoint);
    if let Some(path) = settings.variable(&["AWS_CA_BUNDLE"]) {
        for certificate in read_certificates(url, path)? {
            options = options.with_root_certificate(certificate);
        }
    }
    let builder = AmazonS3Builder::new().with_client_options(options).with_retry(no_retries()).with_bucket_name(bucket);
    // Single deletes are the core of S3 that every server has, and that a policy can refuse one by one.
    let builder = builder.with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    Ok(configured(builder, "AWS_", settings, |key| key == AmazonS3ConfigKey::Bucket, AmazonS3Builder::with_config))
}

fn google(bucket: &str, settings: &StoreSettings) -> GoogleCloudStorageBuilder {
    let emulator = settings
        .variable(&["STORAGE_EMULATOR_HOST"])
        .map(|host| if host.contains("://") { host.to_owned() } else { format!("http://{host}") });
    let endpoint = emulator.as_deref().or_else(|| settings.variable(&["GOOGLE_BASE_URL"]));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client_options(endpoint))
        .with_retry(no_retries())
        .with_bucket_name(bucket);
    builder = configured(
        builder,
        "GOOGLE_",
        settings,
        |key| key == GoogleConfigKey::Bucket,
        GoogleCloudStorageBuilder::with_config,
    );
    match emulator {
        // Writes ask for a token even where nothing is signed; no real one goes to an emulator.
        Some(base) => builder.with_base_url(&base).with_config(GoogleConfigKey::BearerToken, "emulator"),
        None => builder,
    }
}

fn azure(container: &str, settings: &StoreSettings) -> MicrosoftAzureBuilder {
    let endpoint = settings.variable(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]);
    let builder = MicrosoftAzureBuilder::new().with_client_options(client_options(endpoint)).with_retry(no_retries());
    let builder = configured(
        builder.with_container_name(container),
        "AZURE_",
        settings,
        |key| key == AzureConfigKey::ContainerName,
        MicrosoftAzureBuilder::with_config,
    );
    match settings.variable(&["AZURE_IDENTITY_ENDPOINT"]) {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    }
}

/// Gives a builder every variable of its cloud that it knows, but for the bucket, which the URL names.
fn configured<B, K: FromStr + Clone>(
    builder: B,
    prefix: &str,
    settings: &StoreSettings,
    taken: impl Fn(K) -> bool,
    with: impl Fn(B, K, String) -> B,
) -> B {
    let known = settings.environment.iter().filter(|(name, _)| name.starts_with(prefix)).filter_map(|(name, value)| {
        let key: K = name.to_ascii_lowercase().parse().ok()?;
        (!taken(key.clone())).then(|| (key, value.clone()))
    });
    known.fold(builder, |builder, (key, value)| with(builder, key, value))
}

fn client_options(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        // An endpoint written with http:// is a wish, not an accident.
        .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
}

fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: REQUEST_TIMEOUT }
}

fn read_certificates(url: &StoreUrl, path: &str) -> Result<Vec<Certificate>, StoreError> {
    let wrong =
        |why: String| StoreError::Settings { url: url.to_string(), why: format!("AWS_CA_BUNDLE {path}: {why}") };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| wrong(super::explain::explain(&error).to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}
