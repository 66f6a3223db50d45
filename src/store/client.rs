//! Single requests: each with retries, each failing with the object's name. What they add up to is elsewhere.
//!
//! ```text
//!   create   PUT, only if nothing is there          fails with Exists
//!   swap     PUT, only if it is still that version  fails with Changed
//!   put      PUT, whatever is there
//! ```
//!
//! An answer may be lost after the store did what it was asked. So *Exists* and *Changed* can be the echo of one's
//! own first try: whoever uses `create` or `swap` reads back and compares.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::connect::{Backend, IfMissing, Parts, connect};
use super::error::StoreError;
use super::explain::Class;
use super::file::bytes_of;
use super::local;
use super::record::MAX_RECORD;
use super::retry::{Failed, Patience, Subject, persist};
use super::settings::StoreSettings;
use super::url::StoreUrl;

/// One try of a small request.
const SMALL_REQUEST: Duration = Duration::from_secs(10);
/// Requests that one verb has on their way at a time.
pub(super) const FAN_OUT: usize = 16;

/// A connection to a store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    url: StoreUrl,
    backend: Backend,
    settings: StoreSettings,
    memory: Arc<Semaphore>,
    runtime: Handle,
}

/// What a store calls one state of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// A cloud's own mark.
    Tag(Mark),
    /// The content itself, where the store compares nothing for us.
    Content(Bytes),
}

/// [`UpdateVersion`], comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    tag: Option<String>,
    version: Option<String>,
}

/// A small object as it was read.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) bytes: Bytes,
    pub(super) version: Version,
    pub(super) written: Timestamp,
}

/// What a store says of an object.
#[derive(Debug, Clone)]
pub(super) struct Stat {
    pub(super) key: Path,
    pub(super) size: u64,
    pub(super) tag: Option<String>,
    pub(super) written: Timestamp,
}

impl From<ObjectMeta> for Stat {
    fn from(meta: ObjectMeta) -> Self {
        let written = written(&meta);
        Self { key: meta.location, size: meta.size, tag: meta.e_tag, written }
    }
}

/// What is directly below a key.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) folders: Vec<Path>,
    pub(super) objects: Vec<Stat>,
}

