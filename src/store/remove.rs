//! Taking backups away, so that nothing half-deleted can be taken for a backup and nothing in use goes.
//!
//! ```text
//!   complete backup:   tombstone.json beside ► pinned? children? ► it is final ► tombstone over the manifest ► data, keys, …
//!                                                  │ yes: withdrawn, Pinned, Protected     (from here there is no way back)
//!   dead run:          lease expired? ► tombstone at the manifest's key ► data, keys, lease
//! ```
//!
//! The tombstone at the manifest's key stays for good: a stopped process may wake up at any time and try to commit.
//! A run that builds on a backup writes its lease first and then looks for a tombstone; a deletion writes the
//! tombstone first and then looks for leases. So at least one of the two sees the other. The tombstone beside is
//! taken, withdrawn and made final only by compare-and-swap, so that no deletion rests on what another one withdrew.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::archive::id::BackupId;
use crate::util::clock;

use super::client::{FAN_OUT, Version};
use super::connect::Parts;
use super::error::StoreError;
use super::explain::Class;
use super::record::{Head, LeaseRecord, Tombstone, encode};
use super::repository::{Repository, damaged_is_none, is_live};

/// How often the tombstone beside is fought for.
const SWAP_TRIES: u32 = 5;

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// The store keeps it: deleting (or listing, without which nothing is found) is not allowed.
    Retained,
}

/// A tombstone beside a manifest.
enum Condemned {
    /// This deletion's own; something may speak against it yet.
    Now(Version),
    /// That of a deletion for which all was looked at, and which only was not carried out yet.
    Before,
}

impl Repository {
    /// Deletes a backup. One that is pinned, or that a run or another backup builds on, is protected, and so is one
    /// whose run is at work.
    pub async fn delete(&self, id: &BackupId) -> Result<Removal, StoreError> {
        match self.head(id).await? {
            Some(Ok(Head::Tombstone)) => self.clear(id).await,
            Some(Ok(Head::Manifest { .. }) | Err(_)) => self.delete_complete(id).await,
            None => self.remove_run(id).await,
        }
    }

    /// Removes what a dead run left, or an interrupted deletion. Never touches a run at work or a complete backup.
    pub async fn remove_stale(&self, id: &BackupId) -> Result<Removal, StoreError> {
        match self.head(id).await? {
            Some(Ok(Head::Tombstone)) => self.clear(id).await,
            Some(_) if self.is_condemned(id).await? => self.delete_complete(id).await,
            Some(Ok(Head::Manifest { .. })) => Err(StoreError::Complete { id: id.clone() }),
            Some(Err(why)) => Err(StoreError::Damaged { object: self.url().of(&self.layout.manifest(id)), why }),
            None => self.remove_run(id).await,
        }
    }

    /// Takes the id away from a run at work that cannot be stopped otherwise: it sees that within seconds, gives up and
    /// can never commit. `false`: the backup is complete, and stays.
    pub async fn call_off(&self, id: &BackupId) -> Result<bool, StoreError> {
        Ok(self.bury(id, "called off", &self.client.first()).await? == Head::Tombstone)
    }

    /// What is at the manifest's key: nothing, a readable head, or why it is not readable.
    async fn head(&self, id: &BackupId) -> Result<Option<Result<Head, String>>, StoreError> {
        match self.client.get(&self.layout.manifest(id), &self.client.first()).await {
            Ok(found) => Ok(Some(Head::decode(id, &found.bytes))),
            Err(failed) if failed.is(Class::Missing) => Ok(None),
            Err(failed) if failed.is(Class::Final) => Ok(Some(Err(failed.cause().to_string()))),
            Err(failed) => Err(failed.into()),
        }
    }

