//! A run's lease: an object that it renews while it works, so that others leave its backup alone.
//!
//! ```text
//!   every 10 s   swap lease (compare-and-swap) ► look at the manifest's key
//!                   │ not ours any more              │ tombstone, or another attempt's commit
//!                   └──────────────► lost ◄──────────┘
//!   store unreachable: goes on trying; lost only when that lasted as long as any request is tried
//! ```
//!
//! Others judge a lease by the store's clock alone: when it dates the lease, and when it dates an object written now.
//! A lease that merely expired is not lost: who wants the id must claim it by a tombstone, and that is seen here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::MultipartId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::archive::id::{AttemptId, BackupId};

use super::client::Version;
use super::error::StoreError;
use super::explain::Class;
use super::record::{Head, LeaseRecord, OpenUpload, encode};
use super::repository::Repository;
use super::retry::Patience;

/// As many as a lease names; more are only found by the store's own rules for unfinished uploads.
const MAX_NAMED_UPLOADS: usize = 64;
const RENEWAL_TRY: Duration = Duration::from_secs(10);

/// Uploads in parts that have begun and not ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<BTreeMap<String, MultipartId>>>);

impl Uploads {
    pub(super) fn begin(&self, name: &str, upload: &MultipartId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), upload.clone());
    }

    pub(super) fn end(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn open(&self) -> Vec<OpenUpload> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(name, upload)| OpenUpload { name: name.clone(), upload: upload.clone() }).collect()
    }
}

/// How a lease was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lost {
    /// There is a tombstone.
    Claimed,
    /// Another attempt committed.
    Committed(AttemptId),
    /// Another attempt has it, or it is gone.
    Taken(String),
    /// It could not be renewed for too long.
    Silent(String),
}

impl Lost {
    fn error(self, id: BackupId) -> StoreError {
        match self {
            Self::Claimed => StoreError::Claimed { id },
            Self::Committed(attempt) => StoreError::Committed { id, attempt },
            Self::Taken(why) | Self::Silent(why) => StoreError::LeaseLost { id, why },
        }
    }
}

/// Renews a lease until it is told to stop, dropped, or the lease is lost.
pub(super) struct Keeper {
    id: BackupId,
    stop: CancellationToken,
    lost: watch::Receiver<Option<Lost>>,
    task: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts renewing the lease `record`, which is stored as `version`.
    pub(super) fn start(repository: Repository, record: LeaseRecord, version: Version, uploads: Uploads) -> Self {
        let (report, lost) = watch::channel(None);
        let stop = CancellationToken::new();
        let id = record.id.clone();
        let runtime = repository.client.runtime().clone();
        let holder = Holder { repository, record, version, uploads };
        let task = Some(runtime.spawn(holder.keep(stop.clone(), report)));
        Self { id, stop, lost, task }
    }

    /// Resolves when the lease is lost; never otherwise.
    pub(super) fn lost(&self) -> impl Future<Output = StoreError> + Send + 'static + use<> {
        let (mut lost, id) = (self.lost.clone(), self.id.clone());
        async move {
            let found = lost.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            match found {
                Some(found) => found.error(id),
                // Stopped in good order.
                None => std::future::pending().await,
            }
        }
    }

    /// The loss, if it happened.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.lost.borrow().clone() {
            Some(lost) => Err(lost.error(self.id.clone())),
            None => Ok(()),
        }
    }

    /// Stops renewing; when this returns, no renewal is on its way.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // A task that ended by itself has reported why.
            let _ = task.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Holder {
    repository: Repository,
    record: LeaseRecord,
    version: Version,
    uploads: Uploads,
}

/// A renewal that did not work.
enum Trouble {
    Lost(Lost),
    /// Worth another try.
    Failed(String),
}

