//! Reading what a repository has. Nothing here writes, but for the clock object when a lease must be judged.
//!
//! ```text
//!   backups/<id>/  manifest.json  tombstone.json  lease.json  state
//!                  commit         -               any         Complete
//!                  commit         yes             any         Deleted, remains
//!                  tombstone      any             any         Deleted
//!                  other          any             any         Damaged
//!                  -              any             fresh       Running
//!                  -              any             old, none   Stale
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::PutPayload;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::archive::id::{AttemptId, BackupId};
use crate::archive::object::ObjectSource;
use crate::util::clock;

use super::client::{Client, FAN_OUT, Record};
use super::connect::IfMissing;
use super::download::Source;
use super::error::StoreError;
use super::explain::Class;
use super::layout::{Layout, Member};
use super::marks::Marks;
use super::record::{Head, LeaseRecord, Tombstone};
use super::retry::Failed;
use super::settings::StoreSettings;
use super::url::StoreUrl;

/// A place where backups are kept. Clones share one connection.
#[derive(Clone)]
pub struct Repository {
    pub(super) client: Client,
    pub(super) layout: Layout,
}

/// One id that a repository knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// The id.
    pub id: BackupId,
    /// What is there of it.
    pub state: BackupState,
    /// What is said of it. Marks that cannot be read may hold a pin: they are shown as one.
    pub marks: Marks,
}

/// What is there of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BackupState {
    /// It was committed.
    Complete {
        /// The manifest as stored; below 1 MiB.
        #[serde(with = "super::ask::manifest_text")]
        manifest: Vec<u8>,
    },
    /// Its run is at work.
    Running,
    /// Its run died.
    Stale,
    /// It was deleted, or its dead run's remains were.
    Deleted {
        /// Objects of it are still there: the store keeps them, or the deletion was interrupted.
        remains: bool,
    },
    /// Its manifest cannot be read.
    Damaged {
        /// What is wrong with it.
        why: String,
    },
}