    /// An id without manifest: a run that works, or died.
    async fn remove_run(&self, id: &BackupId) -> Result<Removal, StoreError> {
        let patience = self.client.first();
        match self.lease(id).await.or_else(damaged_is_none)? {
            Some((lease, found)) if is_live(&lease, found.written, self.store_now().await?) => {
                return Err(StoreError::Protected { id: id.clone(), why: "its run is at work".to_owned() });
            }
            Some(_) => {}
            None => match self.client.anything(&self.layout.backup(id), &patience).await {
                Ok(None) => return Err(StoreError::NotFound { backup: id.to_string(), url: self.url().to_string() }),
                Ok(Some(_)) => {}
                Err(failed) if failed.is(Class::Denied) => return Ok(Removal::Retained),
                Err(failed) => return Err(failed.into()),
            },
        }
        match self.bury(id, "stale", &patience).await? {
            Head::Tombstone => self.clear(id).await,
            // It was quicker.
            Head::Manifest { .. } => Err(StoreError::Complete { id: id.clone() }),
        }
    }

    async fn delete_complete(&self, id: &BackupId) -> Result<Removal, StoreError> {
        match self.ids().await {
            Ok(_) => {}
            // Whoever builds on it cannot be found, nor its objects: it stays whole.
            Err(StoreError::Denied { .. }) => return Ok(Removal::Retained),
            Err(error) => return Err(error),
        }
        let version = match self.condemn(id).await {
            Ok(version) => version,
            Err(StoreError::Denied { .. }) => return Ok(Removal::Retained),
            Err(error) => return Err(error),
        };
        if let Condemned::Now(version) = &version {
            // A pin that was set before the tombstone is seen here; one that is set after it finds the tombstone.
            if let Some(pinned) = self.pin(id).await? {
                self.withdraw(id, version).await?;
                return Err(pinned);
            }
            // Listed after the tombstone: a run that is not in this list finds the tombstone.
            let others = self.ids().await?;
            if let Some(child) = self.find_child(id, others).await? {
                self.withdraw(id, version).await?;
                return Err(StoreError::Protected { id: id.clone(), why: format!("backup {child} builds on it") });
            }
            match self.make_last(id, version).await {
                Err(StoreError::Denied { .. }) => return Ok(Removal::Retained),
                made => made?,
            }
        }
        let tombstone = encode(&Tombstone::new(id, "deleted", clock::now()));
        match self.client.put(&self.layout.manifest(id), tombstone.into(), &self.client.first()).await {
            Ok(_) => self.clear(id).await,
            Err(failed) if failed.is(Class::Denied) => Ok(Removal::Retained),
            Err(failed) => Err(failed.into()),
        }
    }

    /// From here on this deletion is carried out by whoever comes to it. Fails where another one took the tombstone over: that
    /// one may take it back, or has, and whoever pinned the backup since then was told that it stays.
    async fn make_last(&self, id: &BackupId, version: &Version) -> Result<(), StoreError> {
        let last = Bytes::from(encode(&Tombstone::last(id, clock::now())));
        match self.client.swap(&self.layout.tombstone(id), version, last.clone(), &self.client.first()).await {
            Ok(_) => Ok(()),
            // A store without compare-and-swap: nobody takes anything over there.
            Err(failed) if failed.is(Class::Unsupported) => Ok(()),
            Err(failed) => match self.client.get(&self.layout.tombstone(id), &self.client.first()).await {
                // An answer that was lost, or another one's word to the same end.
                Ok(found) if Tombstone::is_last(&found.bytes) => Ok(()),
                _ if failed.is(Class::Changed) || failed.is(Class::Missing) => {
                    let why = "another deletion of it is at work".to_owned();
                    Err(StoreError::Protected { id: id.clone(), why })
                }
                _ => Err(failed.into()),
            },
        }
    }

    /// Puts this deletion's own tombstone beside the manifest.
    async fn condemn(&self, id: &BackupId) -> Result<Condemned, StoreError> {
        let (key, patience) = (self.layout.tombstone(id), self.client.first());
        let mine = Bytes::from(encode(&Tombstone::new(id, "deleted", clock::now())));
        let mut failed = match self.client.create(&key, mine.clone().into(), &patience).await {
            Ok(version) => return Ok(Condemned::Now(version)),
            Err(failed) => failed,
        };
        for _ in 0..SWAP_TRIES {
            let found = match self.client.get(&key, &patience).await {
                Ok(found) if found.bytes == mine => return Ok(Condemned::Now(found.version)),
                Ok(found) if Tombstone::is_last(&found.bytes) => return Ok(Condemned::Before),
                Ok(found) => found,
                Err(_) => break,
            };
            // That of a deletion that was interrupted, withdrawn, or is going on: now it is ours.
            match self.client.swap(&key, &found.version, mine.clone(), &patience).await {
                Ok(version) => return Ok(Condemned::Now(version)),
                Err(changed) => failed = changed,
            }
        }
        Err(failed.into())
    }

