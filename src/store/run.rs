//! One attempt at making a backup: its lease, its uploads, its commit.
//!
//! ```text
//!   begin ─ lease created ─► sink, put_key … ─► prove ─► commit ─────────────► finish   lease removed
//!                              │                            │ failed
//!                              └────────────► abandon ◄─────┘  tombstone first if a commit may still arrive,
//!                                                              then own data, then the lease
//! ```

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::archive::id::{AttemptId, BackupId};
use crate::archive::object::ObjectSink;
use crate::util::backoff::Backoff;
use crate::util::clock;

use super::client::{FAN_OUT, Version};
use super::connect::Parts;
use super::error::StoreError;
use super::explain::Class;
use super::lease::{Keeper, Uploads};
use super::record::{Head, LeaseRecord, Tombstone, encode};
use super::repository::{Repository, damaged_is_none, is_live};
use super::retry::Patience;
use super::upload::Sink;

/// How long `abandon` may take; what it does not reach is found by `remove_stale`.
const ABANDON_TIME: Duration = Duration::from_mins(1);
/// How often a create is repeated that was refused although nothing is there.
const CONFLICT_TRIES: u32 = 8;

/// What a run is told besides its ids.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The backup that this one builds on; it cannot be deleted meanwhile.
    pub parent: Option<BackupId>,
    /// Ends the run's requests.
    pub cancel: CancellationToken,
}

/// A run at work. Dropped, it stops renewing its lease and so becomes stale.
pub struct Run {
    shared: Arc<Shared>,
    keeper: Keeper,
}

/// What a run's uploads share with it.
pub(super) struct Shared {
    pub(super) repository: Repository,
    pub(super) id: BackupId,
    pub(super) attempt: AttemptId,
    pub(super) cancel: CancellationToken,
    pub(super) uploads: Uploads,
    /// Every object that was begun: about 100 bytes each, so that they can be removed without permission to list.
    written: Mutex<BTreeSet<Path>>,
    commit_tried: AtomicBool,
}

