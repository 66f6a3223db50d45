//! What may still be said of a backup after it was committed: that it is pinned, and until when it is wanted.
//!
//! ```text
//!   backups/<id>/marks.json     beside the manifest, which never changes; absent: not pinned, wanted for good
//! ```
//!
//! It is in the store, so that whoever is pointed at it later knows it, too. Marks are changed by compare-and-swap. Of
//! somebody who pins a backup and somebody who deletes it, one gives way: the one writes the pin first and then looks
//! for a tombstone, the other writes the tombstone first and then looks for a pin.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::id::BackupId;

use super::client::Record;
use super::error::StoreError;
use super::explain::Class;
use super::record::encode;
use super::repository::Repository;
use super::retry::Failed;

/// How often a change is tried that others change at the same time.
const SWAP_TRIES: u32 = 5;

/// What is said of a complete backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Marks {
    /// It must not be deleted.
    pub pinned: bool,
    /// It is wanted until then; unset: for good. Nothing in the store acts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Timestamp>,
}

impl Repository {
    /// The marks of a backup. One that has none has the usual ones.
    pub async fn read_marks(&self, id: &BackupId) -> Result<Marks, StoreError> {
        match self.find_marks(id).await? {
            None => Ok(Marks::default()),
            Some(record) => self.decode_marks(id, &record.bytes),
        }
    }

    /// Changes the marks of a complete backup, and says what they are then. `change` may be asked several times, if
    /// others change them, too. What is already so is not written.
    pub async fn update_marks(&self, id: &BackupId, change: impl Fn(&Marks) -> Marks) -> Result<Marks, StoreError> {
        self.change_marks(id, change).await.map(|(_, after)| after)
    }

    /// Pins a complete backup, or takes the pin away; its expiry stays. True if that changed anything.
    pub async fn set_pinned(&self, id: &BackupId, pinned: bool) -> Result<bool, StoreError> {
        let (before, _) = self.change_marks(id, |marks| Marks { pinned, ..marks.clone() }).await?;
        Ok(before.pinned != pinned)
    }

    /// What they were, and what they are.
    async fn change_marks(
        &self,
        id: &BackupId,
        change: impl Fn(&Marks) -> Marks,
    ) -> Result<(Marks, Marks), StoreError> {
        // There is no way back for what is deleted, and nothing to keep of what is not complete.
        self.read_manifest(id).await?;
        let (key, patience) = (self.layout.marks(id), self.client.first());
        let mut tries = 0;
        let changed = loop {
            tries += 1;
            let found = self.find_marks(id).await?;
            let before = match &found {
                // Marks that cannot be read are replaced by ones that can.
                Some(record) => self.decode_marks(id, &record.bytes).unwrap_or_default(),
                None => Marks::default(),
            };
            let after = change(&before);
            let readable = found.as_ref().is_none_or(|record| self.decode_marks(id, &record.bytes).is_ok());
            if after == before && readable {
                return Ok((before, after));
            }
            let bytes = Bytes::from(encode(&after));
            let written = match &found {
                Some(record) => self.client.swap(&key, &record.version, bytes, &patience).await,
                None => self.client.create(&key, bytes.into(), &patience).await,
            };
            match written {
                Ok(_) => break (before, after),
                // Somebody else changed them; or an answer was lost, and the next look finds them as wanted.
                Err(failed) if tries < SWAP_TRIES && is_overtaken(&failed) => {}
                // A store without compare-and-swap: the last word counts.
                Err(failed) if failed.is(Class::Unsupported) => {
                    self.client.put(&key, encode(&after).into(), &patience).await?;
                    break (before, after);
                }
                Err(failed) => return Err(failed.into()),
            }
        };
        // Written first, looked second: a deletion that did not see the pin is seen here.
        self.read_manifest(id).await.map(|_| changed)
    }

    async fn find_marks(&self, id: &BackupId) -> Result<Option<Record>, StoreError> {
        match self.client.get(&self.layout.marks(id), &self.client.first()).await {
            Ok(record) => Ok(Some(record)),
            // Without permission to list, a store may say "denied" of what is missing. What may not be read at all
            // fails at the manifest.
            Err(failed) if failed.is(Class::Missing) || failed.is(Class::Denied) => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    fn decode_marks(&self, id: &BackupId, bytes: &[u8]) -> Result<Marks, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
            object: self.url().of(&self.layout.marks(id)),
            why: error.to_string(),
        })
    }

    /// Why a backup must not be deleted, if its marks say so. Ones that cannot be read may hold a pin.
    pub(super) async fn pin(&self, id: &BackupId) -> Result<Option<StoreError>, StoreError> {
        match self.read_marks(id).await {
            Ok(Marks { pinned: true, .. }) => Ok(Some(StoreError::Pinned { id: id.clone() })),
            Ok(_) => Ok(None),
            Err(StoreError::Damaged { object, why }) => {
                let why =
                    format!("{object} may hold a pin and cannot be read ({why}); pin or unpin it to write it anew");
                Ok(Some(StoreError::Protected { id: id.clone(), why }))
            }
            Err(error) => Err(error),
        }
    }
}

fn is_overtaken(failed: &Failed) -> bool {
    [Class::Exists, Class::Changed, Class::Missing].into_iter().any(|class| failed.is(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_usual() {
        assert_eq!(serde_json::from_str::<Marks>("{}").unwrap(), Marks::default());
        let later: Marks = serde_json::from_str(r#"{"pinned": true, "colour": "red"}"#).unwrap();
        assert!(later.pinned, "what a later version adds is no hindrance");
        let full = Marks { pinned: true, expiration_time: Some(Timestamp::UNIX_EPOCH) };
        assert_eq!(serde_json::from_slice::<Marks>(&encode(&full)).unwrap(), full);
        assert_eq!(encode(&Marks::default()), b"{\n  \"pinned\": false\n}");
    }
}