    /// Takes this deletion's tombstone back, unless another deletion has taken it over.
    async fn withdraw(&self, id: &BackupId, version: &Version) -> Result<(), StoreError> {
        let withdrawn = Bytes::from(encode(&Tombstone::withdrawn(id, clock::now())));
        match self.client.swap(&self.layout.tombstone(id), version, withdrawn, &self.client.first()).await {
            Ok(_) => Ok(()),
            Err(failed) if failed.is(Class::Changed) || failed.is(Class::Missing) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    /// A backup or a living run that builds on `id`. Dead runs that do are claimed, lest they wake up and commit.
    async fn find_child(&self, id: &BackupId, others: Vec<BackupId>) -> Result<Option<BackupId>, StoreError> {
        let looks = futures::stream::iter(others.into_iter().filter(|other| other != id))
            .map(|other| async move { Ok::<_, StoreError>(self.builds_on(&other, id).await?.then_some(other)) });
        let mut found = looks.buffer_unordered(FAN_OUT);
        while let Some(child) = found.try_next().await? {
            if child.is_some() {
                return Ok(child);
            }
        }
        Ok(None)
    }

    async fn builds_on(&self, child: &BackupId, parent: &BackupId) -> Result<bool, StoreError> {
        let names = |head: &Head| matches!(head, Head::Manifest { parent: Some(found), .. } if found == parent);
        match self.head(child).await? {
            Some(Ok(head)) => return Ok(names(&head) && !self.is_condemned(child).await?),
            // Nothing can be restored from it, whatever it builds on.
            Some(Err(_)) => return Ok(false),
            None => {}
        }
        let Some((lease, found)) = self.lease(child).await.or_else(damaged_is_none)? else { return Ok(false) };
        if lease.parent.as_ref() != Some(parent) {
            return Ok(false);
        }
        if is_live(&lease, found.written, self.store_now().await?) {
            return Ok(true);
        }
        Ok(names(&self.bury(child, "stale", &self.client.first()).await?))
    }

    /// Removes all but the tombstone of an id that has one at its manifest's key.
    async fn clear(&self, id: &BackupId) -> Result<Removal, StoreError> {
        match self.try_clear(id).await {
            Ok(()) => Ok(Removal::Removed),
            Err(StoreError::Denied { .. }) => Ok(Removal::Retained),
            Err(error) => Err(error),
        }
    }

    async fn try_clear(&self, id: &BackupId) -> Result<(), StoreError> {
        // Thousands of objects: a moment's trouble with one must not end it.
        let patience = self.client.steady(&CancellationToken::new());
        if let Some((lease, _)) = self.lease(id).await.or_else(damaged_is_none)? {
            self.abort_uploads(&lease).await;
        }
        for below in [self.layout.data(id), self.layout.keys(id)] {
            self.client.delete_below(&below, &patience).await?;
        }
        self.client.delete(&self.layout.marks(id), &patience).await?;
        self.client.delete(&self.layout.lease(id), &patience).await?;
        Ok(self.client.delete(&self.layout.tombstone(id), &patience).await?)
    }

    /// Ends the uploads that a dead run had begun; no store lists them for us.
    async fn abort_uploads(&self, lease: &LeaseRecord) {
        let Parts::Cloud(store) = self.client.parts() else { return };
        for open in &lease.uploads {
            let key = self.layout.object(&lease.id, &lease.attempt, &open.name);
            if let Err(error) = store.abort_multipart(&key, &open.upload).await {
                tracing::debug!(object = %key, %error, "an unfinished upload could not be aborted");
            }
        }
    }
}