impl Shared {
    pub(super) fn remember(&self, key: Path) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    fn forget_all(&self) -> Vec<Path> {
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

impl Repository {
    /// Begins a run: from here on others leave the id alone.
    pub async fn begin(&self, id: &BackupId, attempt: &AttemptId) -> Result<Run, StoreError> {
        self.begin_with(id, attempt, RunOptions::default()).await
    }

    /// Begins a run that has a parent, or that can be cancelled.
    pub async fn begin_with(&self, id: &BackupId, attempt: &AttemptId, options: RunOptions) -> Result<Run, StoreError> {
        let RunOptions { parent, cancel } = options;
        self.refuse_decided(id).await?;
        let record = LeaseRecord {
            id: id.clone(),
            attempt: attempt.clone(),
            parent: parent.clone(),
            sequence: 0,
            valid_seconds: self.client.settings().lease_valid.as_secs(),
            uploads: Vec::new(),
        };
        let version = self.take_lease(&record).await?;
        let shared = Arc::new(Shared {
            repository: self.clone(),
            id: id.clone(),
            attempt: attempt.clone(),
            cancel: cancel.child_token(),
            uploads: Uploads::default(),
            written: Mutex::default(),
            commit_tried: AtomicBool::new(false),
        });
        let keeper = Keeper::start(self.clone(), record, version, shared.uploads.clone());
        let run = Run { shared, keeper };
        // After the lease names the parent: a deletion either sees the lease, or is seen here.
        if let Some(parent) = parent
            && let Err(error) = self.read_manifest(&parent).await
        {
            run.abandon().await;
            return Err(error);
        }
        Ok(run)
    }

    /// Fails if the id is committed or claimed already.
    async fn refuse_decided(&self, id: &BackupId) -> Result<(), StoreError> {
        let key = self.layout.manifest(id);
        let found = match self.client.get(&key, &self.client.first()).await {
            Ok(found) => found,
            // Without permission to list, this is what missing looks like. The commit will tell.
            Err(failed) if failed.is(Class::Missing) || failed.is(Class::Denied) => return Ok(()),
            Err(failed) => return Err(failed.into()),
        };
        match Head::decode(id, &found.bytes) {
            Ok(Head::Tombstone) => Err(StoreError::Claimed { id: id.clone() }),
            Ok(Head::Manifest { attempt, .. }) => Err(StoreError::Committed { id: id.clone(), attempt }),
            Err(why) => Err(StoreError::Damaged { object: self.url().of(&key), why }),
        }
    }

    /// Creates the lease, or takes over that of a dead attempt.
    async fn take_lease(&self, record: &LeaseRecord) -> Result<Version, StoreError> {
        let (key, patience) = (self.layout.lease(&record.id), self.client.first());
        let bytes = Bytes::from(encode(record));
        let failed = match self.client.create(&key, bytes.clone().into(), &patience).await {
            Ok(version) => return Ok(version),
            Err(failed) => failed,
        };
        let held = |by: &AttemptId| StoreError::Protected {
            id: record.id.clone(),
            why: format!("attempt {by} is at work on it"),
        };
        let version = match self.lease(&record.id).await {
            Ok(None) => return Err(failed.into()),
            Ok(Some((lease, found))) if lease.attempt == record.attempt => return Ok(found.version),
            Ok(Some((lease, found))) if is_live(&lease, found.written, self.store_now().await?) => {
                return Err(held(&lease.attempt));
            }
            Ok(Some((_, found))) => found.version,
            Err(StoreError::Damaged { .. }) => self.client.get(&key, &patience).await?.version,
            Err(error) => return Err(error),
        };
        match self.client.swap(&key, &version, bytes.clone(), &patience).await {
            Ok(version) => Ok(version),
            Err(failed) => match self.lease(&record.id).await.or_else(damaged_is_none)? {
                Some((lease, found)) if lease.attempt == record.attempt => Ok(found.version),
                Some((lease, _)) if failed.is(Class::Changed) => Err(held(&lease.attempt)),
                _ => Err(failed.into()),
            },
        }
    }

    /// Creates `bytes` at the manifest's key unless something is there, and says what is there in the end. The one
    /// place where a backup's fate is decided.
    pub(super) async fn settle(&self, id: &BackupId, bytes: &Bytes, patience: &Patience) -> Result<Head, StoreError> {
        let key = self.layout.manifest(id);
        let decode = |bytes: &[u8]| {
            Head::decode(id, bytes).map_err(|why| StoreError::Damaged { object: self.url().of(&key), why })
        };
        let mine = decode(bytes)?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        loop {
            let Err(failed) = self.client.create(&key, bytes.clone().into(), patience).await else { return Ok(mine) };
            if failed.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            // Refused, or unclear: the answer may be lost and the object there.
            match self.client.get(&key, patience).await {
                Ok(found) if found.bytes == *bytes => return Ok(mine),
                Ok(found) => return decode(&found.bytes),
                // A store may call two creates at once a conflict and do neither.
                Err(missing)
                    if missing.is(Class::Missing)
                        && failed.is(Class::Exists)
                        && backoff.attempts() < CONFLICT_TRIES =>
                {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(unread) if unread.is_cancelled() => return Err(StoreError::Cancelled),
                Err(_) => return Err(failed.into()),
            }
        }
    }

    /// Puts a tombstone where the manifest would be. Says what is there in the end.
    pub(super) async fn bury(&self, id: &BackupId, reason: &str, patience: &Patience) -> Result<Head, StoreError> {
        let tombstone = Bytes::from(encode(&Tombstone::new(id, reason, clock::now())));
        self.settle(id, &tombstone, patience).await
    }
}

impl Run {
    /// The backup's id.
    pub fn id(&self) -> &BackupId {
        &self.shared.id
    }

    /// This attempt's id.
    pub fn attempt(&self) -> &AttemptId {
        &self.shared.attempt
    }

    /// Takes this attempt's objects, from plain threads.
    pub fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::new(Sink::new(self.shared.clone()))
    }

    /// Resolves when somebody else took the backup away, or when nobody could be told for minutes that this run is
    /// alive. Never resolves otherwise.
    pub fn lease_lost(&self) -> impl Future<Output = StoreError> + Send + 'static + use<> {
        self.keeper.lost()
    }

    /// Stores a data key that is wrapped for one recipient.
    pub async fn put_key(&self, key_id: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let Shared { repository, id, attempt, cancel, .. } = &*self.shared;
        // Below the attempt, as its data is: another one at this id has another data key, and may be the one that commits.
        let (key, bytes) = (repository.layout.key(id, attempt, key_id), Bytes::from(bytes));
        self.shared.remember(key.clone());
        let patience = repository.client.steady(cancel);
        let Err(failed) = repository.client.create(&key, bytes.clone().into(), &patience).await else { return Ok(()) };
        match repository.client.get(&key, &patience).await {
            Ok(found) if found.bytes == bytes => Ok(()),
            _ => Err(failed.into()),
        }
    }

    /// Proves that each of this attempt's objects is there with its size.
    pub async fn prove(&self, objects: &[(String, u64)]) -> Result<(), StoreError> {
        let Shared { repository, id, attempt, cancel, .. } = &*self.shared;
        let patience = repository.client.steady(cancel);
        let stats = futures::stream::iter(objects).map(|(name, size)| {
            let key = repository.layout.object(id, attempt, name);
            let patience = &patience;
            async move {
                let found = repository.client.stat(&key, patience).await?.size;
                if found == *size {
                    return Ok(());
                }
                let why = format!("it has {found} bytes, {size} were stored");
                Err(StoreError::Damaged { object: repository.url().of(&key), why })
            }
        });
        stats.buffer_unordered(FAN_OUT).try_collect().await
    }

    /// Makes the backup exist. `Ok` means that this attempt's manifest is there; after any error, `abandon`.
    pub async fn commit(&self, manifest: &[u8]) -> Result<(), StoreError> {
        self.keeper.check()?;
        let Shared { repository, id, attempt, cancel, commit_tried, .. } = &*self.shared;
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        commit_tried.store(true, Ordering::SeqCst);
        let manifest = Bytes::copy_from_slice(manifest);
        match repository.settle(id, &manifest, &repository.client.steady(cancel)).await? {
            Head::Manifest { attempt: found, .. } if found == *attempt => Ok(()),
            Head::Manifest { attempt: found, .. } => Err(StoreError::Committed { id: id.clone(), attempt: found }),
            Head::Tombstone => Err(StoreError::Claimed { id: id.clone() }),
        }
    }

    /// Ends a run that committed: removes the lease. A store that forbids it keeps a lease that expires.
    pub async fn finish(mut self) {
        self.keeper.stop().await;
        let Shared { repository, id, .. } = &*self.shared;
        if let Err(failed) = repository.client.delete(&repository.layout.lease(id), &repository.client.first()).await {
            tracing::debug!(backup = %id, cause = %failed.cause(), "the lease could not be removed");
        }
    }

    /// Ends a run that failed: removes its own data where the store allows it, within a minute. Best effort; what is
    /// left is what `remove_stale` removes.
    pub async fn abandon(mut self) {
        self.shared.cancel.cancel();
        self.keeper.stop().await;
        let id = self.shared.id.clone();
        match tokio::time::timeout(ABANDON_TIME, self.shared.clear()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(backup = %id, %error, "the remains of the failed run stay in the store"),
            Err(_) => tracing::info!(backup = %id, "no time to remove all remains of the failed run"),
        }
    }
}

impl Shared {
    async fn clear(&self) -> Result<(), StoreError> {
        let Self { repository, id, attempt, .. } = self;
        let patience = repository.client.first();
        for upload in self.uploads.open() {
            let key = repository.layout.object(id, attempt, &upload.name);
            if let Parts::Cloud(store) = repository.client.parts() {
                // Ended meanwhile, or forbidden: nothing that could be done about either.
                let _ = store.abort_multipart(&key, &upload.upload).await;
            }
        }
        // A commit whose answer was lost, or that is still on its way, must not arrive over deleted data.
        if self.commit_tried.load(Ordering::SeqCst) {
            match repository.bury(id, "abandoned", &patience).await? {
                Head::Manifest { attempt: found, .. } if found == *attempt => {
                    tracing::warn!(backup = %id, "the commit arrived after all: the backup is complete and stays");
                    return Ok(());
                }
                Head::Manifest { .. } | Head::Tombstone => {}
            }
        }
        repository.client.delete_all(self.forget_all(), &patience).await?;
        if let Parts::Files(_) = repository.client.parts() {
            // Half-written files are in no listing, and would be in everybody's way for ever.
            repository.client.delete_below(&repository.layout.attempt(id, attempt), &patience).await?;
        }
        self.drop_lease(&patience).await?;
        repository.client.tidy(&repository.layout.backup(id)).await;
        Ok(())
    }

    /// Removes the lease if it is this attempt's.
    async fn drop_lease(&self, patience: &Patience) -> Result<(), StoreError> {
        match self.repository.lease(&self.id).await? {
            Some((lease, _)) if lease.attempt == self.attempt => {
                Ok(self.repository.client.delete(&self.repository.layout.lease(&self.id), patience).await?)
            }
            _ => Ok(()),
        }
    }
}