impl Repository {
    /// Connects to a store as this process's environment says. Sends nothing yet; the directory of a `file://` store
    /// is made if only its last part is missing.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        Self::open_with(url, StoreSettings::from_env(), true).await
    }

    /// Connects with settings of the caller's. Without `create`, a directory that is missing is an error.
    #[expect(clippy::unused_async, reason = "opening needs the runtime, and may ask the store one day")]
    pub async fn open_with(url: &StoreUrl, settings: StoreSettings, create: bool) -> Result<Self, StoreError> {
        let missing = if create { IfMissing::Create } else { IfMissing::Refuse };
        Ok(Self { client: Client::open(url, settings, missing)?, layout: Layout::new(url.base()) })
    }

    /// Its address.
    pub fn url(&self) -> &StoreUrl {
        self.client.url()
    }

    /// Everything that is there, oldest first, manifests included: for whoever needs them all at once.
    pub async fn list(&self) -> Result<Vec<StoredBackup>, StoreError> {
        let mut all = Vec::new();
        self.list_each(|stored| all.push(stored)).await?;
        Ok(all)
    }

    /// Shows everything that is there, oldest first, one by one: of the manifests, a few are in memory at a time.
    pub async fn list_each(&self, mut show: impl FnMut(StoredBackup)) -> Result<(), StoreError> {
        let now = OnceCell::new();
        let looks = futures::stream::iter(self.ids().await?).map(|id| {
            let now = &now;
            async move {
                let Some((state, marked)) = self.look(&id, now).await? else { return Ok(None) };
                let marks = if marked { self.shown_marks(&id).await? } else { Marks::default() };
                Ok::<_, StoreError>(Some(StoredBackup { id, state, marks }))
            }
        });
        let mut looks = std::pin::pin!(looks.buffered(FAN_OUT));
        while let Some(found) = looks.try_next().await? {
            if let Some(stored) = found {
                show(stored);
            }
        }
        Ok(())
    }

    /// What is there of one id; `None` if nothing.
    pub async fn state(&self, id: &BackupId) -> Result<Option<BackupState>, StoreError> {
        Ok(self.look(id, &OnceCell::new()).await?.map(|(state, _)| state))
    }

    async fn shown_marks(&self, id: &BackupId) -> Result<Marks, StoreError> {
        match self.read_marks(id).await {
            Err(StoreError::Damaged { object, why }) => {
                tracing::warn!(object, why, "the marks of a backup cannot be read");
                Ok(Marks { pinned: true, ..Marks::default() })
            }
            read => read,
        }
    }

    /// The id meant by a name (its newest complete backup) or an id. An id needs no permission to list.
    pub async fn resolve(&self, name_or_id: &str) -> Result<BackupId, StoreError> {
        if let Ok(id) = name_or_id.parse::<BackupId>() {
            self.read_manifest(&id).await?;
            return Ok(id);
        }
        let mut incomplete = None;
        let ids = self.ids().await?;
        for id in ids.into_iter().rev().filter(|id| id.name() == name_or_id) {
            match self.read_manifest(&id).await {
                Ok(_) => return Ok(id),
                // An older one may be whole; the newest that is not explains why none is, if none is.
                Err(error @ (StoreError::Incomplete { .. } | StoreError::Damaged { .. })) => {
                    incomplete.get_or_insert(error);
                }
                Err(StoreError::Deleted { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(incomplete.unwrap_or_else(|| self.not_found(name_or_id)))
    }

    /// A complete backup's manifest as stored.
    pub async fn read_manifest(&self, id: &BackupId) -> Result<Vec<u8>, StoreError> {
        let patience = self.client.first();
        let key = self.layout.manifest(id);
        let record = match self.client.get(&key, &patience).await {
            Ok(record) => record,
            Err(failed) if failed.is(Class::Missing) => return Err(self.incomplete(id).await?),
            Err(failed) => return Err(failed.into()),
        };
        match Head::decode(id, &record.bytes) {
            Ok(Head::Manifest { .. }) => {}
            Ok(Head::Tombstone) => return Err(StoreError::Deleted { id: id.clone() }),
            Err(why) => return Err(StoreError::Damaged { object: self.url().of(&key), why }),
        }
        if self.is_condemned(id).await? {
            return Err(StoreError::Deleted { id: id.clone() });
        }
        Ok(record.bytes.into())
    }

    /// The wrapped data keys for these key ids, which the manifest names, as it does the attempt. Needs no permission to list.
    pub async fn read_keys(
        &self,
        id: &BackupId,
        attempt: &AttemptId,
        key_ids: &[String],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let patience = self.client.first();
        let mut keys = Vec::with_capacity(key_ids.len());
        for key_id in key_ids {
            let found = match self.client.get(&self.layout.key(id, attempt, key_id), &patience).await {
                // Without permission to list, a store may say "denied" of what is missing.
                Err(failed) if failed.is(Class::Missing) || failed.is(Class::Denied) => {
                    self.client.get(&self.layout.old_key(id, key_id), &patience).await
                }
                found => found,
            };
            keys.push(found?.bytes.into());
        }
        Ok(keys)
    }

    /// The objects of one attempt, to be read from plain threads.
    pub fn objects(&self, id: &BackupId, attempt: &AttemptId, cancel: &CancellationToken) -> Arc<dyn ObjectSource> {
        Arc::new(Source::new(self.clone(), id.clone(), attempt.clone(), cancel.clone()))
    }

    /// All ids, oldest first.
    pub(super) async fn ids(&self) -> Result<Vec<BackupId>, StoreError> {
        let listed = self.client.folder(&self.layout.backups(), &self.client.first()).await?;
        let mut ids: Vec<BackupId> =
            listed.folders.iter().filter_map(|key| key.filename()?.parse::<BackupId>().ok()).collect();
        ids.sort_by(|a, b| (a.start(), a).cmp(&(b.start(), b)));
        Ok(ids)
    }

    /// Whether a deletion of a complete backup has begun. Without permission to list, a store may say "denied" of what
    /// is missing.
    pub(super) async fn is_condemned(&self, id: &BackupId) -> Result<bool, StoreError> {
        match self.client.get(&self.layout.tombstone(id), &self.client.first()).await {
            Ok(found) => Ok(Tombstone::condemns(&found.bytes)),
            Err(failed) if failed.is(Class::Missing) || failed.is(Class::Denied) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    /// The lease of an id, if there is one.
    pub(super) async fn lease(&self, id: &BackupId) -> Result<Option<(LeaseRecord, Record)>, StoreError> {
        let key = self.layout.lease(id);
        let record = match self.client.get(&key, &self.client.first()).await {
            Ok(record) => record,
            Err(failed) if failed.is(Class::Missing) => return Ok(None),
            Err(failed) => return Err(failed.into()),
        };
        match serde_json::from_slice::<LeaseRecord>(&record.bytes) {
            Ok(lease) => Ok(Some((lease, record))),
            Err(error) => Err(StoreError::Damaged { object: self.url().of(&key), why: error.to_string() }),
        }
    }

    /// The time by the store's own clock: that at which it dates an object written now.
    pub(super) async fn store_now(&self) -> Result<Timestamp, Failed> {
        let (key, patience) = (self.layout.clock(), self.client.first());
        // Not twice the same bytes: some file systems and caches keep the date of what did not change.
        let mark = AttemptId::generate().to_string();
        self.client.put(&key, PutPayload::from(mark.into_bytes()), &patience).await?;
        Ok(self.client.stat(&key, &patience).await?.written)
    }

    /// Why an id without a manifest has none.
    async fn incomplete(&self, id: &BackupId) -> Result<StoreError, StoreError> {
        let state = match self.lease(id).await? {
            None => return Ok(self.not_found(id.as_str())),
            Some((lease, record)) if is_live(&lease, record.written, self.now_or_ours().await) => "its run is at work",
            Some(_) => "its run died",
        };
        Ok(StoreError::Incomplete { id: id.clone(), state })
    }

    fn not_found(&self, backup: &str) -> StoreError {
        StoreError::NotFound { backup: backup.to_owned(), url: self.url().to_string() }
    }

    /// The store's time, or ours if it may not be asked. For what is only shown.
    async fn now_or_ours(&self) -> Timestamp {
        match self.store_now().await {
            Ok(now) => now,
            Err(failed) => {
                tracing::debug!(cause = %failed.cause(), "the store's clock cannot be read, taking this machine's");
                clock::now()
            }
        }
    }

    /// What is there of an id, and whether marks of it are.
    async fn look(&self, id: &BackupId, now: &OnceCell<Timestamp>) -> Result<Option<(BackupState, bool)>, StoreError> {
        let patience = self.client.first();
        let folder = self.client.folder(&self.layout.backup(id), &patience).await?;
        let has = |member| folder.objects.iter().any(|stat| Member::of(&stat.key) == member);
        if has(Member::Manifest) {
            let record = match self.client.get(&self.layout.manifest(id), &patience).await {
                Ok(record) => record,
                Err(failed) if failed.is(Class::Missing) => return Ok(None),
                Err(failed) if failed.is(Class::Final) => {
                    return Ok(Some((BackupState::Damaged { why: failed.cause().to_string() }, false)));
                }
                Err(failed) => return Err(failed.into()),
            };
            let remains = !folder.folders.is_empty() || has(Member::Lease);
            let state = match Head::decode(id, &record.bytes) {
                Ok(Head::Tombstone) => BackupState::Deleted { remains },
                Ok(Head::Manifest { .. }) if has(Member::Tombstone) && self.is_condemned(id).await? => {
                    BackupState::Deleted { remains: true }
                }
                Ok(Head::Manifest { .. }) => BackupState::Complete { manifest: record.bytes.into() },
                Err(why) => BackupState::Damaged { why },
            };
            let marked = matches!(state, BackupState::Complete { .. }) && has(Member::Marks);
            return Ok(Some((state, marked)));
        }
        // A folder may be all that is there: file stores have empty ones.
        if folder.objects.is_empty()
            && (folder.folders.is_empty() || self.client.anything(&self.layout.backup(id), &patience).await?.is_none())
        {
            return Ok(None);
        }
        let lease = if has(Member::Lease) { self.lease(id).await.or_else(damaged_is_none)? } else { None };
        let Some((lease, record)) = lease else { return Ok(Some((BackupState::Stale, false))) };
        let now = *now.get_or_init(|| self.now_or_ours()).await;
        let state = if is_live(&lease, record.written, now) { BackupState::Running } else { BackupState::Stale };
        Ok(Some((state, false)))
    }
}

/// Whether a lease that was last written at `written` holds at `now`, both by the store's clock.
pub(super) fn is_live(lease: &LeaseRecord, written: Timestamp, now: Timestamp) -> bool {
    // Stores date objects by whole seconds.
    let valid = Duration::from_secs(lease.valid_seconds.saturating_add(1));
    let age = now.duration_since(written);
    age.is_negative() || age.unsigned_abs() <= valid
}

/// A lease that cannot be read protects nobody: no run of ours wrote it.
pub(super) fn damaged_is_none<T>(error: StoreError) -> Result<Option<T>, StoreError> {
    match error {
        StoreError::Damaged { .. } => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_for_its_time_by_one_clock() {
        let lease = LeaseRecord {
            id: "n-20260314T150926Z-1a2b3c4d".parse().unwrap(),
            attempt: AttemptId::generate(),
            parent: None,
            sequence: 0,
            valid_seconds: 60,
            uploads: Vec::new(),
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        for (now, live) in [(900, true), (1000, true), (1061, true), (1062, false), (99_999, false)] {
            assert_eq!(is_live(&lease, at(1000), at(now)), live, "{now}");
        }
    }
}