impl Holder {
    async fn keep(mut self, stop: CancellationToken, report: watch::Sender<Option<Lost>>) {
        let settings = self.repository.client.settings();
        let (every, give_up) = (settings.lease_every, settings.patience.max(settings.lease_valid));
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let lost = match self.renew().await {
                Ok(()) => {
                    renewed = Instant::now();
                    continue;
                }
                Err(Trouble::Lost(lost)) => lost,
                Err(Trouble::Failed(why)) if renewed.elapsed() < give_up => {
                    tracing::warn!(backup = %self.record.id, why, "the lease could not be renewed, trying again");
                    continue;
                }
                Err(Trouble::Failed(why)) => {
                    Lost::Silent(format!("not renewed for {} s: {why}", renewed.elapsed().as_secs()))
                }
            };
            // The run may have ended meanwhile; then nobody needs to know.
            let _ = report.send(Some(lost));
            return;
        }
    }

    async fn renew(&mut self) -> Result<(), Trouble> {
        let patience = one_try();
        let key = self.repository.layout.lease(&self.record.id);
        self.record.sequence = self.record.sequence.saturating_add(1);
        self.record.uploads = self.uploads.open();
        self.record.uploads.truncate(MAX_NAMED_UPLOADS);
        let bytes = Bytes::from(encode(&self.record));
        if matches!(&self.version, Version::Content(_)) && self.is_cloud() {
            self.adopt(&bytes).await?;
        }
        match self.repository.client.swap(&key, &self.version, bytes.clone(), &patience).await {
            Ok(version) => self.version = self.kept(version, &bytes),
            Err(failed) if failed.is(Class::Unsupported) => {
                tracing::info!("the store has no compare-and-swap; leases are compared by reading");
                self.version = Version::Content(bytes);
                return Err(Trouble::Failed(failed.cause().to_string()));
            }
            // Perhaps our own last renewal, whose answer was lost.
            Err(failed) if failed.is(Class::Changed) || failed.is(Class::Missing) || failed.is(Class::Exists) => {
                if !self.adopt(&bytes).await? {
                    return Err(Trouble::Failed("an earlier renewal came late".to_owned()));
                }
            }
            Err(failed) => {
                self.look_for_claim().await?;
                return Err(Trouble::Failed(failed.cause().to_string()));
            }
        }
        self.look_for_claim().await
    }

    /// Reads the lease back. If it is still this attempt's, takes over its version and says whether it is `newest`.
    async fn adopt(&mut self, newest: &Bytes) -> Result<bool, Trouble> {
        self.look_for_claim().await?;
        let key = self.repository.layout.lease(&self.record.id);
        let found = match self.repository.client.get(&key, &one_try()).await {
            Ok(found) => found,
            Err(failed) if failed.is(Class::Missing) => {
                return Err(Trouble::Lost(Lost::Taken("it was deleted".to_owned())));
            }
            Err(failed) => return Err(Trouble::Failed(failed.cause().to_string())),
        };
        match serde_json::from_slice::<LeaseRecord>(&found.bytes) {
            Ok(lease) if lease.attempt == self.record.attempt => {
                self.version = self.kept(found.version, &found.bytes);
                Ok(found.bytes == *newest)
            }
            Ok(lease) => Err(Trouble::Lost(Lost::Taken(format!("attempt {} has it", lease.attempt)))),
            Err(error) => Err(Trouble::Lost(Lost::Taken(format!("it was overwritten: {error}")))),
        }
    }

    /// Keeps comparing by content once the store turned out to compare nothing itself.
    fn kept(&self, version: Version, bytes: &Bytes) -> Version {
        match self.version {
            Version::Content(_) => Version::Content(bytes.clone()),
            Version::Tag(_) => version,
        }
    }

    async fn look_for_claim(&self) -> Result<(), Trouble> {
        let key = self.repository.layout.manifest(&self.record.id);
        // Missing is as it should be, and "denied" is what it looks like without permission to list. Any other
        // failure is the renewal's to report.
        let Ok(found) = self.repository.client.get(&key, &one_try()).await else { return Ok(()) };
        match Head::decode(&self.record.id, &found.bytes) {
            Ok(Head::Tombstone) => Err(Trouble::Lost(Lost::Claimed)),
            Ok(Head::Manifest { attempt, .. }) if attempt != self.record.attempt => {
                Err(Trouble::Lost(Lost::Committed(attempt)))
            }
            _ => Ok(()),
        }
    }

    fn is_cloud(&self) -> bool {
        matches!(self.repository.client.parts(), super::connect::Parts::Cloud(_))
    }
}

/// One try: the next renewal is the next.
fn one_try() -> Patience {
    Patience { attempt: RENEWAL_TRY, total: Duration::ZERO, cancel: CancellationToken::new() }
}