impl Client {
    /// Connects. Must be called on the network runtime, whose handle it keeps for the blocking sides.
    pub(super) fn open(url: &StoreUrl, settings: StoreSettings, missing: IfMissing) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::Stopped)?;
        let backend = connect(url, &settings, missing)?;
        let memory = Arc::new(Semaphore::new(settings.bytes_in_flight.min(Semaphore::MAX_PERMITS)));
        Ok(Self(Arc::new(Inner { url: url.clone(), backend, settings, memory, runtime })))
    }

    pub(super) fn url(&self) -> &StoreUrl {
        &self.0.url
    }

    pub(super) fn settings(&self) -> &StoreSettings {
        &self.0.settings
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// Bounds the bytes that uploads have on their way.
    pub(super) fn memory(&self) -> &Arc<Semaphore> {
        &self.0.memory
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.backend.parts
    }

    /// For what comes before the work: a wrong endpoint or key must show in seconds.
    pub(super) fn first(&self) -> Patience {
        let total = self.settings().first_patience;
        Patience { attempt: SMALL_REQUEST, total, cancel: CancellationToken::new() }
    }

    /// For small requests while work goes on.
    pub(super) fn steady(&self, cancel: &CancellationToken) -> Patience {
        Patience { attempt: SMALL_REQUEST, total: self.settings().patience, cancel: cancel.clone() }
    }

    /// For data while work goes on.
    pub(super) fn patient(&self, cancel: &CancellationToken) -> Patience {
        Patience { attempt: self.settings().data_request, ..self.steady(cancel) }
    }

    pub(super) fn subject<'a>(&'a self, act: &'static str, key: &'a Path) -> Subject<'a> {
        Subject { url: self.url(), act, key }
    }

    fn objects(&self) -> &dyn ObjectStore {
        self.0.backend.objects.as_ref()
    }

    /// Reads a small object whole; a large one is none of ours.
    pub(super) async fn get(&self, key: &Path, patience: &Patience) -> Result<Record, Failed> {
        let subject = self.subject("read", key);
        let answer = persist(subject, patience, || async {
            let got = self.objects().get(key).await?;
            let meta = got.meta.clone();
            let bytes = if meta.size > MAX_RECORD { Bytes::new() } else { got.bytes().await? };
            Ok((meta, bytes))
        });
        let (meta, bytes) = answer.await?;
        if meta.size > MAX_RECORD {
            return Err(subject.broken(format!("it has {} bytes, more than any such object", meta.size)));
        }
        let version = match self.parts() {
            Parts::Files(_) => Version::Content(bytes.clone()),
            Parts::Cloud(_) => tag(meta.e_tag.clone(), meta.version.clone()),
        };
        Ok(Record { version, written: written(&meta), bytes })
    }

    /// Reads exactly these bytes.
    pub(super) async fn get_range(
        &self,
        key: &Path,
        offset: u64,
        length: u64,
        patience: &Patience,
    ) -> Result<Bytes, Failed> {
        let subject = self.subject("read", key);
        let Some(end) = offset.checked_add(length) else {
            return Err(subject.broken("the range asked for ends past the largest number"));
        };
        if length == 0 {
            return Ok(Bytes::new());
        }
        let answer = persist(subject, patience, || async {
            let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
            let got = self.objects().get_opts(key, options).await?;
            let size = got.meta.size;
            // A range that begins past the end would fail by itself; one that ends past it is cut by the store.
            let bytes = if size < end { Bytes::new() } else { bytes_of(got).await? };
            if size >= end && u64::try_from(bytes.len()) != Ok(length) {
                return Err(short_answer(bytes.len(), length));
            }
            Ok((size, bytes))
        });
        let (size, bytes) = answer.await?;
        if size < end {
            return Err(subject.broken(format!("it has {size} bytes, {offset}+{length} were wanted")));
        }
        Ok(bytes)
    }

    /// Asks for an object's size and marks.
    pub(super) async fn stat(&self, key: &Path, patience: &Patience) -> Result<Stat, Failed> {
        persist(self.subject("look at", key), patience, || async { Ok(self.objects().head(key).await?.into()) }).await
    }

    /// Writes an object that must not be there.
    pub(super) async fn create(&self, key: &Path, bytes: PutPayload, patience: &Patience) -> Result<Version, Failed> {
        self.write("create", key, bytes, PutMode::Create, patience).await
    }

    /// Writes an object, whatever is there.
    pub(super) async fn put(&self, key: &Path, bytes: PutPayload, patience: &Patience) -> Result<Version, Failed> {
        self.write("write", key, bytes, PutMode::Overwrite, patience).await
    }

    /// Replaces an object that must still be the given version.
    pub(super) async fn swap(
        &self,
        key: &Path,
        from: &Version,
        bytes: Bytes,
        patience: &Patience,
    ) -> Result<Version, Failed> {
        let subject = self.subject("replace", key);
        if let (Parts::Files(files), Version::Content(from)) = (self.parts(), from) {
            let path = files.path_to_filesystem(key).map_err(|error| subject.broken(error.to_string()))?;
            let (from, new) = (from.clone(), bytes.clone());
            let swapped = self.runtime().spawn_blocking(move || local::swap(&path, &from, &new));
            return match swapped.await {
                Ok(Ok(true)) => Ok(Version::Content(bytes)),
                Ok(Ok(false)) => Err(subject.changed()),
                Ok(Err(error)) if local::is_denied(&error) => Err(subject.denied(error.source.to_string())),
                Ok(Err(error)) => Err(subject.broken(format!("{error}: {}", error.source))),
                Err(_) => Err(subject.broken("the runtime ended")),
            };
        }
        let mode = match from {
            Version::Tag(from) => {
                PutMode::Update(UpdateVersion { e_tag: from.tag.clone(), version: from.version.clone() })
            }
            Version::Content(_) => PutMode::Overwrite,
        };
        self.write("replace", key, bytes.into(), mode, patience).await
    }

    async fn write(
        &self,
        act: &'static str,
        key: &Path,
        payload: PutPayload,
        mode: PutMode,
        patience: &Patience,
    ) -> Result<Version, Failed> {
        let mut tries = 0_u32;
        let done = persist(self.subject(act, key), patience, || {
            tries = tries.saturating_add(1);
            let is_second = tries > 1;
            let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
            let payload = payload.clone();
            async move {
                // A try whose answer was lost may have worked. Not every store hears a large one out before it says that the
                // object exists: it breaks the connection, each time anew.
                if is_second && options.mode == PutMode::Create && self.objects().head(key).await.is_ok() {
                    let (path, source) = (key.to_string(), "an earlier try has written it, or somebody else".into());
                    return Err(object_store::Error::AlreadyExists { path, source });
                }
                self.objects().put_opts(key, payload, options).await
            }
        });
        let done = done.await?;
        Ok(match self.parts() {
            Parts::Files(_) => Version::Content(payload.into()),
            Parts::Cloud(_) => tag(done.e_tag, done.version),
        })
    }

    /// Deletes an object; one that is gone already is as good.
    pub(super) async fn delete(&self, key: &Path, patience: &Patience) -> Result<(), Failed> {
        match persist(self.subject("delete", key), patience, || self.objects().delete(key)).await {
            Err(failed) if failed.is(Class::Missing) => Ok(()),
            done => done,
        }
    }

    /// Lists one level below a key.
    pub(super) async fn folder(&self, key: &Path, patience: &Patience) -> Result<Folder, Failed> {
        let listed = persist(self.subject("list", key), patience, || async {
            match self.objects().list_with_delimiter(Some(key)).await {
                // A folder is nothing that could be missing from a bucket.
                Err(object_store::Error::NotFound { source, path }) if !is_no_bucket(&source.to_string()) => {
                    tracing::debug!(path, "no such folder");
                    Ok(None)
                }
                other => other.map(Some),
            }
        });
        let Some(listed) = listed.await? else { return Ok(Folder::default()) };
        Ok(Folder { folders: listed.common_prefixes, objects: listed.objects.into_iter().map(Stat::from).collect() })
    }

    /// Deletes everything below a key.
    pub(super) async fn delete_below(&self, key: &Path, patience: &Patience) -> Result<(), Failed> {
        if let Parts::Files(files) = self.parts() {
            let subject = self.subject("delete", key);
            // Half-written files are in no listing.
            let path = files.path_to_filesystem(key).map_err(|error| subject.broken(error.to_string()))?;
            let removed = self.runtime().spawn_blocking(move || local::remove_tree(&path)).await;
            return match removed {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if local::is_denied(&error) => Err(subject.denied(error.source.to_string())),
                Ok(Err(error)) => Err(subject.broken(format!("{error}: {}", error.source))),
                Err(_) => Err(subject.broken("the runtime ended")),
            };
        }
        // About 100 bytes a key.
        let keys = persist(self.subject("list", key), patience, || async {
            self.objects().list(Some(key)).map_ok(|meta| meta.location).try_collect().await
        });
        self.delete_all(keys.await?, patience).await
    }

    /// Removes the empty folders below a key, which only file stores have.
    pub(super) async fn tidy(&self, key: &Path) {
        let Parts::Files(files) = self.parts() else { return };
        let Ok(path) = files.path_to_filesystem(key) else { return };
        // A folder that stays is in nobody's way: listings look for objects.
        let _ = self.runtime().spawn_blocking(move || local::remove_empty(&path)).await;
    }

    /// The first key below another, whichever it is.
    pub(super) async fn anything(&self, key: &Path, patience: &Patience) -> Result<Option<Path>, Failed> {
        persist(self.subject("list", key), patience, || async {
            self.objects().list(Some(key)).map_ok(|meta| meta.location).next().await.transpose()
        })
        .await
    }

    /// Deletes many objects, some at a time.
    pub(super) async fn delete_all(&self, keys: Vec<Path>, patience: &Patience) -> Result<(), Failed> {
        let deletes = futures::stream::iter(keys).map(|key| async move { self.delete(&key, patience).await });
        deletes.buffer_unordered(FAN_OUT).try_collect().await
    }
}

fn is_no_bucket(text: &str) -> bool {
    text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
}

fn tag(tag: Option<String>, version: Option<String>) -> Version {
    Version::Tag(Mark { tag, version })
}

/// When the store says that the object was written.
fn written(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn short_answer(got: usize, wanted: u64) -> object_store::Error {
    // Said like the broken answers that the crate itself reports, so that it is asked for again.
    object_store::Error::Generic {
        store: "store",
        source: format!("answer with {got} bytes of a body of {wanted}").into(),
    }
}
